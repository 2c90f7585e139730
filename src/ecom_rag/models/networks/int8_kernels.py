"""What stands between the int8 products of a transformer layer, each as one compiled pass over the rows.

A row of activations ``x`` is held as ``q (int8)`` and ``scale``: ``x ~ q * scale`` with ``scale = max|x| / 127``, found
anew for every token, so that an unusual one costs the others no precision. Sums of products are exact in int32.
A NaN or an infinity makes the row's scale NaN, and so everything that comes of the row: damage must show.
"""

import numba
import numpy as np

_compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
_STEPS = np.float32(127)
_SMALLEST = np.float32(1e-30)
_HALF = np.float32(0.5)
_ROOT_HALF = np.float32(0.70710678)
# Abramowitz and Stegun 7.1.28: erf(z) = 1 - (1 + c1 z + ... + c6 z^6)^-16 for z >= 0, to 3e-7.
_E1, _E2, _E3, _E4, _E5, _E6 = (
    np.float32(c) for c in (0.0705230784, 0.0422820123, 0.0092705272, 0.0001520143, 0.0002765672, 0.0000430638)
)


@_compiled
def _round_row(row, bits, q, scales, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """``q`` and the scale of one float32 row; ``bits`` is the row as int32."""
    top = np.int32(0)
    for j in range(len(row)):  # the order of floats without their sign is that of their bits, and NaN is above all
        top = max(top, bits[j] & np.int32(0x7FFFFFFF))
    scales.view(np.int32)[number] = top
    largest = scales[number]
    steps = _STEPS / max(largest, _SMALLEST)
    scales[number] = largest / _STEPS + (largest - largest)  # inf - inf is NaN
    for j in range(len(row)):
        q[j] = np.int8(np.int32(row[j] * steps + np.float32(127.5)) - np.int32(127))


@_compiled
def quantize(x, q, scales):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Rows ``x (rows, dim)`` float32 to ``q (rows, dim)`` and ``scales (rows,)``."""
    for i in range(len(x)):
        _round_row(x[i], x[i].view(np.int32), q[i], scales, i)


@_compiled
def widen(product, scales, columns, bias, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``out = product * scales * columns + bias``: the layer's result ``(rows, width)`` in float32."""
    rows, width = product.shape
    for i in range(rows):
        scale = scales[i]
        for j in range(width):
            out[i, j] = np.float32(product[i, j]) * (scale * columns[j]) + bias[j]


@_compiled
def gelu_quantize(product, scales, columns, bias, q, q_scales):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact GELU (with erf) of what ``widen`` would give, as ``quantize`` would give it."""
    rows, width = product.shape
    x = np.empty(width, np.float32)
    bits = x.view(np.int32)
    for i in range(rows):
        scale = scales[i]
        for j in range(width):
            v = np.float32(product[i, j]) * (scale * columns[j]) + bias[j]
            z = min(abs(v) * _ROOT_HALF, np.float32(4))  # erf(4) is 1 in float32; higher powers would overflow
            p = np.float32(1) + z * (_E1 + z * (_E2 + z * (_E3 + z * (_E4 + z * (_E5 + z * _E6)))))
            p = p * p
            p = p * p
            p = p * p
            p = p * p
            x[j] = _HALF * (v + abs(v) * (np.float32(1) - np.float32(1) / p))
        _round_row(x, bits, q[i], q_scales, i)


@_compiled
def add_norm(product, scales, columns, bias, residual, gain, shift, eps, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) of what ``widen`` would give plus ``residual (rows, dim)``."""
    rows, width = product.shape
    x = np.empty(width, np.float32)
    for i in range(rows):
        scale = scales[i]
        total = np.float32(0)
        for j in range(width):
            x[j] = np.float32(product[i, j]) * (scale * columns[j]) + bias[j] + residual[i, j]
        for j in range(width):
            total += x[j]
        mean = total / np.float32(width)
        spread = np.float32(0)
        for j in range(width):
            spread += (x[j] - mean) * (x[j] - mean)
        inverse = np.float32(1) / np.sqrt(spread / np.float32(width) + eps)
        for j in range(width):
            out[i, j] = (x[j] - mean) * inverse * gain[j] + shift[j]
