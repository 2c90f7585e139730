"""Rows of token ids to padded batches: sorted by length, cut by a budget of padded tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.models.embeddings import Ragged

Outputs = tuple[NDArray[np.float32], ...]  # what a network gives of a batch


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded on the right.

    Args:
        rows: ``(batch,)`` the rows of the input that are in here.
        input_ids: ``(batch, length)`` int64.
        attention_mask: ``(batch, length)`` int64, 1 for real tokens.
        token_type_ids: ``(batch, length)`` int64, or ``None`` for models without them.
    """

    rows: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None = None

    @property
    def inputs(self) -> tuple[NDArray[np.int64], ...]:
        """What a network takes, in the order of its arguments."""
        both = (self.input_ids, self.attention_mask)
        return both if self.token_type_ids is None else (*both, self.token_type_ids)

    def halves(self) -> tuple["Batch", "Batch"]:
        """The batch in two, for when it does not fit a device."""
        middle = len(self.rows) // 2
        return self._part(slice(None, middle)), self._part(slice(middle, None))

    def _part(self, part: slice) -> "Batch":
        length = int(self.attention_mask[part].sum(axis=1).max())
        types = None if self.token_type_ids is None else self.token_type_ids[part, :length]
        return Batch(self.rows[part], self.input_ids[part, :length], self.attention_mask[part, :length], types)


def batches(
    ids: Ragged, *, pad_id: int, token_budget: int, second_starts: NDArray[np.int64] | None = None
) -> Iterator[Batch]:
    """Longest rows first (what cannot fit in memory fails at once), each batch within a budget of padded tokens.

    Args:
        ids: Token ids with their special tokens.
        pad_id: Id to pad with.
        token_budget: Largest ``batch x length``; a single longer row is a batch of its own.
        second_starts: ``(rows,)`` the position from which token types are 1; gives ``token_type_ids``.

    Yields:
        Batches that together hold each row once.
    """
    lengths = ids.lengths
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, token_budget // int(lengths[order[start]]))]
        start += len(rows)
        yield padded(ids, rows, pad_id=pad_id, second_starts=second_starts)


def padded(
    ids: Ragged, rows: NDArray[np.int64], *, pad_id: int, second_starts: NDArray[np.int64] | None = None
) -> Batch:
    """Some rows as one batch, in the order given.

    Args:
        ids: Token ids with their special tokens.
        rows: ``(batch,)`` at least one row number.
        pad_id: Id to pad with.
        second_starts: As in ``batches``.
    """
    lengths = ids.lengths[rows]
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]  # (batch, length)
    values = np.full(mask.shape, pad_id, np.int64)
    values[mask] = ids.take(rows).values
    types = None
    if second_starts is not None:
        types = ((columns >= second_starts[rows][:, None]) & mask).astype(np.int64)
    return Batch(rows, values, mask.astype(np.int64), types)
