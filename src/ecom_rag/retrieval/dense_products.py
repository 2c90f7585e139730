"""Scores of blocks of rows, as bits for the kernels that look through them."""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ecom_rag.retrieval import dense_kernels as kernels

FEW = 8  # queries up to which reading the rows costs more than multiplying; a product of matrices copies them first
_ROWS = 4096  # rows of seeds a block: with a tile of queries the rough scores stay in the cache
_SCORES = _ROWS * 1024


def blocks(queries: Any, rows: Any, *, final: bool) -> Iterator[tuple[int, NDArray[Any]]]:
    """Scores of all queries and a block of rows after the other.

    Args:
        queries: ``(q, dim)`` tensor, of float32 or of the type of the rows.
        rows: ``(n, dim)`` tensor, of float32, bf16 or int8.
        final: The scores that a search returns, rather than any float32 products.

    Yields:
        The number of the block's first row, and the bits of the scores: ``(q, block)`` int32, or int16 for bf16.
    """
    import torch

    count, n = len(queries), len(rows)
    size = n if count * n <= _SCORES else max(_ROWS, _SCORES // count)
    if rows.dtype == torch.int8 and count > FEW:
        size = min(size, _ROWS)  # they are widened first, and should stay in the cache
    buffer = torch.empty(count * size, dtype=queries.dtype)
    for start in range(0, n, max(size, 1)):
        part = rows[start : start + size]
        out = buffer[: count * len(part)].view(count, len(part))
        if final:
            kernels.products(queries.numpy(), part.numpy(), out.numpy())
        elif queries.dtype == part.dtype:
            torch.mm(queries, part.T, out=out)
        elif part.dtype == torch.bfloat16:
            _half_products(queries.numpy(), part.view(torch.int16).numpy(), out.numpy())
        elif count <= FEW:
            _whole_products(queries.numpy(), part.numpy(), out.numpy())
        else:
            torch.mm(queries, part.to(queries.dtype).T, out=out)  # whole numbers up to 127 are bf16 as they are
        yield start, out.view(torch.int16 if out.dtype == torch.bfloat16 else torch.int32).numpy()


@intrinsic
def _as_float(context, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The float32 of an int32's bits."""
    return types.float32(types.int32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@numba.njit(cache=True, fastmath=True)
def _half_sum(query, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0)
    for i in range(query.shape[0]):
        total += query[i] * _as_float(np.int32(np.int32(bits[i]) << 16))
    return total


@numba.njit(cache=True, parallel=True)
def _half_products(queries, bits, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Inner products of float32 queries and bf16 rows, given as bits."""
    n = bits.shape[0]
    for part in numba.prange((n + kernels.PART - 1) // kernels.PART):
        for r in range(part * kernels.PART, min(n, (part + 1) * kernels.PART)):
            for q in range(queries.shape[0]):
                out[q, r] = _half_sum(queries[q], bits[r])


@numba.njit(cache=True, fastmath=True)
def _whole_sum(query, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0)
    for i in range(query.shape[0]):
        total += query[i] * np.float32(row[i])
    return total


@numba.njit(cache=True, parallel=True)
def _whole_products(queries, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Inner products of float32 queries and int8 rows."""
    n = rows.shape[0]
    for part in numba.prange((n + kernels.PART - 1) // kernels.PART):
        for r in range(part * kernels.PART, min(n, (part + 1) * kernels.PART)):
            for q in range(queries.shape[0]):
                out[q, r] = _whole_sum(queries[q], rows[r])
