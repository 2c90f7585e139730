"""The indexes of an open bank while it changes: loaded once, brought up to date by whoever needs them next."""

import contextlib
import threading
from collections.abc import Iterator
from sqlite3 import Connection
from typing import Any

from ecom_rag.files.keys import Path
from ecom_rag.seeds.bank import derived, saved
from ecom_rag.seeds.bank.derived import FOLDER, Derived, Plan
from ecom_rag.seeds.bank.gate import Gate
from ecom_rag.seeds.bank.store import State, Store, read_meta
from ecom_rag.seeds.bank.view import Masks, View


class LiveIndexes:
    """The indexes of one handle.

    Args:
        store: The record.
        plan: What the indexes are.
        indexed: Paths of the metadata that SQLite has an index for.
    """

    def __init__(self, store: Store, plan: Plan, indexed: frozenset[Path]) -> None:
        self._store = store
        self._plan = plan
        self._indexed = indexed
        self._derived: Derived | None = None
        self._saved_next_row = 0
        self._masks = Masks()
        self._gate = Gate()
        self._local = threading.local()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A view of the last committed state; within one of the same thread, that one."""
        held: list[Any] | None = getattr(self._local, "held", None)
        if held is not None:  # within a view of the same thread: the same state
            held[1] += 1
            try:
                yield held[0]
            finally:
                held[1] -= 1
            return
        with contextlib.ExitStack() as stack:
            found = None
            while found is None:  # None: others have moved the indexes past our transaction
                found = self._enter(stack)
            held = self._local.held = [found, 1]
            try:
                yield found
            finally:
                found.end()
                self._local.held = None

    def save(self) -> None:
        """Write the indexes as of now beside the record."""
        with self.view():
            assert self._derived is not None
            written = derived.save(self._derived, self._plan, self._store.folder)
            if written is not None:
                self._saved_next_row = written.next_row

    def rows_unsaved(self, state: State) -> int:
        """Rows that whoever opens the bank has to add to the saved indexes, as far as is known."""
        if state.next_row > self._saved_next_row:
            found = saved.newest(self._store.folder / FOLDER, state.sequence)
            self._saved_next_row = found[0].next_row if found else 0
        return state.next_row - self._saved_next_row

    def _enter(self, stack: contextlib.ExitStack) -> View | None:
        """Become a reader of the indexes at the state of a new read transaction."""
        with contextlib.ExitStack() as mine:
            db, state = mine.enter_context(self._store.reading())
            self._gate.enter()
            mine.callback(self._gate.leave)
            if not self._is_at(state):
                self._gate.leave()
                self._gate.close()
                try:
                    self._catch_up(db, state)
                except BaseException:
                    self._derived = None  # half changed
                    raise
                finally:
                    self._gate.reopen_as_reader()
            if not self._is_at(state):
                return None
            stack.push(mine.pop_all())
        assert self._derived is not None
        return View(
            db,
            state,
            self._derived,
            plan=self._plan,
            masks=self._masks,
            indexed=self._indexed,
            name=str(self._store.folder),
            store=self._store,
        )

    def _is_at(self, state: State) -> bool:
        at = self._derived
        return at is not None and at.sequence == state.sequence

    def _catch_up(self, db: Connection, state: State) -> None:
        if not self._plan.sizes:  # known from the first document on
            self._plan.sizes.update(read_meta(db)["sizes"])
        at = self._derived
        if at is not None and at.sequence > state.sequence:
            return
        if at is not None and at.purged == state.purged:
            derived.replay(at, db, state, self._plan)
        else:
            self._derived = None  # so that the memory is free before the new ones are loaded
            self._masks = Masks()
            self._derived = derived.load(db, state, self._plan, self._store.folder)
