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
_LATIN = re.compile("[a-z]{4,}")
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


def codes(texts: Sequence[str], *, as_words: bool = False) -> dict[str, Codes]:
    """The codes of texts by channel; ``sound`` and ``shape`` have the same rows.

    Args:
        texts: Any strings.
        as_words: Take what may stand for Chinese characters for them in ``sound`` and ``shape``: emoji, which are else
            left out, and short runs of letters, which else are letters (see ``_as_words``).
    """
    table = tables.load()
    whole = "\n".join(normalize(texts))
    plain = table.simplified[_characters(whole)]
    # 0 stands for what is left out: symbols, spaces, emoji.
    read = _as_words(whole, table.syllables) if as_words else _with_syllables(whole, table.syllables)
    folded = table.folded[_characters(read)]
    joined = _joined(folded[folded > 0], table.pairs, table.wholes)
    return {
        "plain": _by_row(plain, plain),
        "sound": _by_row(joined, table.sound[joined]),
        "shape": _by_row(joined, table.shape[joined]),
    }


def with_words(texts: Sequence[str]) -> list[int]:
    """Which texts have something that ``as_words`` reads otherwise, by number."""
    syllables = tables.load().syllables
    lines = normalize(texts)
    return [n for n, line in enumerate(lines) if _as_words(line, syllables) != _with_syllables(line, syllables)]


def _characters(whole: str) -> NDArray[np.int64]:
    return np.frombuffer(whole.encode("utf-32-le", "replace"), np.uint32).astype(np.int64)


def _by_row(characters: NDArray[np.int64], values: NDArray[np.int64]) -> Codes:
    end = characters == _NEWLINE
    return Codes(values[~end], np.cumsum(end)[~end])


def _with_syllables(whole: str, syllables: tables.Syllables) -> str:
    """Letters that are Chinese syllables throughout, two at least, as one private character a syllable."""
    found = {run: _read(run, syllables, least=2) or run for run in set(_LATIN.findall(whole))}
    return _LATIN.sub(lambda run: found[run[0]], whole)


def _read(run: str, syllables: tables.Syllables, *, least: int) -> str:
    """A run of letters as syllables, where there are so many of them; else nothing."""
    found = syllables.split(run) or ""
    return found if len(found) >= least else ""


def _as_words(whole: str, syllables: tables.Syllables) -> str:
    """Emoji as their names, and letters as syllables in more places than ``_with_syllables`` sees.

    One syllable beside a Chinese character (``加wei信``), runs of syllables with marks and blanks between (``wei.xin``)
    or within (``w.ei.x.in``). Other runs of up to four letters beside Chinese characters are initials (``加wx``), one
    private character each.
    """
    whole = whole.translate(tables.emoji_names())
    known: dict[str, str] = {}

    def read(run: str, least: int) -> str:
        if run not in known:
            known[run] = _read(run, syllables, least=1)
        return known[run] if len(known[run]) >= least else ""

    def stretch(found: re.Match[str]) -> str:
        runs = _LETTERS.findall(found[0])
        if len(runs) > 1:
            if all(read(run, 1) for run in runs):
                return "".join(known[run] for run in runs)
            if max(map(len, runs)) <= _BROKEN and (joined := read("".join(runs), 2)):
                return joined
        start, end = found.span()
        beside = {start if _AFTER_HAN.search(whole, max(0, start - 3), start) else -1}
        beside |= {end if _BEFORE_HAN.match(whole, end) else -1}

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
