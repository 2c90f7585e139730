"""The rows of indexes whose metadata a filter matches."""

import threading
from sqlite3 import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.keys import Path
from ecom_rag.filters.sql import conditions
from ecom_rag.filters.tree import Filter
from ecom_rag.seeds.bank.derived import Derived, positions_mask

_MASKS = 64  # filters remembered


class Matching(Protocol):
    """What says which rows a filter matches."""

    def of(self, tree: Filter, db: Connection, derived: Derived, indexed: frozenset[Path]) -> Any:
        """The rows, in the form that the indexes take as ``allowed``."""


class Masks:
    """The rows that recent filters match. Documents never change, so only later rows are ever looked at again.

    Args:
        whole: The indexes are of all documents.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._known: dict[str, NDArray[np.bool_]] = {}  # by the filter's repr, in which 1 is not True
        self._turn = threading.Lock()

    def of(self, tree: Filter, db: Connection, derived: Derived, indexed: frozenset[Path]) -> NDArray[np.bool_]:
        """A mask over the rows of the indexes."""
        name = repr(tree)
        with self._turn:
            known = self._known.get(name, np.empty(0, bool))
        rows = derived.rows.rows
        if len(known) < len(rows):
            where, parameters = conditions(tree, indexed=indexed)
            if len(known) or not self._whole:  # else the bound would keep SQLite from an index on a key
                bounds = int(rows[len(known)]), int(rows[-1])
                where, parameters = f"({where}) AND row BETWEEN ? AND ?", [*parameters, *bounds]
            matched = db.execute(f"SELECT row FROM documents WHERE {where}", parameters).fetchall()
            known = np.concatenate([known, positions_mask(derived, len(known), matched)])
        with self._turn:
            self._known.pop(name, None)
            self._known[name] = known  # the last used stands last
            if len(self._known) > _MASKS:
                del self._known[next(iter(self._known))]
        return known[: len(rows)]  # a later state knows more rows
