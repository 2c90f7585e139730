"""One spelling of a text: ``normalize`` for search, and ``canonical``, the form by which two texts are the same text.

In: texts. Out: as many texts. Everything runs over whole batches, each step being one call into C.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Default-ignorable code points: zero-width spaces and joiners, soft hyphens, direction marks, variation selectors.
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"

_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_CONTROLS = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufff9-\ufffb]")  # those that are not white space
_SPACE = re.compile(r"[^\S ]")  # white space that is no blank yet
_OTHER_SPACE = re.compile(r"[^\S \n]")
_BLANKS = re.compile(" +")
_UNSPACED = f"{HAN}\u3001-\u3011\u3040-\u30ff\u31f0-\u31ff"  # Han, kana and their punctuation
_IDLE_BLANK = re.compile(f" (?:(?=[{_UNSPACED}])|(?<=[{_UNSPACED}] ))")
_ENDING = " .。!~〜∼…,;、"  # NFKC has made their other widths one of these
_CHUNK = 20_000  # texts at once
_LONG = 1000  # characters of a text from which its combining marks are looked at
_MANY_MARKS = 32  # in a row, from which sorting them costs something
_SCRIPTS = ("s2t", "hk2s", "tw2s", "t2s")  # OpenCC's conversions of single characters, one after the other


def normalize(texts: Sequence[str], *, simplify: bool = False, lower: bool = True) -> list[str]:
    """Bring texts to one spelling: NFKC (width, ligatures, circled letters), no invisible characters, one case.

    Args:
        texts: Any strings.
        simplify: Fold traditional Chinese to simplified.
        lower: Lower the case.

    Returns:
        Texts of the same number; white space of any kind is a single space each.
    """
    if not texts:
        return []
    whole = _visible(texts)
    if simplify:
        whole = _simplified(whole)
    if lower:
        whole = whole.lower()
    return whole.split("\n")


def canonical(texts: Sequence[str]) -> list[str]:
    """The form by which two texts are the same text: equal exactly where the texts differ in nothing that counts.

    What does not count, in this order: invisible characters (all default-ignorable ones: zero-width spaces, joiners,
    soft hyphens, variation selectors, tags; and control characters), width and composition (NFKC), how much white
    space there is, white space beside Chinese characters and kana, the script (traditional, simplified, the variants
    of Taiwan and Hong Kong), case, and a final run of full stops, exclamation marks, tildes, ellipses, commas and
    semicolons. So an emoji sequence is its visible parts, and ``①`` and ``¹`` are ``1``, as in every search here.

    All else counts: each digit, letter and word, white space between letters or digits, and any other symbol wherever
    it stands (``1.5`` is not ``15``, ``A+`` not ``A``, ``50%`` not ``50``, a question not a statement). Characters that
    merely sound or look alike, other letters that look Latin, split characters and inserted symbols make another text:
    that is an evasive spelling, which the route ``variant`` is there to find.

    Args:
        texts: Any strings.

    Returns:
        Forms of the same number. A form is its own form. Where nothing would be left, a text of final punctuation alone
        keeps it, and one of invisible characters or white space alone is its own form.
    """
    found: list[str] = []
    for start in range(0, len(texts), _CHUNK):
        block = texts[start : start + _CHUNK]
        lines = _folded(block)
        # Once is enough for nearly all texts; a rare character is simplified, or case folded, in two steps.
        while (again := _folded(lines)) != lines:
            lines = again
        found += [line or text for line, text in zip(lines, block, strict=True)]
    return found


def _folded(texts: Sequence[str]) -> list[str]:
    whole = _CONTROLS.sub("", _visible(texts))
    whole = _IDLE_BLANK.sub("", _BLANKS.sub(" ", whole))
    if not whole.isascii():
        codes = np.frombuffer(_simplified(whole).encode("utf-32-le"), np.uint32)
        whole = _one_script()[codes].tobytes().decode("utf-32-le")
    lines = (line.strip(" ") for line in whole.casefold().split("\n"))
    return [line.rstrip(_ENDING) or line for line in lines]


def _visible(texts: Sequence[str]) -> str:
    """NFKC without invisible characters, a line a text. No step makes or takes a newline."""
    whole = "\n".join(texts)
    if whole.count("\n") < len(texts):  # as a rule no text holds one
        whole = _OTHER_SPACE.sub(" ", whole)
    else:
        whole = "\n".join(_SPACE.sub(" ", text) for text in texts)
    whole = _INVISIBLE.sub("", whole)
    if max(map(len, texts)) > _LONG and _count_marks(whole) >= _MANY_MARKS:
        whole = _long_marks().sub(_in_order, whole)
    return unicodedata.normalize("NFKC", whole)


def _simplified(whole: str) -> str:
    return whole if whole.isascii() else str(_converter("t2s").convert(whole.encode("utf-8", "replace").decode()))


@lru_cache(maxsize=1)
def _one_script() -> NDArray[np.uint32]:
    """Of each code point the simplified character, whichever of its forms it is; others are themselves."""
    table = np.arange(0x110000, dtype=np.uint32)
    han = [chr(i) for i in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000))]
    forms = han
    for name in _SCRIPTS:
        forms = _converter(name).convert("\n".join(forms)).split("\n")
    for character, form in zip(han, forms, strict=True):
        if len(form) == 1:
            table[ord(character)] = ord(form)
    return table


@lru_cache(maxsize=1)
def _marks() -> str:
    """The characters that are combining marks alone; there are none beyond."""
    marks = (chr(i) for i in range(0x80, 0x20000) if not 0xD800 <= i < 0xE000)
    return "".join(mark for mark in marks if all(map(unicodedata.combining, unicodedata.normalize("NFKD", mark))))


@lru_cache(maxsize=1)
def _is_mark() -> NDArray[np.bool_]:
    table = np.zeros(0x110000, np.bool_)
    table[[ord(mark) for mark in _marks()]] = True
    return table


def _count_marks(whole: str) -> int:
    if whole.isascii():
        return 0
    return int(np.count_nonzero(_is_mark()[np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32)]))


@lru_cache(maxsize=1)
def _long_marks() -> re.Pattern[str]:
    return re.compile(f"[{_marks()}]{{{_MANY_MARKS},}}")


def _in_order(run: re.Match[str]) -> str:
    """Combining marks in the order that NFKC gives them: its own way of sorting takes quadratic time."""
    parts = {mark: unicodedata.normalize("NFKD", mark) for mark in set(run[0])}
    return "".join(sorted("".join(map(parts.__getitem__, run[0])), key=unicodedata.combining))


@lru_cache(maxsize=8)
def _converter(name: str) -> Any:
    import opencc

    return opencc.OpenCC(name)
