"""Rows of token ids to padded batches: sorted by length, cut by a budget of padded tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.models.embeddings import Ragged

Outputs = tuple[NDArray[np.float32], ...]  # what a network gives of a batch


@dataclass(frozen=True, slots=True)
class Prefixes:
    """First tokens that rows of a batch share; padded on the right.

    Args:
        input_ids: ``(prefixes, length)`` int64.
        attention_mask: ``(prefixes, length)`` int64, 1 for real tokens.
        of: ``(batch,)`` the prefix of each row.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    of: NDArray[np.int64]

    def part(self, part: slice) -> "Prefixes":
        """Those of some rows."""
        kept, of = np.unique(self.of[part], return_inverse=True)
        length = int(self.attention_mask[kept].sum(axis=1).max())
        return Prefixes(self.input_ids[kept, :length], self.attention_mask[kept, :length], of)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded on the right.

    Args:
        rows: ``(batch,)`` the rows of the input that are in here.
        input_ids: ``(batch, length)`` int64.
        attention_mask: ``(batch, length)`` int64, 1 for real tokens.
        token_type_ids: ``(batch, length)`` int64, or ``None`` for models without them.
        prefixes: What comes before the rows; ``None`` where the rows are whole.
    """

    rows: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None = None
    prefixes: Prefixes | None = None

    @property
    def inputs(self) -> tuple[NDArray[np.int64], ...]:
        """What a network takes, in the order of its arguments."""
        both = (self.input_ids, self.attention_mask)
        if self.prefixes is not None:
            return *both, self.prefixes.input_ids, self.prefixes.attention_mask, self.prefixes.of
        return both if self.token_type_ids is None else (*both, self.token_type_ids)

    def halves(self) -> tuple["Batch", "Batch"]:
        """The batch in two, for when it does not fit a device."""
        middle = len(self.rows) // 2
        return self._part(slice(None, middle)), self._part(slice(middle, None))

    def _part(self, part: slice) -> "Batch":
        length = int(self.attention_mask[part].sum(axis=1).max())
        types = None if self.token_type_ids is None else self.token_type_ids[part, :length]
        prefixes = None if self.prefixes is None else self.prefixes.part(part)
        return Batch(
            self.rows[part], self.input_ids[part, :length], self.attention_mask[part, :length], types, prefixes
        )


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
    ids: Ragged,
    rows: NDArray[np.int64],
    *,
    pad_id: int,
    second_starts: NDArray[np.int64] | None = None,
    left: bool = False,
) -> Batch:
    """Some rows as one batch, in the order given.

    Args:
        ids: Token ids with their special tokens.
        rows: ``(batch,)`` at least one row number.
        pad_id: Id to pad with.
        second_starts: As in ``batches``; none where padding is on the left.
        left: Whether padding comes before the tokens.
    """
    lengths = ids.lengths[rows]
    columns = np.arange(lengths.max())
    mask = (columns[::-1] if left else columns) < lengths[:, None]  # (batch, length)
    values = np.full(mask.shape, pad_id, np.int64)
    values[mask] = ids.take(rows).values
    types = None
    if second_starts is not None:
        types = ((columns >= second_starts[rows][:, None]) & mask).astype(np.int64)
    return Batch(rows, values, mask.astype(np.int64), types)


def prefixed_batches(
    ids: Ragged, *, pad_id: int, token_budget: int, second_starts: NDArray[np.int64] | None
) -> Iterator[Batch]:
    """As ``batches``, but rows that begin with the same tokens are neighbours, and these tokens are there once a batch.

    Args:
        ids: Token ids of whole rows.
        pad_id: Id to pad with.
        token_budget: Largest number of padded tokens, prefixes included; a single longer row is a batch of its own.
        second_starts: ``(rows,)`` how many first tokens of each row may be shared, at least one and not all.

    Yields:
        Batches that together hold each row once: the group with the longest row first, in it the longest row first.
    """
    assert second_starts is not None
    numbers: dict[bytes, int] = {}
    keys = (ids[row][:start].tobytes() for row, start in enumerate(second_starts.tolist()))
    group = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(ids))
    lengths = ids.lengths - second_starts
    longest = np.zeros(len(numbers), np.int64)
    np.maximum.at(longest, group, lengths)
    order = np.lexsort((-lengths, group, -longest[group]))
    start = 0
    while start < len(order):
        rows = order[start : start + _fitting(order[start:], group, second_starts, lengths, token_budget)]
        start += len(rows)
        yield _with_prefixes(ids, rows, group[rows], second_starts, pad_id)


def _fitting(
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    budget: int,
) -> int:
    """How many of the first rows make a batch within a budget."""
    rows = rows[: budget + 1]
    fresh = np.concatenate([[True], np.diff(group[rows]) != 0])
    prefixes = np.cumsum(fresh) * np.maximum.accumulate(starts[rows])
    padded_rows = np.arange(1, len(rows) + 1) * np.maximum.accumulate(lengths[rows])
    return max(1, int(np.searchsorted(prefixes + padded_rows, budget, side="right")))


def _with_prefixes(
    ids: Ragged, rows: NDArray[np.int64], group: NDArray[np.int64], starts: NDArray[np.int64], pad_id: int
) -> Batch:
    _, first, of = np.unique(group, return_index=True, return_inverse=True)
    heads = padded(Ragged.of([ids[row][: starts[row]] for row in rows[first]]), np.arange(len(first)), pad_id=pad_id)
    ends = padded(Ragged.of([ids[row][starts[row] :] for row in rows]), np.arange(len(rows)), pad_id=pad_id)
    prefixes = Prefixes(heads.input_ids, heads.attention_mask, of)
    return Batch(rows, ends.input_ids, ends.attention_mask, prefixes=prefixes)
