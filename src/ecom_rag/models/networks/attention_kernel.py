"""Attention (Vaswani et al. 2017, eq. 1) of short sequences: one compiled loop over float32 or the bits of bf16."""

from typing import Any

import numba
import numpy as np
from numba.extending import overload

# The Taylor series of 2^f, ln(2)^n / n!: to 1.3e-7 for f in [-1/2, 1/2].
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c) for c in (0.69314718, 0.24022651, 0.05550411, 0.00961813, 0.00133336, 0.00015404)
)


def _move(source: Any, target: Any) -> None:
    """Copy a row of numbers; a side in uint16 is bf16 by its bits, rounded to the nearest and ties to even."""


@overload(_move)
def _move_as_typed(source: Any, target: Any) -> Any:
    def copy(source: Any, target: Any) -> None:
        for d in range(len(target)):
            target[d] = source[d]

    def widen(source: Any, target: Any) -> None:
        bits = target.view(np.uint32)  # a float32 is its bf16 bits followed by 16 zeros
        for d in range(len(target)):
            bits[d] = np.uint32(source[d]) << 16

    def narrow(source: Any, target: Any) -> None:
        bits = source.view(np.uint32)
        for d in range(len(target)):
            target[d] = (bits[d] + np.uint32(0x7FFF) + ((bits[d] >> 16) & 1)) >> 16

    if source.dtype == target.dtype:
        return copy
    return widen if source.dtype == numba.types.uint16 else narrow


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
def attend(qkv, lengths, heads, scale, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill ``out (batch, asked, dim)`` for the first ``asked`` positions of ``qkv (batch, length, 3 dim)``.

    Both are float32, or bf16 as bits in uint16. ``lengths (batch,)`` are the real tokens a row; ``scale`` is log2(e) /
    sqrt(head dimension).
    """
    batch, length, _ = qkv.shape
    asked, dim = out.shape[1], out.shape[2]
    size = dim // heads
    q = np.empty(size, np.float32)
    k = np.empty((length, size), np.float32)
    v = np.empty((length, size), np.float32)
    weights = np.empty(length, np.float32)
    powers = np.empty(length, np.int32)
    scales = powers.view(np.float32)
    total = np.empty(size, np.float32)
    for b in range(batch):
        n = lengths[b]
        for head in range(heads):
            at = head * size
            for j in range(n):
                _move(qkv[b, j, 2 * dim + at : 2 * dim + at + size], v[j])
                _move(qkv[b, j, dim + at : dim + at + size], k[j])
            for i in range(asked):
                _move(qkv[b, i, at : at + size], q)
                largest = np.float32(-np.inf)
                poison = np.float32(0)  # becomes NaN where a product is NaN or infinite: damage must show
                for j in range(n):
                    product = np.float32(0)
                    for d in range(size):
                        product += q[d] * k[j, d]
                    weights[j] = product * scale
                    poison += weights[j] * np.float32(0)
                    largest = max(largest, weights[j])
                denominator = poison
                for j in range(n):
                    x = max(weights[j] - largest, np.float32(-126))
                    whole = np.floor(x + np.float32(0.5))
                    f = x - whole
                    powers[j] = (np.int32(whole) + 127) << 23
                    weights[j] = 1 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
                for j in range(n):
                    weights[j] *= scales[j]
                    denominator += weights[j]
                total[:] = 0
                for j in range(n):
                    for d in range(size):
                        total[d] += weights[j] * v[j, d]
                inverse = 1 / denominator
                for d in range(size):
                    total[d] *= inverse
                _move(total, out[b, i, at : at + size])
