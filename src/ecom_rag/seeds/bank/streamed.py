"""The indexes of a bank that is being filled: written while later rows come, as they will be saved.

Nothing is held that can wait on the disk: vectors go into their file at once, and postings are gathered in large parts
that are merged once, at the end (single-pass indexing, Heinz and Zobel 2003).
"""

import io
import os
import shutil
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files import disk
from ecom_rag.retrieval.dense import beside, check_finite
from ecom_rag.retrieval.growing import GrowingRows, LiveRows
from ecom_rag.retrieval.routes import ROUTES, TEXT_ROUTES
from ecom_rag.seeds.bank import saved
from ecom_rag.seeds.bank.derived import FOLDER, Plan, items_of, options_of, positions_of
from ecom_rag.seeds.bank.store import Store, read_meta

PART = 16_384  # rows taken at once


class VectorFile:
    """A file as ``np.save`` writes it, of rows that come one part after the other, and are read so again.

    Args:
        path: Of the file; one that is there is replaced.
        dimension: Of a row.

    Attributes:
        shape: Rows so far, and dimension.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.shape = (0, dimension)
        self._file = path.open("w+b")
        self._start = self._file.write(self._header())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        first, last, _ = part.indices(len(self))
        rows = np.empty((last - first, self.shape[1]), np.float32)
        self._file.seek(self._start + first * rows.strides[0])
        self._file.readinto(rows.data)
        return rows

    def extend(self, rows: NDArray[np.float32]) -> None:
        """Append rows."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self.shape = (len(self) + len(rows), self.shape[1])

    def close(self) -> None:
        """Complete the file."""
        with self._file:
            self._file.seek(0)
            self._file.write(self._header())

    def _header(self) -> bytes:
        """Of the same length for any number of rows: NumPy leaves room for it."""
        header = io.BytesIO()
        layout = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, layout)
        return header.getvalue()


class StreamedIndexes:
    """The indexes of a bank while it is filled, by one thread at a time.

    Args:
        store: The record.
        plan: What the indexes are.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self._folder = store.folder / FOLDER / "streamed.new"
        self._rows = GrowingRows((), np.int64)
        self._next_row = 0
        self._indexes: dict[str, Any] = {}
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def follow(self) -> None:
        """Take in the rows that have come, where there are many; the others are for a later call."""
        with disk.writing(self._folder), self._store.reading() as (db, state):
            while state.next_row - self._next_row >= PART:
                self._take(db, self._next_row + PART)

    def finish(self) -> None:
        """Take in what is left, and save the indexes as of now; nothing may be asked of them afterwards."""
        with disk.writing(self._folder), self._store.reading() as (db, state):
            while self._next_row < state.next_row:
                self._take(db, min(self._next_row + PART, state.next_row))
            removed = db.execute("SELECT row FROM documents WHERE removed IS NOT NULL").fetchall()
            self._save(positions_of(self._rows.rows, removed))
            for old in saved.newest(self._folder.parent, state.sequence):
                shutil.rmtree(old.folder)
            name = f"{state.sequence}-{state.next_row}"
            saved.complete(self._folder, self._folder.with_name(name), self._plan.header())

    def _take(self, db: Connection, last: int) -> None:
        """Take in the rows before ``last``; of those that were removed already none."""
        selected = f"FROM documents WHERE row >= {self._next_row} AND row < {last} AND removed IS NULL"
        rows = np.fromiter((row for (row,) in db.execute(f"SELECT row {selected} ORDER BY row")), np.int64)
        self._next_row = last
        if len(rows) == 0:
            return
        if not self._plan.sizes:  # known from the first document on
            self._plan.sizes.update(read_meta(db)["sizes"])
        for route in self._plan.routes:
            self._append(route, items_of(route, db, selected, int(rows[0]), len(rows), self._plan))
        self._rows.extend(rows)

    def _append(self, route: str, items: Any) -> None:
        known = self._indexes.get(route)
        if route == "dense":
            check_finite(items, "seed embeddings")
            if known is None:
                known = self._indexes[route] = VectorFile(
                    saved.path_of(self._folder, route, "vectors"), self._plan.sizes[route]
                )
            known.extend(items)
        elif route in TEXT_ROUTES:
            if known is None:
                known = self._indexes[route] = ROUTES[route].index(**options_of(route, self._plan))
            known.gather(items)
        elif known is None:
            self._indexes[route] = ROUTES[route].index(items, **options_of(route, self._plan))
        else:
            known.extend(items)

    def _save(self, gone: NDArray[np.int64]) -> None:
        """Write what is not in its file yet, and let go of it."""
        for route in sorted(self._indexes, key=lambda route: route == "dense"):  # its rough copy when postings are gone
            index = self._indexes.pop(route)
            if route == "dense":
                saved.write(self._folder, route, beside(index) | _live(gone, len(index)))
                index.close()
                continue
            if route in TEXT_ROUTES:
                index.settle()
            if len(gone):
                index.remove(gone)
            saved.write(self._folder, route, index.arrays())
        saved.write(self._folder, "bank", {"rows": self._rows.rows})


def _live(gone: NDArray[np.int64], rows: int) -> dict[str, NDArray[Any]]:
    live = LiveRows()
    if len(gone):
        live.remove(gone, rows)
    return live.arrays()
