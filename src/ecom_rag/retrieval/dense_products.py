"""Scores of blocks of rows, as bits for the kernels that look through them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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
_INT32 = 2**31 - 1
_INT16 = 2**15 - 1
LARGEST = 127  # of the whole numbers that rows are kept as


class Whole(NamedTuple):
    """Queries as whole numbers: their products with rows of eight bits are sums without rounding.

    Args:
        numbers: ``(q, dim)`` int16, no larger than what keeps every sum within int32.
        steps: ``(q,)`` float32: how much one of each query's numbers stands for.
    """

    numbers: NDArray[np.int16]
    steps: NDArray[np.float32]

    @classmethod
    def of(cls, queries: NDArray[np.float32]) -> "Whole":
        """The nearest whole numbers of float32 queries ``(q, dim)``."""
        most = min(_INT16, _INT32 // (LARGEST * max(queries.shape[1], 1)))
        largest = np.abs(queries).max(axis=1, initial=0)
        steps = np.maximum(largest / np.float32(most), np.float32(1e-30))
        with np.errstate(invalid="ignore"):  # of an overflow: such a query has no finite bound and gives up
            numbers = np.clip(np.rint(queries / steps[:, None]), -most, most).astype(np.int16)
        return cls(numbers, steps)

    def values(self) -> NDArray[np.float32]:
        """What the numbers stand for: ``(q, dim)`` float32."""
        return self.numbers * self.steps[:, None]


@dataclass(frozen=True, slots=True)
class Planes:
    """Rows as whole numbers, a byte of each number after the other: the high bytes alone are rougher, and half to read.

    Args:
        high: ``(n, dim)`` int8.
        low: ``(n, dim)`` int8: 256ths of the high ones' unit; ``None`` where they were not kept.
    """

    high: NDArray[np.int8]
    low: NDArray[np.int8] | None

    def __len__(self) -> int:
        return len(self.high)

    def __getitem__(self, part: slice) -> "Planes":
        return Planes(self.high[part], None if self.low is None else self.low[part])

    def widened(self, dtype: Any) -> Any:
        """``(n, dim)`` tensor of bf16 or float32: 256 times the numbers, to the eight bits that bf16 keeps."""
        import torch

        bits = np.empty(self.high.shape, np.int16)
        _widen(self.high, np.empty((0, 0), np.int8) if self.low is None else self.low, bits)
        return torch.from_numpy(bits).view(torch.bfloat16).to(dtype)


def blocks(queries: Any, rows: Any, *, final: bool) -> Iterator[tuple[int, NDArray[Any]]]:
    """Scores of all queries and a block of rows after the other.

    Args:
        queries: ``(q, dim)`` tensor; for planes also ``Whole``, which reads the high bytes alone.
        rows: ``(n, dim)`` float32 tensor, or planes.
        final: The scores that a search returns, rather than any float32 products.

    Yields:
        The number of the block's first row, and the bits of the scores: ``(q, block)`` int32, or int16 for bf16.
    """
    import torch

    whole = queries if isinstance(queries, Whole) else None
    count, n = len(queries if whole is None else whole.numbers), len(rows)
    size = n if count * n <= _SCORES else max(_ROWS, _SCORES // count)
    if whole is None and isinstance(rows, Planes):
        size = min(size, _ROWS)  # they are widened first, and should stay in the cache
    buffer = torch.empty(count * size, dtype=torch.float32 if whole else queries.dtype)
    for start in range(0, n, max(size, 1)):
        part = rows[start : start + size]
        out = buffer[: count * len(part)].view(count, len(part))
        if whole is not None:
            _whole_products(*whole, part.high, out.numpy())
        elif final:
            kernels.products(queries.numpy(), part.numpy(), out.numpy())
        else:
            torch.mm(queries, (part.widened(queries.dtype) if isinstance(part, Planes) else part).T, out=out)
        yield start, out.view(torch.int16 if out.dtype == torch.bfloat16 else torch.int32).numpy()


@intrinsic
def _as_bits(context, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The bits of a float32, as an int32."""
    return types.int32(types.float32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@numba.njit(cache=True, parallel=True)
def _widen(high, low, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """``256 high + low`` as bf16, by its bits; an empty ``low`` is zero."""
    for r in numba.prange(high.shape[0]):
        for i in range(high.shape[1]):
            number = np.int32(np.int32(high[r, i]) << np.int32(8))
            if low.shape[0]:
                number = np.int32(number + np.int32(low[r, i]))
            wide = _as_bits(np.float32(number))
            even = np.int32((wide >> 16) & 1)
            bits[r, i] = np.int16(np.int32(wide + np.int32(0x7FFF) + even) >> 16)


@numba.njit(cache=True)
def _whole_sum(numbers, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.int32(0)
    for i in range(numbers.shape[0]):
        total = np.int32(total + np.int32(numbers[i]) * np.int32(row[i]))
    return total


@numba.njit(cache=True, parallel=True)
def _whole_products(numbers, steps, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Inner products of queries in whole numbers and int8 rows."""
    n = rows.shape[0]
    for part in numba.prange((n + kernels.PART - 1) // kernels.PART):
        for r in range(part * kernels.PART, min(n, (part + 1) * kernels.PART)):
            for q in range(numbers.shape[0]):
                out[q, r] = np.float32(_whole_sum(numbers[q], rows[r])) * steps[q]
