"""Sketches: the n-grams of a text in at most a kilobyte, enough to find and to compare its near-duplicates.

A sketch is the ``KEPT`` smallest hashes of a text's n-grams, of 32 bits each (bottom-k, Cohen and Kaplan 2007). Texts
of at most ``KEPT`` n-grams are compared exactly. The Jaccard similarity of longer ones is an estimate with a standard
error of ``sqrt(J (1 - J) / KEPT)``: 0.022 at 0.85, as ``tests/decision/test_campaigns.py`` measures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.text.minhash import gram_sets

KEPT = 256


class Sketches(NamedTuple):
    """Sketches of several texts.

    Args:
        values: ``(all,)`` uint32; those of text ``i`` are at ``offsets[i]`` to ``offsets[i + 1]``, ascending.
        offsets: ``(texts + 1,)`` int64.
        sizes: ``(texts,)`` int64, distinct n-grams of each text, those that its sketch leaves out included.
    """

    values: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


def sketches_of(forms: Sequence[str], ngram: int) -> Sketches:
    """Sketches of texts.

    Args:
        forms: Texts as ``text.minhash.plain`` makes them.
        ngram: Characters of an n-gram.
    """
    sets = gram_sets(forms, ngram)
    sizes = np.diff(sets.offsets)
    kept = np.minimum(sizes, KEPT)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    places = np.arange(offsets[-1]) + np.repeat(sets.offsets[:-1] - offsets[:-1], kept)
    return Sketches((sets.hashes[places] >> np.uint64(32)).astype(np.uint32), offsets, sizes)


def packed(sketches: Sketches, text: int) -> bytes:
    """One of the sketches: the number of n-grams, then the values, four bytes each, little-endian."""
    values = sketches.values[sketches.offsets[text] : sketches.offsets[text + 1]]
    return int(sketches.sizes[text]).to_bytes(4, "little") + values.astype("<u4").tobytes()


def unpacked(packs: Sequence[bytes]) -> tuple[Sketches, NDArray[np.int64]]:
    """Sketches out of what ``packed`` gave, any number of them in each item, one after the other.

    Args:
        packs: The bytes.

    Returns:
        The sketches, and ``(sketches,)`` the item that each one comes from.

    Raises:
        ValueError: ``packed`` gave no such bytes.
    """
    if any(len(pack) % 4 for pack in packs):
        raise ValueError("a sketch is cut off")
    numbers = np.frombuffer(b"".join(packs), "<u4").astype(np.uint32)
    starts, items, at, end = [], [], 0, 0
    for item, pack in enumerate(packs):
        end += len(pack) // 4
        while at < end:
            starts.append(at)
            items.append(item)
            at += 1 + min(max(int(numbers[at]), 1), KEPT)
        if at != end:
            raise ValueError("a sketch is cut off")
    sizes = numbers[starts].astype(np.int64)
    offsets = np.array([*starts, at]) - np.arange(len(starts) + 1)
    return Sketches(np.delete(numbers, starts), offsets, sizes), np.array(items, np.int64)
