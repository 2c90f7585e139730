"""The documents that a filter matches, and what a user should know of the filter."""

import sqlite3
from dataclasses import dataclass
from typing import Any

from ecom_rag.files.keys import Path
from ecom_rag.filters.parse import parse
from ecom_rag.filters.sql import conditions
from ecom_rag.filters.unmet import SAMPLE, filter_notes
from ecom_rag.seeds.bank import table
from ecom_rag.seeds.bank.store import State


@dataclass(frozen=True, slots=True)
class Filtered:
    """A filter over the documents of one state.

    Args:
        where: The SQL condition.
        parameters: Its values.
        count: How many live documents it holds for.
        notes: A line each for: no document meets the filter; no document has one of its keys.
    """

    where: str
    parameters: list[Any]
    count: int
    notes: list[str]


def filtered(db: sqlite3.Connection, state: State, filter: Any, indexed: frozenset[Path]) -> Filtered:
    """Look at a filter.

    Args:
        db: In a transaction.
        state: As of the transaction's begin.
        filter: An expression or its dict form; ``None`` matches all documents.
        indexed: Paths of the metadata that SQLite has an index for.

    Raises:
        UsageError: Not a filter.
    """
    if filter is None:
        return Filtered("TRUE", [], state.live, [])
    where, parameters = conditions(parse(filter), indexed=indexed)
    count = table.count_where(db, where, parameters)
    notes = filter_notes(
        filter,
        matched=count,
        seeds=state.live,
        kinds_at=lambda path: table.kinds_at(db, path),
        sample=lambda: table.some_metadata(db, SAMPLE),
    )
    return Filtered(where, parameters, count, notes)
