"""Letters in disguise, read as what they stand for: ``c@s1no``, ``b.u.l.l.e.t.s``.

In: texts. Out: as many texts, for an encoder or for ``bm25``. A model makes little of such spellings: they fall into
pieces that it never saw together. What a word may mean instead is found by rule; whether it does is the tokenizer's to
say: a reading is taken where it needs at most half as many pieces as what is written, each of some letters. So the
words that are found are those that the model knows, in whatever languages it knows, and model numbers and sizes stay
(``iPhone13``, ``128GB``, ``H1N1``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.text.normalization import HAN, normalize
from ecom_rag.text.spelling.tables import LETTERS

_SMALL = {sign: letter for sign, letter in LETTERS.items() if sign != "i"} | {"1": "il", "!": "i", "|": "il"}
_CAPITAL = {sign.upper(): letter.upper() for sign, letter in _SMALL.items()} | {"Ν": "N"}
_STANDS_FOR = _CAPITAL | _SMALL
_ALIKE = "".join(sign for sign in _STANDS_FOR if sign.isalpha())  # letters of other scripts that look Latin
_SIGN = rf"A-Za-z0-9@${_ALIKE}"
_MARKS = r".*~^·_\-"
_LETTER = re.compile("[A-Za-z]")
_MARK = re.compile(f"[{_MARKS} ]")
_NUMBER = re.compile(r"(\d)(?!\1)\d")  # "00" and "33" may be letters

# Letters one by one, the same one or two marks between any two of them, or blanks: "c.o.p.y", "r e a l".
_SPELLED = re.compile(
    rf"(?<![{_SIGN}])(?:[{_SIGN}]([{_MARKS}]{{1,2}})[{_SIGN}](?:\1[{_SIGN}])+"
    rf"|[A-Za-z]( {{1,2}})[A-Za-z](?:\2[A-Za-z]){{2,}})(?![{_SIGN}])"
)
_EXCLAIMED = re.compile(rf"(?<![{_SIGN}])[{_SIGN}]+(?:[!|][{_SIGN}]+)+")  # "w!n"
_WORD = re.compile(rf"[{_SIGN}]{{2,}}")
# One hyphen or underline makes a compound.
_BROKEN = re.compile(rf"(?<![{_SIGN}])[A-Za-z]+(?:[.*~^·]{{1,2}}[A-Za-z]+)+(?![{_SIGN}])")  # "can.cer"
_HAN_SPELLED = re.compile(rf"(?<![{HAN}])[{HAN}]( {{1,2}})[{HAN}](?:\1[{HAN}](?![{HAN}]))+")  # "代 办 证 件"
_HAN_MARKS = rf"[{_MARKS}❤♥★☆●○◆◇■□▲△]{{1,2}}"  # beside a character by itself, not between words
_HAN_BROKEN = re.compile(  # "高.仿"
    rf"((?<![{HAN}])[{HAN}]){_HAN_MARKS}(?=[{HAN}])|(?<=[{HAN}]){_HAN_MARKS}([{HAN}](?![{HAN}]))"
)

_SHORT = 4  # characters of a word; a digit in one of fewer is a number ("c4d")
_LONGEST = 24  # characters of a word in disguise
_MOST_READINGS = 16  # of one word
_BLOCK = 20_000  # texts at once


@dataclass(frozen=True, slots=True)
class Deobfuscator:
    """Reads texts for ``bm25``, as ``reader`` of an ``Analyzer``, by the words that a model's tokenizer knows.

    Args:
        model: Local folder, hub id, or ``starter``, which knows the words of about 100 languages.
    """

    model: str = "starter"

    def read(self, texts: Sequence[str]) -> list[str]:
        """As ``deobfuscated``.

        Args:
            texts: Any texts.

        Raises:
            ModelError: The model cannot be found or has no tokenizer.
        """
        return deobfuscated(texts, _tokenizer(self.model))


@lru_cache(maxsize=4)
def _tokenizer(model: str) -> Tokenizer:
    return Tokenizer(locate(model))


def deobfuscated(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Texts with disguised letters read as what they stand for.

    Args:
        texts: Any texts.
        tokenizer: Of the model that is to read them.

    Returns:
        One for each, in one width (NFKC), without invisible characters, white space being single spaces.
    """
    found: list[str] = []
    for start in range(0, len(texts), _BLOCK):
        whole = "\n".join(normalize(texts[start : start + _BLOCK], lower=False))
        whole = _read(whole, _SPELLED, tokenizer, least=2)
        for pattern in (_EXCLAIMED, _WORD, _BROKEN):
            whole = _read(whole, pattern, tokenizer, least=3)
        whole = _HAN_SPELLED.sub(lambda match: match[0].replace(" ", ""), whole)
        found += _HAN_BROKEN.sub(r"\1\2", whole).split("\n")
    return found


def _read(whole: str, pattern: re.Pattern[str], tokenizer: Tokenizer, *, least: int) -> str:
    """What matches as its best reading, where that is the likelier one; ``least`` letters a piece in the mean."""
    asked = {written: _readings(written) for written in {match[0] for match in pattern.finditer(whole)}}
    asked = {written: readings for written, readings in asked.items() if readings}
    words = [word.lower() for written, readings in asked.items() for word in (written, *readings)]
    counts = iter(tokenizer.ids(words, _LONGEST * 4).lengths.tolist())
    meant: dict[str, str] = {}
    for written, readings in asked.items():
        as_written = next(counts)
        pieces, reading = min((next(counts), reading) for reading in readings)
        fewer = 1 if written.isalpha() else 2  # letters of two scripts in one word say enough (Unicode UTS 39)
        if fewer * pieces <= as_written and len(reading) >= least * pieces:
            meant[written] = reading
    return pattern.sub(lambda match: meant.get(match[0], match[0]), whole) if meant else whole


def _readings(written: str) -> list[str]:
    """What a word may stand for, itself left out."""
    word = _MARK.sub("", written)
    letters = len(_LETTER.findall(word))
    if 2 * letters <= len(word) or len(word) > _LONGEST or _NUMBER.search(word):
        return []
    capital = word.isupper()
    choices = []
    for at, sign in enumerate(word):
        alone = sign.isdecimal() and sign != "0" and word == written  # no mark says that it belongs to a word
        if alone and (at in (0, len(word) - 1) or len(word) < _SHORT):
            return []
        choices.append((_CAPITAL if capital else _STANDS_FOR).get(sign, sign))
    if prod(map(len, choices)) > _MOST_READINGS:
        return []
    return [reading for reading in map("".join, product(*choices)) if reading != written]
