"""The questions to a bank that are about its documents, not about what is like them: how many, which, those of ids."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ecom_rag.arguments import whole
from ecom_rag.errors import BankError
from ecom_rag.files.keys import Path
from ecom_rag.files.records import Record
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank import table
from ecom_rag.seeds.bank.derived import Plan, stored_queries
from ecom_rag.seeds.bank.documents import ids_of
from ecom_rag.seeds.bank.filtered import filtered
from ecom_rag.seeds.bank.live import LiveIndexes
from ecom_rag.seeds.bank.store import Store, read_meta
from ecom_rag.values import copied

logger = logging.getLogger(__name__)


class SeedPage(NamedTuple):
    """Some documents of a bank.

    Args:
        records: New ones.
        after: Where the next page begins; ``None`` at the end.
    """

    records: list[Record]
    after: int | None


class Replay(NamedTuple):
    """Some documents of a bank with all that it keeps of them, to be written into another.

    Args:
        name: Of the bank.
        sequence: Of the state that they are of.
        records: New ones, in row order.
        embeddings: Of them, as the bank's routes need them.
        after: Where the next ones begin.
    """

    name: str
    sequence: int
    records: list[Record]
    embeddings: Embeddings
    after: int


def sequence(store: Store) -> int:
    """Number of the last change."""
    with store.reading() as (_, state):
        return state.sequence


def live(store: Store) -> int:
    """Documents of the bank."""
    with store.reading() as (_, state):
        return state.live


def shown(store: Store) -> str:
    """How many documents there are, in words; never an error."""
    try:
        return "closed" if store.closed else f"{live(store)} documents"
    except BankError:
        return "cannot be read"


def note(store: Store) -> Any:
    """What the last change with a note has kept; ``None`` where none has."""
    with store.reading() as (db, _):
        return read_meta(db).get("note")


def count(store: Store, filter: Any, indexed: frozenset[Path]) -> int:
    """Documents that a filter matches; its notes are logged."""
    with store.reading() as (db, state):
        found = filtered(db, state, filter, indexed)
    _warn(store, found.notes)
    return found.count


def notes(indexes: LiveIndexes, filter: Any, indexed: frozenset[Path]) -> list[str]:
    """What a user should know of a filter, in the state that the thread's view has, else in the last one."""
    with indexes.reading() as (db, state):
        return filtered(db, state, filter, indexed).notes


def documents(store: Store, filter: Any, indexed: frozenset[Path]) -> Iterator[Record]:
    """The documents that a filter matches, as of one change; its notes are logged when the first is asked for."""
    with store.reading() as (db, state):
        found = filtered(db, state, filter, indexed)
        _warn(store, found.notes)
        for record in table.documents(db, found.where, found.parameters):
            store.check_open()
            yield record


def page(store: Store, filter: Any, indexed: frozenset[Path], *, after: int, limit: int) -> SeedPage:
    """Some of the documents that a filter matches.

    Args:
        store: The system of record.
        filter: An expression or its dict form; ``None`` matches all documents.
        indexed: Paths of the metadata that SQLite has an index for.
        after: Where the page before ended; 0 for the first.
        limit: Documents per page.

    Raises:
        UsageError: Not a filter, or a number out of range.
    """
    after, limit = whole(after, "after", least=0), whole(limit, "limit")
    with store.reading() as (db, state):
        found = filtered(db, state, filter, indexed)
        rows = table.page(db, found.where, found.parameters, after=after - 1, limit=limit + 1)
    more = len(rows) > limit
    return SeedPage([record for _, record in rows[:limit]], rows[limit - 1][0] + 1 if more else None)


def replay(store: Store, plan: Plan, *, after: int, limit: int) -> Replay:
    """Some documents with their embeddings.

    Args:
        store: The system of record.
        plan: Of the bank.
        after: Where those before ended; 0 for the first.
        limit: Documents at most.
    """
    with store.reading() as (db, state):
        plan = replace(plan, sizes=read_meta(db)["sizes"])
        rows = table.page(db, "TRUE", [], after=after - 1, limit=limit)
        found = stored_queries(db, np.array([row for row, _ in rows], np.int64), plan)
    records = [record for _, record in rows]
    return Replay(plan.bank, state.sequence, records, found.embeddings, rows[-1][0] + 1 if rows else after)


def get(store: Store, ids: Iterable[Any]) -> list[Record | None]:
    """One document per id, in their order; ``None`` where there is none."""
    wanted = ids_of(ids)
    with store.reading() as (db, _):
        found = table.documents_of(db, wanted)
    return [copied(found.get(id_)) for id_ in wanted]


def _warn(store: Store, notes: Iterable[str]) -> None:
    for line in notes:
        logger.warning("%s: %s", store.folder, line)
