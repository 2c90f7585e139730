"""Texts to codes, a batch at a time: every step is a table look-up over all characters at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.text.normalization import HAN, normalize
from ecom_rag.text.spelling import tables

CHANNELS = ("plain", "sound", "shape")

_NEWLINE = 10
_BETWEEN = f"[^0-9a-z{HAN}\\n]{{1,2}}"  # marks and blanks between letters that belong together
_STRETCH = re.compile(f"[a-z]+(?:{_BETWEEN}[a-z]+)*")
_LETTERS = re.compile("[a-z]+")
_AFTER_HAN = re.compile(f"[{HAN}](?:{_BETWEEN})?$")
_BEFORE_HAN = re.compile(f"(?:{_BETWEEN})?[{HAN}]")
_INITIALS = re.compile("[abcdefghjklmnopqrstwxyzv]{1,4}")  # letters that a syllable can begin with, and v for w
_BROKEN = 3  # letters of a piece, at most, where marks stand within syllables


@dataclass(frozen=True, slots=True)
class Codes:
    """One channel of some texts.

    Args:
        values: int64, of all texts one after the other; below 2**21.
        rows: int64, the text each value belongs to, ascending.
    """

    values: NDArray[np.int64]
    rows: NDArray[np.int64]


def codes(texts: Sequence[str], *, emoji_as_words: bool = False) -> dict[str, Codes]:
    """The codes of texts by channel; ``sound`` and ``shape`` have the same rows.

    Args:
        texts: Any strings.
        emoji_as_words: Read emoji in ``sound`` and ``shape`` as their Chinese names, instead of leaving them out.
    """
    table = tables.load()
    whole = "\n".join(normalize(texts))
    plain = table.simplified[_characters(whole)]
    if emoji_as_words:
        whole = whole.translate(tables.emoji_names())
    # 0 stands for what is left out: symbols, spaces, emoji.
    folded = table.folded[_characters(_with_syllables(whole, table.syllables))]
    joined = _joined(folded[folded > 0], table.pairs, table.wholes)
    return {
        "plain": _by_row(plain, plain),
        "sound": _by_row(joined, table.sound[joined]),
        "shape": _by_row(joined, table.shape[joined]),
    }


def _characters(whole: str) -> NDArray[np.int64]:
    return np.frombuffer(whole.encode("utf-32-le", "replace"), np.uint32).astype(np.int64)


def _by_row(characters: NDArray[np.int64], values: NDArray[np.int64]) -> Codes:
    end = characters == _NEWLINE
    return Codes(values[~end], np.cumsum(end)[~end])


def has_emoji(text: str) -> bool:
    """Whether there are emoji that can be read as words."""
    return not text.isascii() and not tables.emoji_names().keys().isdisjoint(map(ord, text))


def _with_syllables(whole: str, syllables: tables.Syllables) -> str:
    """Letters that are Chinese syllables, as one private character a syllable.

    A run of letters is read so where syllables cover it, and there are two of them, or Chinese characters beside it, or
    other such runs behind marks and blanks (``wei.xin``); and where marks stand within them (``w.ei.x.in``). Other
    runs of up to four letters beside Chinese characters are initials, one private character each (``加wx``).
    """
    known: dict[str, str] = {}

    def read(run: str, least: int) -> str:
        """A run of letters as syllables, if there are so many; else as it is."""
        if run not in known:
            known[run] = syllables.split(run) or ""
        return known[run] if len(known[run]) >= least else ""

    def stretch(found: re.Match[str]) -> str:
        runs = _LETTERS.findall(found[0])
        if len(runs) > 1:
            if all(read(run, 1) for run in runs):
                return "".join(read(run, 1) for run in runs)
            if max(map(len, runs)) <= _BROKEN and (joined := read("".join(runs), 2)):
                return joined
        start, end = found.span()
        beside = {found.start() if _AFTER_HAN.search(whole, max(0, start - 3), start) else -1}
        beside |= {found.end() if _BEFORE_HAN.match(whole, end) else -1}

        def one(run: re.Match[str]) -> str:
            near = start + run.start() in beside or start + run.end() in beside
            if read_so := read(run[0], 1 if near else 2):
                return read_so
            return tables.initials(run[0]) if near and _INITIALS.fullmatch(run[0]) else run[0]

        return _LETTERS.sub(one, found[0])

    return _STRETCH.sub(stretch, whole)


@numba.njit(cache=True, nogil=True)
def _joined(characters, pairs, wholes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Characters with split ones joined, from the left: ``pairs`` holds the halves' keys in ascending order."""
    out = np.empty_like(characters)
    count, i = 0, 0
    while i < characters.shape[0]:
        out[count] = characters[i]
        if i + 1 < characters.shape[0]:
            key = characters[i] << 21 | characters[i + 1]
            at = np.searchsorted(pairs, key)
            if at < pairs.shape[0] and pairs[at] == key:
                out[count] = wholes[at]
                i += 1
        count += 1
        i += 1
    return out[:count]
