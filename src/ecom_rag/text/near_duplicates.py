"""Groups of texts that are nearly the same, so that an epoch is not spent on one template with its numbers changed."""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.text.minhash import BANDS, NGRAM, WHOLE, band_keys, check_similarity, gram_sets, plain, similar

_NEIGHBOURS = 64  # texts of a bucket with which each is compared; one alone misses a fifth of a dense family


def near_duplicates(texts: Sequence[str], *, similarity: float = 0.85, ngram: int = NGRAM) -> NDArray[np.int64]:
    """Group texts that are the same text (``canonical``) or nearly: whose sets of character n-grams overlap.

    N-grams are those of the canonical form without punctuation, symbols and spaces. Pairs are found by MinHash with
    banding (Broder 1997) and then checked by their exact Jaccard similarity, so a group is never made by chance. A
    similar pair is missed with the small probability that no band is shared, or that hundreds share each of its bands.
    Groups are transitive.

    Args:
        texts: Any texts. A million titles of 27 characters take 0.7 GB beside themselves.
        similarity: Jaccard similarity of the n-gram sets from which two texts count as nearly the same, 0.7 to 1.
        ngram: Characters of an n-gram.

    Returns:
        ``(texts,)`` group numbers, counted in the order of their first text.

    Raises:
        UsageError: ``similarity`` or ``ngram`` is out of range.
    """
    check_similarity(similarity)
    if ngram < 1:
        raise UsageError(f"ngram is {ngram}; expected at least 1")
    if not texts:
        return np.empty(0, np.int64)
    forms = plain(texts)
    distinct = sorted(set(forms))  # so that texts beside each other in a bucket are much alike
    row_of = {form: row for row, form in enumerate(distinct)}
    rows = np.fromiter((row_of[form] for form in forms), np.int64, len(forms))
    sets = gram_sets(distinct, ngram)
    parents = np.arange(len(distinct))
    for band in range(BANDS):
        keys = band_keys(sets.hashes, sets.offsets, band)
        _join(keys, np.argsort(keys, kind="stable"), sets.hashes, sets.offsets, similarity, parents, _NEIGHBOURS)
    numbers: NDArray[np.int64] = _numbered(parents, rows)
    return numbers


@numba.njit(cache=True, nogil=True)
def _root(parents, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@numba.njit(cache=True, nogil=True)
def _join(keys, order, hashes, offsets, similarity, parents, neighbours):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Join each text of a bucket with those before it, at most ``neighbours``, where they are similar."""
    start = 0
    for place in range(1, order.shape[0]):
        row = order[place]
        if keys[row] != keys[order[start]]:
            start = place
            continue
        own = hashes[offsets[row] : offsets[row + 1]]
        for back in range(1, min(neighbours, place - start) + 1):
            other = order[place - back] if back < neighbours else order[start]
            left, right = _root(parents, row), _root(parents, other)
            if left != right and similar(own, hashes[offsets[other] : offsets[other + 1]], similarity, WHOLE):
                parents[max(left, right)] = min(left, right)


@numba.njit(cache=True, nogil=True)
def _numbered(parents, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Group numbers of texts, counted in the order of their first text."""
    number_of = np.full(parents.shape[0], -1)
    numbers, count = np.empty(rows.shape[0], np.int64), 0
    for text in range(rows.shape[0]):
        root = _root(parents, rows[text])
        if number_of[root] < 0:
            number_of[root] = count
            count += 1
        numbers[text] = number_of[root]
    return numbers
