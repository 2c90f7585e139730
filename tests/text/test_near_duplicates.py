"""Groups of near-duplicates against all pairs, compared one by one."""

import numpy as np
import pytest

from ecom_rag.errors import UsageError
from ecom_rag.text.minhash import BANDS, WHOLE, band_keys, gram_sets, similar
from ecom_rag.text.near_duplicates import near_duplicates
from helpers.campaigns import similarities, variations


def components(texts, similarity):
    found, groups = similarities(texts), list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if found[i][j] >= similarity:
                groups = [groups[j] if group == groups[i] else group for group in groups]
    return [sorted(set(groups), key=groups.index).index(group) for group in groups]


@pytest.mark.parametrize("similarity", [0.7, 0.85, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_as_all_pairs_compared(similarity, seed):
    texts = variations(90, templates=4, length=60, edits=4, seed=seed)
    assert near_duplicates(texts, similarity=similarity).tolist() == components(texts, similarity)


def test_many_texts_that_share_bands_below_the_similarity():
    """A family of 300 in which few are similar: those are found among those that merely share the buckets."""
    texts = variations(300, templates=1, length=50, edits=5, seed=7)
    assert near_duplicates(texts).tolist() == components(texts, 0.85)


def test_sets_and_their_similarity():
    texts = ["abcabcd", "bcde", "ab", "", "🙂🙂🙂🙂", "\ud800abc"]
    sets = gram_sets(texts)
    assert np.diff(sets.offsets).tolist() == [4, 2, 1, 1, 1, 2]
    runs = [sets.hashes[start:end] for start, end in zip(sets.offsets, sets.offsets[1:], strict=False)]
    assert all((run[1:] > run[:-1]).all() for run in runs)
    assert [similar(runs[0], runs[1], threshold, WHOLE) for threshold in (0.2, 0.21)] == [True, False]  # 1 of 5


def test_a_band_is_shared_as_often_as_the_theory_says():
    """Jaccard 0.8 and four rows: 0.8 ** 4 = 0.41 of the bands, here of 16,000."""
    random = np.random.default_rng(3)
    rows = random.integers(0, 2**63, (1000, 2, 100), dtype=np.int64).astype(np.uint64)
    rows[:, 1, :89] = rows[:, 0, :89]  # 89 common of 111
    rows.sort(axis=2)
    offsets = np.arange(0, rows.size + 1, 100)
    keys = np.array([band_keys(rows.ravel(), offsets, band).reshape(1000, 2) for band in range(BANDS)])
    assert np.mean(keys[:, :, 0] == keys[:, :, 1]) == pytest.approx((89 / 111) ** 4, abs=0.02)


def test_settings_out_of_range():
    with pytest.raises(UsageError, match=r"similarity of near-duplicates is 0.6; expected 0.7 to 1"):
        near_duplicates(["a"], similarity=0.6)
    with pytest.raises(UsageError, match="ngram is 0; expected at least 1"):
        near_duplicates(["a"], ngram=0)
