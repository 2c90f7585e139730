"""What all indexes need to change while they are searched: rows that grow, rows that are gone, and forks."""

import copy
import ctypes
import mmap
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Forked = TypeVar("Forked")


class GrowingRows:
    """Rows of a fixed trailing shape and dtype, with spare room behind them.

    A copy (``copy.copy``) shares the room; whichever of the two is extended first gets the spare part of it.

    Args:
        shape: Of one row.
        dtype: Of the values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self._room = np.empty((0, *shape), dtype)
        self._taken = [0]  # rows of the room that are in use, by this or by a copy
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """The rows so far: a view that later ``extend`` calls leave as it is."""
        return self._room[: self._count]

    def extend(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        count = self._count + len(rows)
        if count > len(self._room) or self._count < self._taken[0]:
            room = np.empty((max(256, 2 * self._count, count), *self._room.shape[1:]), self._room.dtype)
            room[: self._count] = self.rows
            self._room, self._taken = room, [0]
        self._room[self._count : count] = rows
        self._count = self._taken[0] = count


def combine(live: NDArray[np.bool_] | None, allowed: NDArray[np.bool_] | None, rows: int) -> NDArray[np.bool_] | None:
    """The rows that a search may return: not removed, and allowed by the caller's filter; ``None`` for all.

    Raises:
        ValueError: ``allowed`` has another length than there are rows.
    """
    if allowed is not None and len(allowed) != rows:
        raise ValueError(f"allowed has {len(allowed)} entries; expected one for each of the {rows} rows")
    if live is None:
        return allowed
    return live if allowed is None else live & allowed


class LiveRows:
    """Which rows have not been removed. A removal copies the mask, so that a search under way keeps what it saw."""

    def __init__(self, mask: NDArray[np.bool_] | None = None) -> None:
        self.mask = mask  # None: all rows

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What gave ``arrays``."""
        return cls(np.array(arrays["live"]) if "live" in arrays else None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What an index saves of it: nothing where all rows are live."""
        return {} if self.mask is None else {"live": self.mask}

    def count(self, rows: int) -> int:
        """Rows that are left."""
        return rows if self.mask is None else int(np.count_nonzero(self.mask))

    def extend(self, more: int) -> None:
        """``more`` new rows, all live."""
        if self.mask is not None:
            self.mask = np.concatenate([self.mask, np.ones(more, bool)])

    def remove(self, gone: NDArray[np.int64], rows: int) -> None:
        """Mark rows as removed for ever.

        Raises:
            IndexError: A row that there is not.
        """
        mask = np.ones(rows, bool) if self.mask is None else self.mask.copy()
        mask[gone] = False
        self.mask = mask


def forked(index: Forked) -> Forked:
    """An index over the same rows that can be changed while the other one is searched: all that is large is shared."""
    fork = copy.copy(index)
    for name, part in vars(index).items():
        if isinstance(part, GrowingRows | LiveRows):
            setattr(fork, name, copy.copy(part))
        elif isinstance(part, tuple) and all(isinstance(rows, GrowingRows) for rows in part):
            setattr(fork, name, tuple(map(copy.copy, part)))
    return fork


def rows_of(arrays: Mapping[str, NDArray[Any]], first: int, stop: int, *names: str) -> dict[str, NDArray[Any]]:
    """Of the arrays of an index that have a line a row, those named and there: the rows from ``first`` to ``stop``."""
    return {name: arrays[name][first:stop] for name in names if name in arrays}


def read_at_random(array: NDArray[Any]) -> None:
    """Tell the system that single rows of a memory-mapped array will be read, so that it reads nothing beside them."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None and hasattr(mmap, "MADV_RANDOM"):
        owner.madvise(mmap.MADV_RANDOM)


def tensor(array: NDArray[Any]) -> Any:
    """A tensor over the array's memory; read-only (memory-mapped) arrays too, which are only read here."""
    import torch

    if not array.flags.writeable and array.size:
        array = np.ascontiguousarray(array)
        memory: Any = (ctypes.c_byte * array.nbytes).from_address(array.ctypes.data)
        memory._owner = array
        array = np.frombuffer(memory, array.dtype).reshape(array.shape)
    return torch.from_numpy(array) if array.size else torch.from_numpy(np.empty(array.shape, array.dtype))
