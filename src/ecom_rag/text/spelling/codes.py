"""Texts to codes, a batch at a time: every step is a table look-up over all characters at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.text.normalization import normalize
from ecom_rag.text.spelling import tables

CHANNELS = ("plain", "sound", "shape")

_NEWLINE = 10
_LATIN = re.compile("[a-z]{4,}")


@dataclass(frozen=True, slots=True)
class Codes:
    """One channel of some texts.

    Args:
        values: int64, of all texts one after the other; below 2**21.
        rows: int64, the text each value belongs to, ascending.
    """

    values: NDArray[np.int64]
    rows: NDArray[np.int64]


def codes(texts: Sequence[str]) -> dict[str, Codes]:
    """The codes of texts by channel; ``sound`` and ``shape`` have the same rows.

    Args:
        texts: Any strings.
    """
    table = tables.load()
    lines = normalize(texts)
    plain = table.simplified[_characters("\n".join(lines))]
    # 0 stands for what is left out: symbols, spaces, emoji.
    folded = table.folded[_characters(_with_syllables("\n".join(lines), table.syllables))]
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


def _with_syllables(whole: str, syllables: tables.Syllables) -> str:
    """Letters that are Chinese syllables throughout, two at least, as one private character a syllable."""
    found = {run: syllables.split(run) or run for run in set(_LATIN.findall(whole))}
    return _LATIN.sub(lambda run: found[run[0]], whole)


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
