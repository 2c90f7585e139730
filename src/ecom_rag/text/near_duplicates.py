"""Groups of texts that are nearly the same, so that an epoch is not spent on one template with its numbers changed."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from ecom_rag.errors import UsageError
from ecom_rag.text.normalization import canonical

_NOISE = re.compile(r"[\W_]+")
_BANDS, _ROWS = 16, 4  # a pair of Jaccard 0.9 shares a band with probability 0.999999, one of 0.7 with 0.988
_LEAST = 0.7


def near_duplicates(texts: Sequence[str], *, similarity: float = 0.85, ngram: int = 3) -> NDArray[np.int64]:
    """Group texts that are the same text (``canonical``) or nearly: whose sets of character n-grams overlap.

    N-grams are those of the canonical form without punctuation, symbols and spaces. Pairs are found by MinHash with
    banding (Broder 1997) and then checked by their exact Jaccard similarity, so a group is never made by chance; a
    similar pair is missed with the small probability that no band is shared. Groups are transitive.

    Args:
        texts: Any texts.
        similarity: Jaccard similarity of the n-gram sets from which two texts count as nearly the same, 0.7 to 1.
        ngram: Characters of an n-gram.

    Returns:
        ``(texts,)`` group numbers, counted in the order of their first text.

    Raises:
        UsageError: ``similarity`` or ``ngram`` is out of range.
    """
    if not _LEAST <= similarity <= 1:
        raise UsageError(f"similarity of near-duplicates is {similarity}; expected {_LEAST} to 1")
    if ngram < 1:
        raise UsageError(f"ngram is {ngram}; expected at least 1")
    if not texts:
        return np.empty(0, np.int64)
    plain = [_NOISE.sub("", form) or form for form in canonical(texts)]
    distinct, places = np.unique(np.array(plain, dtype=object), return_inverse=True)
    grams = _gram_sets(list(distinct), ngram)
    pairs = _candidates(grams)
    similar = pairs[_jaccard(grams, pairs) >= similarity]
    links = coo_matrix((np.ones(len(similar), np.int8), (similar[:, 0], similar[:, 1])), shape=(len(distinct),) * 2)
    _, component = connected_components(links, directed=False)
    _, first, groups = np.unique(component[places], return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[groups]


def _gram_sets(texts: list[str], ngram: int) -> csr_matrix:
    """``(texts, distinct n-grams)`` of ones; a text shorter than an n-gram is padded to one."""
    padded = [text.ljust(ngram, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    hashes = np.zeros(len(codes), np.uint64)
    for offset in range(ngram):  # a polynomial of the next n characters, modulo 2^64
        shifted = np.roll(codes, -offset)
        hashes = hashes * np.uint64(0x100000001B3) + shifted + np.uint64(1)
    owners = np.repeat(np.arange(len(texts)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    inside = np.arange(len(codes)) + ngram <= ends
    _, columns = np.unique(hashes[inside], return_inverse=True)
    sets = csr_matrix(
        (np.ones(len(columns), np.int32), (owners[inside], columns)), shape=(len(texts), int(columns.max()) + 1)
    )
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def _candidates(sets: csr_matrix) -> NDArray[np.int64]:
    """``(pairs, 2)`` of texts that share a band of MinHashes, each text with its bucket's first and its neighbour."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(_BANDS):
        key = np.zeros(sets.shape[0], np.uint64)
        for _ in range(_ROWS):
            of_column = random.integers(0, 2**63, sets.shape[1], dtype=np.int64).astype(np.uint64)
            smallest = np.minimum.reduceat(of_column[sets.indices], sets.indptr[:-1])
            key = key * np.uint64(0x9E3779B97F4A7C15) + smallest
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        starts = np.concatenate([[True], ~same])
        first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
        pairs.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
        pairs.append(np.stack([first[1:][same], order[1:][same]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int64)


def _jaccard(sets: csr_matrix, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    sizes = np.diff(sets.indptr)
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), 100_000):
        left, right = pairs[start : start + 100_000].T
        common = np.asarray(sets[left].multiply(sets[right]).sum(axis=1)).ravel()
        found[start : start + 100_000] = common / (sizes[left] + sizes[right] - common)
    return found
