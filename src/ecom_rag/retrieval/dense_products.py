"""Scores of blocks of rows, as bits for the kernels that look through them."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ecom_rag.retrieval import dense_kernels as kernels

FEW = (
    8  # queries up to which reading the rows costs more than multiplying them; a product of matrices copies them first
)
_ROWS = 4096  # rows of seeds a block: with a tile of queries the rough scores stay in the cache
_SCORES = _ROWS * 1024


def blocks(queries: Any, rows: Any, *, final: bool) -> Iterator[tuple[int, NDArray[Any]]]:
    """Scores of all queries and a block of rows after the other.

    Args:
        queries: ``(q, dim)`` tensor, of float32 or of the type of the rows.
        rows: ``(n, dim)`` tensor, of float32 or bf16.
        final: The scores that a search returns, rather than any float32 products.

    Yields:
        The number of the block's first row, and the bits of the scores: ``(q, block)`` int32, or int16 for bf16.
    """
    import torch

    count, n = len(queries), len(rows)
    size = n if count * n <= _SCORES else max(_ROWS, _SCORES // count)
    buffer = torch.empty(count * size, dtype=queries.dtype)
    for start in range(0, n, max(size, 1)):
        part = rows[start : start + size]
        out = buffer[: count * len(part)].view(count, len(part))
        if final:
            kernels.products(queries.numpy(), part.numpy(), out.numpy())
        elif queries.dtype == part.dtype:
            torch.mm(queries, part.T, out=out)
        else:
            kernels.half_products(queries.numpy(), part.view(torch.int16).numpy(), out.numpy())
        yield start, out.view(torch.int16 if out.dtype == torch.bfloat16 else torch.int32).numpy()
