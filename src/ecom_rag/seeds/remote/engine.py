"""What a kind of server must be able to do to hold a bank: bring candidates and records of one state, and write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.files.records import Record
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.documents import Row
from ecom_rag.seeds.bank.filtered import Filtered
from ecom_rag.seeds.remote.bounds import Asked, Where
from ecom_rag.seeds.remote.state import State
from ecom_rag.seeds.remote.terms import Side

Sides = Mapping[str, Side]
"""Routes over texts that a change keeps up to date."""


class Rows(Protocol):
    """One state of a bank.

    Attributes:
        state: Where the bank stands in it.
    """

    state: State

    def meta(self) -> dict[str, Any]:
        """All that is noted about the bank."""

    def candidates(
        self, route: str, asked: Sequence[Asked], k: int, where: Where | None
    ) -> Sequence[NDArray[np.int64]]:
        """For each query the rows that can be among its k best, in any order.

        Args:
            route: Whose values are asked for.
            asked: The queries.
            k: How many are asked for.
            where: Rows that may be returned; by default all.
        """

    def known(self, route: str, names: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of terms, -1 for one that there is not, and in how many documents each is.

        Args:
            route: Over texts.
            names: Each once.
        """

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of rows that are there, ascending."""

    def dense(self, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
        """Dense vectors of rows that are there, ascending."""

    def sparse(self, rows: NDArray[np.int64], vocabulary: int) -> csr_matrix:
        """Learned term weights of rows that are there, ascending."""

    def records(self, rows: Sequence[int]) -> dict[int, Record]:
        """The documents of rows; those that are not there are left out."""

    def metadata(self) -> Iterator[tuple[int, str, str]]:
        """Row, id and metadata as JSON of all documents, in row order."""

    def live_rows(self) -> NDArray[np.int64]:
        """The rows of all documents, ascending."""

    def rows_where(self, what: str, values: Iterable[str], *, nameless: bool = False) -> dict[str, list[int]]:
        """Rows of documents that have one of some values.

        Args:
            what: ``id`` or ``text``.
            values: Of these.
            nameless: Only documents without an id of their own.

        Returns:
            By the value, ascending; values that no document has are left out.
        """

    def filtered(self, filter: Any) -> Filtered:
        """Look at a filter, see ``bank.filtered``; ``None`` matches all documents.

        Raises:
            UsageError: Not a filter, or one that the server cannot answer exactly.
        """

    def where(self, filter: Any) -> Where:
        """The rows that a filter matches, as a condition.

        Raises:
            UsageError: As of ``filtered``.
        """

    def label_counts(self, key: str) -> dict[str, int]:
        """How many documents have each label, the most frequent first; an array or object counts as its JSON."""

    def documents(self, found: Filtered) -> Iterator[Record]:
        """The documents that a filter matches, in row order, read as they are asked for."""

    def page(self, after: int, limit: int) -> list[tuple[int, Record]]:
        """Row and document of the first documents from a row on."""

    def documents_of(self, ids: Iterable[str]) -> dict[str, Record]:
        """The documents of ids; those that do not exist are left out."""


class Writer(Rows, Protocol):
    """One state of a bank, and the change that is made of it when the block ends; its state is brought up to date."""

    def note(self, key: str, value: Any) -> None:
        """Note something about the bank, as JSON."""

    def append(self, rows: list[Row], vectors: Embeddings, sides: Sides, routes: Sequence[str]) -> int:
        """Append documents, each in place of one of the same id.

        Args:
            rows: Of distinct ids.
            vectors: Of the rows.
            sides: Routes over texts.
            routes: Of the bank.

        Returns:
            How many documents were replaced.

        Raises:
            EmbeddingError: A learned weight that the server cannot hold.
            RecordError: A document that the server cannot hold.
        """

    def remove(self, what: Filtered | Sequence[str], sides: Sides, routes: Sequence[str]) -> int:
        """Remove documents: those that a filter matches, or those of ids.

        Args:
            what: Which.
            sides: Routes over texts.
            routes: Of the bank.

        Returns:
            How many there were.
        """


class Engine(Protocol):
    """A bank's place in a server.

    Attributes:
        kind: Of the server, for people.
        address: Of the bank.
        unfinished: The bank is being built, and texts get their terms at the end.
        most_drift: From this change of the mean length on, new values of terms are worth their time.
    """

    kind: str
    address: Address
    unfinished: bool
    most_drift: float

    def reading(self) -> AbstractContextManager[Rows]:
        """One state, whatever is written meanwhile.

        Raises:
            BankError: The bank is closed, or the server is gone.
        """

    def writing(self) -> AbstractContextManager[Writer]:
        """A change, made when the block ends, and not at all if it raises.

        Raises:
            BankBusyError: Another writer has had the bank for longer than the timeout.
            BankFullError: The server's disk is full.
            BankError: The bank is closed, or the server is gone.
        """

    def index_anew(self, sides: Sides, made: dict[str, str]) -> None:
        """Make the terms of all texts anew; no result changes.

        Args:
            sides: Routes over texts.
            made: What the terms depend on.

        Raises:
            BankError: Another process keeps writing.
        """

    def tidy(self) -> None:
        """Give back the room of what is gone, where that is due."""

    def figures(self) -> dict[str, Any]:
        """What there is to say of the server: ``exactness``, ``engine``, and others of its kind."""

    def check_open(self) -> None:
        """Raise ``BankError`` once the bank is closed."""

    def close(self) -> None:
        """Close all connections; a second time does nothing."""
