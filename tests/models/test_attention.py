"""The compiled attention and the lanes it is written in, against float64 and against torch's rounding."""

import math

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.models.networks import lanes
from ecom_rag.models.networks.attention_kernel import attend

UNTOUCHED = np.float32(7.5)
BF16 = "bf16"


def as_bf16(x):
    return torch.from_numpy(x).bfloat16()


def bits(x):
    """Of float32 rounded to bf16 by torch, as uint16."""
    return as_bf16(x).view(torch.int16).numpy().view(np.uint16)


def from_bits(x):
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).float().numpy()


def attended(qkv, starts, lengths, asked, heads, precision):
    """What ``attend`` makes of float32 rows; each text's output begins at the row where its input does."""
    dim = qkv.shape[1] // 3
    scale = np.float32(math.log2(math.e) / math.sqrt(dim // heads))
    source, out = qkv, np.full((len(qkv), dim), UNTOUCHED)
    if precision == BF16:
        source, out = bits(qkv), bits(out)
    attend(source, starts, lengths, starts, asked, heads, scale, out)
    return from_bits(out) if precision == BF16 else out


def definition(qkv, heads):
    """Softmax attention of one text in float64: ``(n, 3 dim)`` to ``(n, dim)``."""
    n = len(qkv)
    q, k, v = qkv.astype(np.float64).reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, -1)


def texts(lengths, dim, gap, spread, seed):
    """Rows of several texts with ``gap`` rows of NaN between them, which must never be read into a result."""
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    rows = np.maximum(lengths, 1) + gap
    starts = rows.cumsum() - rows
    qkv = np.full((rows.sum(), 3 * dim), np.nan, np.float32)
    for start, n in zip(starts, lengths, strict=True):
        qkv[start : start + n] = rng.standard_normal((n, 3 * dim)) * np.repeat([spread, 1, 1], dim)
    return from_bits(bits(qkv)), starts, lengths


@settings(deadline=None, max_examples=80)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 512)), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    size=st.sampled_from([16, 32, 48, 64, 80]),
    first=st.booleans(),
    gap=st.integers(0, 3),
    spread=st.sampled_from([0.01, 1, 40]),
    precision=st.sampled_from(["fp32", BF16]),
    seed=st.integers(0, 99),
)
def test_any_texts_are_attended_as_defined(lengths, heads, size, first, gap, spread, precision, seed):
    """Beside the values: each text gives the same bytes alone, and no row of another is written."""
    qkv, starts, lengths = texts(lengths, heads * size, gap, spread, seed)
    asked = 1 if first else 512
    found = attended(qkv, starts, lengths, asked, heads, precision)
    free = np.ones(len(qkv), bool)
    for start, n in zip(starts, lengths, strict=True):
        rows = slice(start, start + min(asked, max(n, 1)))
        free[rows] = False
        if n == 0:
            assert np.isnan(found[rows]).all()
            continue
        own = qkv[start : start + n]
        expected = definition(own, heads)[: rows.stop - start]
        exact = 2e-5 if precision == "fp32" else 2**-8
        np.testing.assert_allclose(
            found[rows], expected, rtol=exact, atol=exact * np.abs(own[:, -heads * size :]).max()
        )
        alone = attended(own, np.array([0]), np.array([n]), asked, heads, precision)
        np.testing.assert_array_equal(alone[: rows.stop - start], found[rows])
    assert (found[free] == UNTOUCHED).all()


@pytest.mark.parametrize("precision", ["fp32", BF16])
@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 7, 8, 19, 70])
def test_damage_shows_where_it_matters_and_nowhere_else(n, damage, precision):
    heads, size = 2, 32
    dim = heads * size
    whole, starts, lengths = texts([n, n, n], dim, 0, 1, n)
    before = attended(whole, starts, lengths, n, heads, precision)
    for part, seen_rows, seen_columns in (
        (0, [n - 1], slice(size, dim)),  # a query: its own row of the second head
        (1, slice(None), slice(size, dim)),  # a key: every row of the head
        (2, slice(None), [size + 3]),  # a value: its column
    ):
        qkv = whole.copy()
        qkv[2 * n - 1, part * dim + size + 3] = damage  # the last token of the second text
        found = attended(qkv, starts, lengths, n, heads, precision)
        expected = np.zeros((n, dim), bool)
        expected[seen_rows, seen_columns] = True
        np.testing.assert_array_equal(~np.isfinite(found[n : 2 * n]), expected)
        np.testing.assert_array_equal(found[n : 2 * n][~expected], before[n : 2 * n][~expected])
        np.testing.assert_array_equal(found[:n], before[:n])
        np.testing.assert_array_equal(found[2 * n :], before[2 * n :])


@numba.njit
def _powers(x, out):
    for at in range(0, len(x), 16):
        lanes.store(lanes.power_of_two(lanes.load(x, at)), out, at)  # type: ignore[call-arg]


@numba.njit
def _copied(x, out):
    for at in range(0, len(x), 16):
        lanes.store(lanes.load(x, at), out, at)  # type: ignore[call-arg]


@numba.njit
def _folded(x, count, other):
    found = lanes.first(count, lanes.load(x, 0), lanes.fill(other))  # type: ignore[call-arg]
    return lanes.total(found), lanes.largest(found)


def test_powers_of_two_are_as_exact_as_stated():
    x = np.concatenate([np.linspace(-126, 0, 1 << 20), -np.logspace(-30, 2, 1 << 12), [0] * 16]).astype(np.float32)
    found, exact = np.empty_like(x), np.exp2(x.astype(np.float64))
    _powers(x, found)
    assert np.abs(found / exact - 1).max() < 2.5e-7
    _powers(np.full(16, -1e30, np.float32), found[:16])
    assert (found[:16] == np.float32(2.0**-126)).all()


def test_bf16_is_rounded_as_torch_does():
    """Every bf16 with the ties above it, and random bits; widened, each is itself again."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    upper = upper[~np.isnan(upper.view(np.float32))]
    low = np.random.default_rng(0).integers(0, 1 << 16, len(upper)).astype(np.uint32)
    for pattern in (upper, upper | 0x8000, upper | 0x7FFF, upper | 0x8001, upper | low):
        x = pattern.view(np.float32)
        x = x[~np.isnan(x)]
        x = np.ascontiguousarray(x[: len(x) // 16 * 16])
        found, back = np.empty(len(x), np.uint16), np.empty(len(x), np.float32)
        _copied(x, found)
        np.testing.assert_array_equal(found, bits(x))
        _copied(found, back)
        np.testing.assert_array_equal(back, from_bits(found))


@settings(deadline=None)
@given(numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=16, max_size=16), count=st.integers(-3, 20))
def test_lanes_are_folded_in_one_order(numbers, count):
    """Halves upon each other, so that the sum is the same wherever it is taken."""
    x = np.array(numbers, np.float32)
    found = _folded(x, count, np.float32(-5))
    kept = np.where(np.arange(16) < count, x, np.float32(-5))
    assert found[1] == kept.max()
    while len(kept) > 1:
        kept = kept[: len(kept) // 2] + kept[len(kept) // 2 :]
    assert found[0] == kept[0]


def _network(tmp_path, precision):
    import transformers

    from ecom_rag.models.checkpoints.weights import Weights
    from ecom_rag.models.networks.fused import FusedTransformer

    torch.manual_seed(1)
    shape = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = transformers.BertModel(transformers.BertConfig(**shape, intermediate_size=64))
    return FusedTransformer(model.config.to_dict(), Weights(model.state_dict(), tmp_path), precision)


def _hidden(network, lengths, **options):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = (7 * torch.arange(mask.numel()).view(mask.shape) % 50) * mask
    with torch.inference_mode():
        return network(ids, mask, **options).last_hidden_state.float()


def test_with_amx_torch_attends_to_long_texts_in_bf16(tmp_path, monkeypatch):
    from ecom_rag.models.networks import fused
    from ecom_rag.models.runtimes import cpu

    network, lengths = _network(tmp_path, "fp32"), [120, 97, 5]
    monkeypatch.setattr(cpu, "has_amx", lambda: False)
    expected = _hidden(network, lengths)
    monkeypatch.setattr(cpu, "has_amx", lambda: True)
    torch.testing.assert_close(_hidden(network, lengths), expected, rtol=0, atol=0)  # float32 is no matter of AMX
    monkeypatch.setattr(network, "_attends", lambda length: False)
    monkeypatch.setattr(fused, "attend", None)
    for text, n in enumerate(lengths):
        torch.testing.assert_close(_hidden(network, lengths)[text, :n], expected[text, :n], rtol=1e-4, atol=1e-5)
    bf16 = fused.FusedTransformer._attends
    network._dtype = torch.bfloat16
    assert [bf16(network, length) for length in (96, 97)] == [True, False]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_text_without_tokens_is_nan_and_alone_in_it(tmp_path, precision):
    network, lengths = _network(tmp_path, precision), [9, 0, 4]
    for first_only in (False, True):
        found, full = (_hidden(network, which, first_only=first_only) for which in (lengths, [9, 9, 4]))
        assert found[1, 0].isnan().all()
        torch.testing.assert_close(found[[0, 2], :1], full[[0, 2], :1], rtol=1e-5, atol=1e-5)
        assert found[[0, 2]].isfinite().all()
