"""Rough rows: sums of whole numbers do not overflow, planes are the numbers they were split from, and bounds hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.retrieval import dense_rough
from ecom_rag.retrieval.dense_products import FEW, Planes, Whole, blocks
from ecom_rag.retrieval.dense_rough import RoughRows, kind_of


def rough_scores(rows, queries):
    """``(q, n)`` as the search compares them, and the bound of each query with the rounding of a score."""
    exact = torch.from_numpy(queries)
    asked = rows.asked(exact)
    found = np.empty((len(queries), sum(len(part) for _, part in rows.segments())), np.float32)
    for first, segment in rows.segments():
        for start, bits in blocks(asked, segment, final=False):
            wide = bits.astype(np.int32) << 16 if bits.dtype == np.int16 else bits
            found[:, first + start : first + start + bits.shape[1]] = wide.view(np.float32)
    return found, *rows.bounds(exact, asked)


@pytest.mark.parametrize("dim", [1, 24, 384, 1024, 5000])
def test_the_largest_sums_are_exact(dim):
    rows = np.array([[127] * dim, [-127] * dim, [127, -127] * (dim // 2) + [5] * (dim % 2)], np.int8)
    queries = np.array([[1.0] * dim, [-3.5] * dim, [2.0, -2.0] * (dim // 2) + [1.0] * (dim % 2)], np.float32)
    whole = Whole.of(queries)
    np.testing.assert_allclose(whole.values(), queries, rtol=1e-4 if dim < 1000 else 1e-3)
    ((start, bits),) = blocks(whole, Planes(rows, None), final=False)
    sums = whole.numbers.astype(np.int64) @ rows.T.astype(np.int64)
    assert start == 0 and np.abs(sums).max() < 2**31
    np.testing.assert_array_equal(bits.view(np.float32), sums.astype(np.float32) * whole.steps[:, None])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_widened_planes_are_the_numbers_that_were_split(dtype):
    numbers = np.arange(-32_512, 32_513, dtype=np.int32)
    high = (numbers + 128) >> 8
    low = numbers - 256 * high
    assert np.abs(high).max() == 127 and low.min() == -128 and low.max() == 127
    planes = Planes(high.astype(np.int8)[:, None], low.astype(np.int8)[:, None])
    expected = torch.from_numpy(numbers).bfloat16().to(dtype)
    assert torch.equal(planes.widened(dtype)[:, 0], expected)
    assert torch.equal(Planes(planes.high, None).widened(dtype)[:, 0], torch.from_numpy(256 * high).to(dtype))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["int16", "int8"]),
    few=st.booleans(),
    narrow=st.booleans(),
    dim=st.sampled_from([1, 5, 64, 400]),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e4]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_no_score_is_further_off_than_its_bound(monkeypatch_prefers, kind, few, narrow, dim, size, spread, seed):
    """Rows about a common point, dimensions of unlike sizes, and rows that came later and are longer."""
    monkeypatch_prefers(narrow)
    rng = np.random.default_rng(seed)
    sizes = size * np.exp(rng.standard_normal(dim))
    vectors = (sizes * (1 + spread * rng.standard_normal((300, dim)))).astype(np.float32)
    rows = RoughRows(vectors[:200], kind)
    rows.extend(vectors[200:] * np.float32(3))
    vectors[200:] *= np.float32(3)
    queries = rng.standard_normal((3 if few else FEW + 3, dim)).astype(np.float32)
    scores, bound, relative = rough_scores(rows, queries)
    wide = queries.astype(np.float64)
    true = wide @ (vectors.astype(np.float64) - rows._centre.astype(np.float64)).T
    assert (np.abs(scores - true) <= bound[:, None] + relative * np.abs(scores)).all()
    assert bound.max() < np.abs(wide).sum(axis=1).max() * np.abs(vectors).max()  # not a bound of anything


@pytest.fixture(scope="module")
def monkeypatch_prefers():
    with pytest.MonkeyPatch.context() as patch:
        yield lambda narrow: patch.setattr(dense_rough, "prefers_bf16", lambda: narrow)


def test_two_planes_are_nearer_than_one():
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((1000, 64)).astype(np.float32)
    queries = rng.standard_normal((FEW + 1, 64)).astype(np.float32)
    bounds = {kind: rough_scores(RoughRows(vectors, kind), queries)[1] for kind in ("int16", "int8")}
    assert (2 * bounds["int16"] < bounds["int8"]).all()


def test_what_an_earlier_version_wrote_is_told_apart():
    arrays = RoughRows(np.eye(4, dtype=np.float32), "int16").arrays()
    assert kind_of(arrays) == "int16"
    assert kind_of({name: array for name, array in arrays.items() if name != "low"}) is None
    assert kind_of({"rough": arrays["rough"].astype(np.int16), "bounds": np.zeros(3)}) is None
    assert kind_of({"bounds": np.zeros(1)}) == "fp32"
