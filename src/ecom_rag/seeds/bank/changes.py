"""Changes of a bank's documents, each in one transaction: acknowledged and on the disk, or not made at all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from sqlite3 import Connection
from typing import Any

from ecom_rag.errors import BankChangedError, UsageError
from ecom_rag.files.keys import Path
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import And
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank import requests, table
from ecom_rag.seeds.bank.checks import sizes_of
from ecom_rag.seeds.bank.documents import Row, ids_of
from ecom_rag.seeds.bank.filtered import Filtered, filtered
from ecom_rag.seeds.bank.requests import Request
from ecom_rag.seeds.bank.store import State, Store, read_meta, write_meta
from ecom_rag.values import plain

_FEW = 10  # documents that a filter may remove whatever their share


@dataclass(frozen=True, slots=True)
class Change:
    """What an acknowledged change did.

    Args:
        sequence: Number of the change; the bank's last one where nothing was changed.
        added: Documents written.
        removed: Documents that are gone, those that were replaced by an upsert included.
        notes: Things worth a user's eye, one line each.
        repeated: An earlier request with the same idempotency key made the change; now nothing was written.
    """

    sequence: int
    added: int = 0
    removed: int = 0
    notes: list[str] = field(default_factory=list)
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a change is made; they are looked at within its transaction, so nothing comes between.

    Args:
        expected_sequence: The last change that whoever asks for this one has seen; ``None`` for any.
        request: What tells this request from others; one that was answered before is answered so again.
    """

    expected_sequence: int | None = None
    request: Request | None = None

    def answered(self, store: Store) -> Change | None:
        """The answer that the request had before, so that its work is not done again."""
        if self.request is None:
            return None
        with store.reading() as (db, _):
            return _before(db, self.request, store)


def write(
    store: Store,
    rows: list[Row],
    vectors: Embeddings,
    *,
    outputs: Sequence[str],
    note: Any,
    notes: list[str],
    terms: Terms,
) -> Change:
    """Append rows that have their vectors, each in place of a live document of the same id.

    Raises:
        EmbeddingError: Vectors of another dimension than the bank's.
        BankChangedError: The bank is at another sequence than expected.
        RepeatedKeyError: Another request has used the key.
    """

    def append(db: Connection, state: State) -> Change:
        if not rows:
            return Change(state.sequence, notes=notes)
        known = read_meta(db)["sizes"]
        if (sizes := sizes_of(known, vectors, outputs, store.folder)) != known:
            write_meta(db, "sizes", sizes)
        replaced = table.append(db, state, rows)
        if note is not None:
            write_meta(db, "note", note)
        return Change(state.sequence + 1, len(rows), replaced, notes)

    return _made(store, append, terms)


def remove(
    store: Store,
    ids: Iterable[Any] | None,
    filter: Any,
    *,
    allow_most: bool,
    indexed: frozenset[Path],
    terms: Terms,
) -> Change:
    """Remove the documents of ids, or those that a filter matches.

    Raises:
        UsageError: Neither or both are given; something that cannot be an id; not a filter, an empty one, or one that
            matches more than half where that is not allowed.
        BankChangedError: The bank is at another sequence than expected.
        RepeatedKeyError: Another request has used the key.
    """
    check_one(ids, filter)
    if ids is not None:
        return _remove_ids(store, ids, terms)
    return _remove_matching(store, filter, allow_most, indexed, terms)


def check_one(ids: Iterable[Any] | None, filter: Any) -> None:
    """Raise ``UsageError`` where neither or both are given."""
    if (ids is None) == (filter is None):
        raise UsageError("delete takes ids or a filter; give one of them")


def check_not_empty(filter: Any) -> None:
    """Raise ``UsageError`` for a filter that matches every document, or for something that is no filter."""
    if parse(filter) == And(()):
        raise UsageError("the filter is empty, so it matches every document; give a condition")


def check_share(found: Filtered, live: int, bank: Any, *, allow_most: bool) -> None:
    """Raise ``UsageError`` where a filter would remove more than half of many documents, and that is not allowed.

    Args:
        found: What the filter matches.
        live: Documents.
        bank: Named in errors.
        allow_most: Whether it is.
    """
    if not allow_most and found.count > max(_FEW, live / 2):
        matched = f"{bank}: the filter matches {found.count} of {live} documents"
        raise UsageError("; ".join([matched, *found.notes, "to remove them all the same, pass `allow_most`"]))


def _remove_ids(store: Store, ids: Iterable[Any], terms: Terms) -> Change:
    wanted = ids_of(ids)

    def remove(db: Connection, state: State) -> Change:
        removed = table.remove_ids(db, state, wanted)
        return Change(state.sequence + bool(removed), removed=removed)

    return _made(store, remove, terms)


def _remove_matching(store: Store, filter: Any, allow_most: bool, indexed: frozenset[Path], terms: Terms) -> Change:
    check_not_empty(filter)

    def remove(db: Connection, state: State) -> Change:
        found = filtered(db, state, filter, indexed)
        check_share(found, state.live, store.folder, allow_most=allow_most)
        removed = table.remove_where(db, state, found.where, found.parameters)
        return Change(state.sequence + bool(removed), removed=removed, notes=found.notes)

    return _made(store, remove, terms)


def would_remove(store: Store, ids: Iterable[Any] | None, filter: Any, *, indexed: frozenset[Path]) -> Change:
    """What the removal of ids, or of what a filter matches, would do now.

    Raises:
        UsageError: Neither or both are given; something that cannot be an id, or not a filter.
    """
    check_one(ids, filter)
    wanted = None if ids is None else ids_of(ids)
    with store.reading() as (db, state):
        if wanted is not None:
            return Change(state.sequence, removed=len(table.documents_of(db, wanted)))
        found = filtered(db, state, filter, indexed)
    return Change(state.sequence, removed=found.count, notes=found.notes)


def _made(store: Store, make: Callable[[Connection, State], Change], terms: Terms) -> Change:
    """Make a change on its terms, and keep the answer with it, all in one transaction."""
    with store.writing() as (db, state):
        if terms.request is not None and (before := _before(db, terms.request, store)) is not None:
            return before
        if terms.expected_sequence not in (None, state.sequence):
            raise BankChangedError(
                f"{store.folder}: is at sequence {state.sequence}; the change expected {terms.expected_sequence}, so"
                " nothing was written; look at the bank again and repeat the change"
            )
        change = make(db, state)
        if terms.request is not None:
            requests.remember(db, terms.request, asdict(change))
    return change


def _before(db: Connection, request: Request, store: Store) -> Change | None:
    answer = requests.answer_of(db, request, store.folder)
    return None if answer is None else Change(**{**answer, "repeated": True})


def note_of(value: Any) -> Any:
    """A note as JSON.

    Raises:
        UsageError: JSON cannot hold it.
    """
    try:
        return plain(value, "note")
    except ValueError as error:
        raise UsageError(str(error)) from None
