"""Attention (Vaswani et al. 2017, eq. 1) of short sequences: one compiled loop, in float32 over bf16 bits."""

import numba
import numpy as np

# exp2 on [0, 1): a minimax polynomial, far below the rounding of bf16.
_C1, _C2, _C3, _C4, _C5 = (np.float32(c) for c in (0.69314718, 0.24022651, 0.05550411, 0.00961813, 0.00133336))


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
def attend(qkv, lengths, heads, scale, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill ``out (batch, asked, dim)`` for the first ``asked`` positions of ``qkv (batch, length, 3 dim)``, bf16 bits.

    ``lengths (batch,)`` are the real tokens a row; ``scale`` is log2(e) / sqrt(head dimension).
    """
    batch, length, _ = qkv.shape
    asked, dim = out.shape[1], out.shape[2]
    size = dim // heads
    q_bits = np.empty(size, np.uint32)  # a float32 is its bf16 bits followed by 16 zeros
    k_bits = np.empty((length, size), np.uint32)
    v_bits = np.empty((length, size), np.uint32)
    q, k, v = q_bits.view(np.float32), k_bits.view(np.float32), v_bits.view(np.float32)
    weights = np.empty(length, np.float32)
    powers = np.empty(length, np.int32)
    scales = powers.view(np.float32)
    total = np.empty(size, np.float32)
    bits = total.view(np.uint32)
    for b in range(batch):
        n = lengths[b]
        for head in range(heads):
            at = head * size
            for j in range(n):
                for d in range(size):
                    v_bits[j, d] = np.uint32(qkv[b, j, 2 * dim + at + d]) << 16
                for d in range(size):
                    k_bits[j, d] = np.uint32(qkv[b, j, dim + at + d]) << 16
            for i in range(asked):
                for d in range(size):
                    q_bits[d] = np.uint32(qkv[b, i, at + d]) << 16
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
                    whole = np.floor(x)
                    f = x - whole
                    powers[j] = (np.int32(whole) + 127) << 23
                    weights[j] = 1 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
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
                for d in range(size):  # to the nearest bf16, ties to even
                    out[b, i, at + d] = (bits[d] + np.uint32(0x7FFF) + ((bits[d] >> 16) & 1)) >> 16
