"""Sets of character n-grams as hashes, and MinHash bands that bring together the sets that overlap (Broder 1997).

In: texts. Out: one ascending run of hashes for each text, band keys, and the answer whether two sets are similar. What
groups a batch (``near_duplicates``) and what follows a stream (``decision/campaigns.py``) share all of it.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.text.normalization import canonical

BANDS, ROWS = 16, 4  # a pair of Jaccard 0.9 shares a band with probability 0.999999, one of 0.7 with 0.988
LEAST = 0.7  # the similarity from which banding finds nearly all pairs
NGRAM = 3
WHOLE = 1 << 60  # values of a set of which nothing was left out

_NOISE = re.compile(r"[\W_]+")
# Numbers that no version of NumPy changes: a factor and a term of each row, a permutation of 64-bit numbers.
_DRAWS = np.frombuffer(hashlib.shake_128(b"MinHash").digest(16 * BANDS * ROWS), "<u8").reshape(2, -1).astype(np.uint64)
_FACTORS, _TERMS = _DRAWS[0] | np.uint64(1), _DRAWS[1]
_MIX = np.uint64(0x9E3779B97F4A7C15)


class GramSets(NamedTuple):
    """Sets of n-grams, one for each text.

    Args:
        hashes: ``(all,)`` uint64; those of text ``i`` are at ``offsets[i]`` to ``offsets[i + 1]``, distinct, ascending.
        offsets: ``(texts + 1,)`` int64.
    """

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]


def check_similarity(similarity: float) -> None:
    """Raise ``UsageError`` unless pairs of that similarity are found by their bands."""
    if not LEAST <= similarity <= 1:
        raise UsageError(f"similarity of near-duplicates is {similarity}; expected {LEAST} to 1")


def plain(texts: Sequence[str]) -> list[str]:
    """Canonical forms without punctuation, symbols and spaces, where anything is left then."""
    return [_NOISE.sub("", form) or form for form in canonical(texts)]


def gram_sets(forms: Sequence[str], ngram: int = NGRAM) -> GramSets:
    """The sets of character n-grams of texts; a text that is shorter than an n-gram is padded to one."""
    padded = [form.ljust(ngram, "\0") for form in forms]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    return GramSets(*_gram_sets(codes, lengths, ngram))


@numba.njit(cache=True, nogil=True)
def _gram_sets(codes, lengths, ngram):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    hashes = np.empty(lengths.sum() - (ngram - 1) * lengths.shape[0], np.uint64)
    offsets = np.zeros(lengths.shape[0] + 1, np.int64)
    start, filled = 0, 0
    for text in range(lengths.shape[0]):
        grams = lengths[text] - ngram + 1
        found = hashes[filled : filled + grams]
        for place in range(grams):
            value = np.uint64(0)
            for code in codes[start + place : start + place + ngram]:  # a polynomial of the characters, modulo 2^64
                value = value * np.uint64(0x100000001B3) + np.uint64(code) + np.uint64(1)
            found[place] = mixed(value)
        found.sort()
        kept = 0
        for place in range(grams):
            if place == 0 or found[place] != found[kept - 1]:
                found[kept] = found[place]
                kept += 1
        start += lengths[text]
        filled += kept
        offsets[text + 1] = filled
    return hashes[:filled].copy(), offsets


@numba.njit(cache=True, nogil=True)
def mixed(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A permutation of 64-bit numbers after which any of the bits serve (Steele et al. 2014, SplitMix)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def band_key(values, band):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The key of a set in a band: equal for two sets with the probability of their Jaccard similarity ** ROWS."""
    key = np.uint64(band)
    for row in range(band * ROWS, (band + 1) * ROWS):
        factor, term = _FACTORS[row], _TERMS[row]
        smallest = np.uint64(0xFFFFFFFFFFFFFFFF)
        for value in values:
            smallest = min(smallest, np.uint64(value) * factor + term)
        key = mixed(key * _MIX + smallest)
    return key


@numba.njit(cache=True, nogil=True)
def band_keys(hashes, offsets, band):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``(texts,)`` uint64 of ``band_key``."""
    keys = np.empty(offsets.shape[0] - 1, np.uint64)
    for text in range(keys.shape[0]):
        keys[text] = band_key(hashes[offsets[text] : offsets[text + 1]], band)
    return keys


@numba.njit(cache=True, nogil=True)
def similar(left, right, similarity, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether the Jaccard similarity of two sets is at least ``similarity``.

    Args:
        left: Ascending distinct values.
        right: Others.
        similarity: Above 0, to 1.
        limit: How many of the smallest values of their union are compared: ``WHOLE`` for all. Where each is the
            ``limit`` smallest values of a larger set, the result is that of an estimate (Broder 1997, section 4).
    """
    all_values = min(left.shape[0] + right.shape[0], 2 * limit)
    alone_most = all_values * (1 - similarity) / (1 + similarity) + 1  # more, and the rest cannot make up for it
    union, common, i, j = 0, 0, 0, 0
    while union < limit and (i < left.shape[0] or j < right.shape[0]):
        if j == right.shape[0] or (i < left.shape[0] and left[i] < right[j]):
            i += 1
        elif i == left.shape[0] or right[j] < left[i]:
            j += 1
        else:
            i, j, common = i + 1, j + 1, common + 1
        union += 1
        if union - common > alone_most:
            return False
    return common / union >= similarity
