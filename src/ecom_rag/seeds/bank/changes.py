"""Changes of a bank's documents, each in one transaction: acknowledged and on the disk, or not made at all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files.keys import Path
from ecom_rag.files.values import plain
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import And
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank import table
from ecom_rag.seeds.bank.checks import check_sizes
from ecom_rag.seeds.bank.documents import Row, ids_of
from ecom_rag.seeds.bank.filtered import filtered
from ecom_rag.seeds.bank.store import Store, write_meta

_FEW = 10  # documents that a filter may remove whatever their share


@dataclass(frozen=True, slots=True)
class Change:
    """What an acknowledged change did.

    Args:
        sequence: Number of the change; the bank's last one where nothing was changed.
        added: Documents written.
        removed: Documents that are gone, those that were replaced by an upsert included.
        notes: Things worth a user's eye, one line each.
    """

    sequence: int
    added: int = 0
    removed: int = 0
    notes: list[str] = field(default_factory=list)


def write(store: Store, rows: list[Row], vectors: Embeddings, *, outputs: Sequence[str], note: Any) -> Change:
    """Append rows that have their vectors, each in place of a live document of the same id.

    Raises:
        EmbeddingError: Vectors of another dimension than the bank's.
    """
    with store.writing() as (db, state):
        check_sizes(db, vectors, outputs, store.folder)
        replaced = table.append(db, state, rows)
        if note is not None:
            write_meta(db, "note", note)
    return Change(state.sequence + 1, len(rows), replaced)


def remove_ids(store: Store, ids: Iterable[Any]) -> Change:
    """Remove the documents of ids.

    Raises:
        UsageError: Something that cannot be an id.
    """
    wanted = ids_of(ids)
    with store.writing() as (db, state):
        removed = table.remove_ids(db, state, wanted)
    return Change(state.sequence + bool(removed), removed=removed)


def remove_matching(store: Store, filter: Any, *, allow_most: bool, indexed: frozenset[Path]) -> Change:
    """Remove the documents that a filter matches.

    Raises:
        UsageError: Not a filter, an empty one, or one that matches more than half where that is not allowed.
    """
    if parse(filter) == And(()):
        raise UsageError("the filter is empty, so it matches every document; give a condition")
    with store.writing() as (db, state):
        found = filtered(db, state, filter, indexed)
        if not allow_most and found.count > max(_FEW, state.live / 2):
            matched = f"{store.folder}: the filter matches {found.count} of {state.live} documents"
            remedy = "to remove them all the same, pass `allow_most`"
            raise UsageError("; ".join([matched, *found.notes, remedy]))
        removed = table.remove_where(db, state, found.where, found.parameters)
    return Change(state.sequence + bool(removed), removed=removed, notes=found.notes)


def note_of(value: Any) -> Any:
    """A note as JSON.

    Raises:
        UsageError: JSON cannot hold it.
    """
    try:
        return plain(value, "note")
    except ValueError as error:
        raise UsageError(str(error)) from None
