"""Disguises of a text that leave it the same text, as hypothesis strategies."""

import opencc
from hypothesis import strategies as st

INVISIBLE = ("\u200b", "\u200c", "\u200d", "\ufeff", "\u00ad", "\u2060", "\u180e", "\ufe0f", "\U000e0101", "\x07")
ENDINGS = ("。", ".", "！", "!!", "~", "～", "…", "。。。", " .", "，")
_SCRIPTS = tuple(opencc.OpenCC(name) for name in ("t2s", "s2t", "s2tw", "s2hk"))
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}


@st.composite
def disguised(draw, text):
    """The same text in another width, case and script, with invisible characters, white space and a final stop."""
    for step in draw(st.lists(st.sampled_from((_hidden, _wide, _cased, _script, _spaced, _ended)), min_size=1)):
        text = step(draw, text)
    return text


def _hidden(draw, text):
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.sampled_from(INVISIBLE)) + text[at:]


def _wide(draw, text):
    return text.translate(_WIDE)


def _cased(draw, text):
    return draw(st.sampled_from((str.upper, str.lower, str.swapcase)))(text)


def _script(draw, text):
    return draw(st.sampled_from(_SCRIPTS)).convert(text)


def _spaced(draw, text):
    return " " + text.replace(" ", draw(st.sampled_from((" \u3000", "\t", "\u00a0 ")))) + "\n"


def _ended(draw, text):
    return text + draw(st.sampled_from(ENDINGS))
