"""Connections to a bank's schema, and its transactions: many readers, each of one state, and one writer at a time."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from ecom_rag.errors import BankBusyError, BankError, BankFullError, UsageError
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.postgres import schema
from ecom_rag.seeds.remote.state import State, Statistics

_STATE = "SELECT sequence, next_row, live, statistics FROM state"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BUSY = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_FULL = "53100"
_LOST = ("08", "57")  # classes of states: the connection failed, the server is going down


class Store:
    """An open schema. Readers each get a connection of their own, writers take turns.

    Args:
        address: Of the bank.
        timeout: Seconds to wait for another writer.

    Raises:
        UsageError: psycopg is not installed.
        BankError: The server cannot be reached, has no pgvector, or no such bank.
    """

    def __init__(self, address: Address, *, timeout: float = 10.0) -> None:
        self.address = address
        self._timeout = timeout
        self._idle: list[Any] = []
        self._guard = threading.Lock()
        self._closed = False
        with self.errors():
            db = connect(address)
            try:
                schema.check(db, address)
                schema.use(db, address.name)
            except BaseException:
                db.close()
                raise
            self._idle.append(db)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[Any, State]]:
        """A read transaction: one committed state, whatever is written meanwhile."""
        with self.errors(), self._connection() as db:
            db.execute(_READ)
            try:
                yield db, _state(db)
            finally:
                _end(db, "ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Any, State]]:
        """A write transaction; what the block leaves in the state is written with it, undone if it raises.

        The commit returns when the server has it on its disk, unless the server was told not to keep its promises
        (``fsync = off``).

        Raises:
            BankBusyError: Another writer has had the bank for longer than the timeout.
            BankFullError: The server's disk is full.
            BankError: The bank is closed, or the server is gone.
        """
        with self.errors(changing=True), self._connection() as db:
            db.execute("BEGIN")
            try:
                db.execute(f"SET LOCAL lock_timeout = {int(self._timeout * 1000) or 1}")
                db.execute("SET LOCAL synchronous_commit = on")
                state = _state(db, " FOR UPDATE")
                yield db, state
                db.execute(
                    "UPDATE state SET sequence = %s, next_row = %s, live = %s, statistics = %s",
                    (state.sequence, state.next_row, state.live, state.statistics.to_json()),
                )
                db.execute("COMMIT")
            except BaseException:
                _end(db, "ROLLBACK")
                raise

    @contextlib.contextmanager
    def alone(self) -> Iterator[Any]:
        """A connection without a transaction, for what cannot be done within one."""
        with self.errors(), self._connection() as db:
            yield db

    def close(self) -> None:
        """Close all connections; one that is in use is closed by its user. A second time does nothing."""
        with self._guard:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise ``BankError`` once the bank is closed."""
        if self._closed:
            raise BankError(f"{self.address}: the bank is closed; open it again")

    def errors(self, *, changing: bool = False) -> contextlib.AbstractContextManager[None]:
        """Make a ``BankError`` of what psycopg raises within a ``with`` block."""
        return errors(self.address, self._timeout, changing=changing)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        with self._guard:
            self.check_open()
            db = self._idle.pop() if self._idle else None
        if db is None or not _answers(db):  # the server may have been started anew meanwhile
            db = connect(self.address)
            schema.use(db, self.address.name)
        try:
            yield db
        finally:
            with self._guard:
                if self._closed or db.broken or db.closed:
                    db.close()
                else:
                    self._idle.append(db)


def connect(address: Address) -> Any:
    """A connection in autocommit mode.

    Raises:
        UsageError: psycopg is not installed.
        psycopg.Error: The server cannot be reached.
    """
    try:
        import psycopg
    except ImportError:
        raise UsageError(
            "a bank in PostgreSQL needs the package psycopg; install it with pip install 'ecom-rag[postgres]'"
        ) from None
    # Plans are made for each statement: a plan for any filter would use no index. Compiling one costs more than a scan.
    db = psycopg.connect(address.server, autocommit=True, prepare_threshold=None, application_name="ecom-rag")
    db.execute("SET jit = off")
    return db


@contextlib.contextmanager
def errors(address: Address, timeout: float = 10.0, *, changing: bool = False) -> Iterator[None]:
    """Make a ``BankError`` of what psycopg raises.

    Args:
        address: Of the bank.
        timeout: Seconds that were waited for another writer.
        changing: Whether a change may be lost or made without an answer.

    Raises:
        BankBusyError: Another writer kept the bank.
        BankFullError: The server's disk is full.
        BankError: Anything else that the server or the connection says.
    """
    try:
        yield
    except Exception as error:
        if not _of_psycopg(error):
            raise
        reason = " ".join(str(error).split())[:300]
        state = getattr(error, "sqlstate", None)
        if state in _BUSY:
            raise BankBusyError(
                f"{address}: another process has been writing for {timeout:g} s; wait for it and try again"
            ) from None
        if state == _FULL:
            raise BankFullError(f"{address}: the server's disk is full; free some space, then try again") from None
        lost = changing and (state is None or state[:2] in _LOST)
        unknown = "; whether the change was made is not known: look at the sequence, or repeat it" if lost else ""
        raise BankError(f"{address}: the server says: {reason}{unknown}") from None


def _state(db: Any, lock: str = "") -> State:
    sequence, next_row, live, statistics = db.execute(f"{_STATE}{lock}").fetchone()
    return State(sequence, next_row, live, Statistics.of_json(statistics))


def _of_psycopg(error: Exception) -> bool:
    """Whether an error is psycopg's, which may not be installed."""
    return type(error).__module__.startswith("psycopg")


def _answers(db: Any) -> bool:
    try:
        db.execute("SELECT 1")
    except Exception as error:
        if not _of_psycopg(error):
            raise
        db.close()
        return False
    return True


def _end(db: Any, statement: str) -> None:
    """End a transaction; where the connection is gone, the server has done so."""
    if not (db.broken or db.closed):
        db.execute(statement)
