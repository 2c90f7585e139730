"""The indexes of an open bank while it changes: loaded once, brought up to date by whoever needs them next.

Nobody waits for a change but who asks for it. Later indexes are made beside the present ones, with which they share
all that is large, and then take their place; whoever searches goes on with those that it has.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import Connection

from ecom_rag.files.keys import Path
from ecom_rag.seeds.bank import derived, saved
from ecom_rag.seeds.bank.derived import FOLDER, Derived, Pause, Plan
from ecom_rag.seeds.bank.masks import Masks
from ecom_rag.seeds.bank.store import State, Store, read_meta
from ecom_rag.seeds.bank.view import View

# A compaction is followed in the background without loading the indexes anew, which would take long, while no larger
# share of their rows is removed.
_MOST_REMOVED = 0.5


@dataclass(frozen=True, slots=True)
class _Now:
    """The latest indexes, and the filters that are known over their rows."""

    derived: Derived
    masks: Masks

    @property
    def sequence(self) -> int:
        return self.derived.sequence


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
        self._now: _Now | None = None
        self._saved_next_row = 0
        self._changing = threading.Lock()  # whoever makes later indexes
        self._guard = threading.Lock()
        self._hurried = 0  # threads that wait for them, in which case there are no pauses
        self._local = threading.local()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A view of the last committed state; within one of the same thread, that one."""
        held: View | None = getattr(self._local, "held", None)
        if held is not None:
            yield held
            return
        pinned = self.pin()
        try:
            with self.using(pinned):
                yield pinned
        finally:
            pinned.end()

    @contextlib.contextmanager
    def using(self, pinned: View) -> Iterator[None]:
        """Give a pinned view to whoever asks for one in this thread."""
        before = getattr(self._local, "held", None)
        self._local.held = pinned
        try:
            with self._store.errors():
                yield
        finally:
            self._local.held = before

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[Connection, State]]:
        """The read transaction of the view that this thread holds, else a new one."""
        held: View | None = getattr(self._local, "held", None)
        if held is None:
            with self._store.reading() as found:
                yield found
        else:
            self._store.check_open()
            yield held.transaction

    def pin(self, *, pause: Pause | None = None) -> View:
        """A view of the last committed state that stays until it is ended, by any thread."""
        while True:  # until others have not moved the indexes past our transaction
            with contextlib.ExitStack() as stack:
                db, state = stack.enter_context(self._store.reading())
                now = self._now
                if now is None or now.sequence < state.sequence:
                    now = self._catch_up(db, state, pause)
                if now.sequence == state.sequence:
                    return View(
                        db,
                        state,
                        now.derived,
                        plan=self._plan,
                        masks=now.masks,
                        indexed=self._indexed,
                        name=str(self._store.folder),
                        store=self._store,
                        release=stack.pop_all().close,
                    )

    def save(self, *, pause: Pause | None = None) -> None:
        """Write the indexes as of now beside the record."""
        view = self.pin(pause=pause)
        try:
            with self._changing:
                arrays = derived.arrays_of(view.derived)
            written = derived.save(view.derived, arrays, self._plan, self._store.folder)
            if written is not None:
                self._saved_next_row = written.next_row
        finally:
            view.end()

    def rows_unsaved(self, state: State) -> int:
        """Rows that whoever opens the bank has to add to the saved indexes, as far as is known."""
        if state.next_row > self._saved_next_row:
            found = saved.newest(self._store.folder / FOLDER, state.sequence)
            self._saved_next_row = found[0].next_row if found else 0
        return state.next_row - self._saved_next_row

    def _catch_up(self, db: Connection, state: State, pause: Pause | None) -> _Now:
        """Indexes of a state, or of a later one where others have made them meanwhile."""
        if pause is not None:
            return self._made(db, state, lambda: None if self._hurried else pause())
        with self._guard:
            self._hurried += 1
        try:
            return self._made(db, state, None)
        finally:
            with self._guard:
                self._hurried -= 1

    def _made(self, db: Connection, state: State, pause: Pause | None) -> _Now:
        with self._changing:
            now = self._now
            if now is not None and now.sequence >= state.sequence:
                return now
            if not self._plan.sizes:  # known from the first document on
                self._plan.sizes.update(read_meta(db)["sizes"])
            if now is not None and now.derived.purged == state.purged:
                now = _Now(derived.replayed(now.derived, db, state, self._plan, pause=pause), now.masks)
            elif now is not None and pause is not None and derived.removed_share(now.derived, state) <= _MOST_REMOVED:
                now = _Now(derived.replayed(now.derived, db, state, self._plan, pause=pause), Masks())
            else:
                if pause is None:  # the memory is free before the new ones are loaded; else searches go on meanwhile
                    self._now = now = None
                now = _Now(derived.load(db, state, self._plan, self._store.folder, pause=pause), Masks())
            self._now = now
            return now
