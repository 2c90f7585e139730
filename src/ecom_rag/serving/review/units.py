"""A text as units that sound and look like something, each with its place in the text.

The codes are those of ``text.spelling``, which reads whole batches and forgets places; here it is one text at a time.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.text.normalization import HAN, normalize
from ecom_rag.text.spelling import tables

_RUN = re.compile("[a-z]+|.", re.DOTALL)
_IS_HAN = re.compile(f"[{HAN}]")
_INITIALS = re.compile("[abcdefghjklmnopqrstwxyzv]{1,4}")


@dataclass(frozen=True, slots=True)
class Units:
    """Arrays of the same length.

    Args:
        starts: First character of the text.
        ends: Behind the last one.
        plain: The character, simplified; 0 where several stand for one, or one for several.
        sound: Code of its reading.
        shape: Code of its look-alikes.
        initial: 0 to 25 for a letter that may stand for a syllable; -1 for all else.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    plain: NDArray[np.int64]
    sound: NDArray[np.int64]
    shape: NDArray[np.int64]
    initial: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


class Letters(NamedTuple):
    """A text after NFKC without what is invisible, in lower case, and where each character comes from."""

    text: str
    starts: list[int]
    ends: list[int]


class _Unit(NamedTuple):
    start: int
    end: int
    plain: int
    code: int  # a character whose sound and shape are looked up
    initial: int = -1


def letters_of(text: str, *, simplify: bool = False) -> Letters:
    """Normalise a text a character with its combining marks at a time, so that places are known.

    Args:
        text: Any string.
        simplify: Fold traditional Chinese to simplified.
    """
    bounds = [place for place, one in enumerate(text) if not place or not unicodedata.combining(one)]
    clusters = [text[start:end] for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True)]
    forms = normalize([one.encode("utf-8", "replace").decode() for one in clusters], simplify=simplify)
    letters, starts, ends = [], [], []
    for start, cluster, form in zip(bounds, clusters, forms, strict=True):
        for one in form:
            letters.append(one)
            starts.append(start)
            ends.append(start + len(cluster))
    return Letters("".join(letters), starts, ends)


def units_of(text: str, *, as_words: bool) -> Units:
    """The units of a text.

    Args:
        text: Any string.
        as_words: Read emoji by their names, and short runs of letters as syllables or initials.
    """
    table = tables.load()
    found = list(_joined(list(_units(letters_of(text), as_words=as_words))))
    columns = np.array(found, np.int64).reshape(-1, 5).T
    starts, ends, plain, codes, initial = columns
    return Units(starts, ends, plain, table.sound[codes], table.shape[codes], initial)


def _units(letters: Letters, *, as_words: bool) -> Iterator[_Unit]:
    table = tables.load()
    names = tables.emoji_names() if as_words else {}
    for match in _RUN.finditer(letters.text):
        start, end = match.span()
        if "a" <= match[0][0] <= "z":
            yield from _of_letters(letters, start, end, as_words=as_words)
        elif ord(match[0]) in names:
            for one in names[ord(match[0])]:
                yield _Unit(letters.starts[start], letters.ends[start], 0, ord(one))
        elif table.folded[ord(match[0])]:
            plain, code = int(table.simplified[ord(match[0])]), int(table.folded[ord(match[0])])
            yield _Unit(letters.starts[start], letters.ends[start], plain, code)


def _of_letters(letters: Letters, start: int, end: int, *, as_words: bool) -> Iterator[_Unit]:
    """A run of letters as syllables, as initials beside Chinese characters, or as letters."""
    table, run = tables.load(), letters.text[start:end]
    syllables = table.syllables.split(run) if len(run) >= (2 if as_words else 4) else None
    if syllables and (as_words or len(syllables) > 1):
        at = start
        for one in syllables:
            size = _size(letters.text[at:end], ord(one), table.syllables)
            yield _Unit(letters.starts[at], letters.ends[at + size - 1], 0, ord(one))
            at += size
        return
    beside = letters.text[max(0, start - 1) : start] + letters.text[end : end + 1]
    if as_words and _IS_HAN.search(beside) and _INITIALS.fullmatch(run):
        for at, one in enumerate(tables.initials(run), start):
            letter = ord(run[at - start].replace("v", "w")) - ord("a")
            yield _Unit(letters.starts[at], letters.ends[at], 0, ord(one), letter)
        return
    for at in range(start, end):
        code = ord(letters.text[at])
        yield _Unit(letters.starts[at], letters.ends[at], code, int(table.folded[code]))


def _size(rest: str, syllable: int, known: tables.Syllables) -> int:
    """Letters of the syllable that a rest begins with: the longest that reads so."""
    sound = tables.load().sound
    for size in range(min(6, len(rest)), 0, -1):
        whole = known.split(rest[:size]) if size > 1 else None
        if whole and len(whole) == 1 and sound[ord(whole)] == sound[syllable]:
            return size
    return 1


def _joined(units: list[_Unit]) -> Iterator[_Unit]:
    """Units with split characters joined, from the left."""
    table, place = tables.load(), 0
    while place < len(units):
        one = units[place]
        if place + 1 < len(units):
            key = one.code << 21 | units[place + 1].code
            at = int(np.searchsorted(table.pairs, key))
            if at < len(table.pairs) and table.pairs[at] == key:
                yield _Unit(one.start, units[place + 1].end, 0, int(table.wholes[at]))
                place += 2
                continue
        yield one
        place += 1
