"""What people said, as records that the commands take as they are.

``verdicts``  results with the person's label: for ``ecom-rag calibrate``, ``evaluate --labels``, ``decide --reviewed``
``training``  texts with the label and no other metadata: for ``ecom-rag train``
``decided``   decided records with the person's label, in the order of the verdicts: for ``ecom-rag monitor``

Texts that a verdict on another text of their flood has settled are in none of them: nobody has looked at them.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

from ecom_rag.files.keys import Path
from ecom_rag.files.records import Record
from ecom_rag.serving.journal.items import Decision, decision_where

KINDS = ("verdicts", "training", "decided")


def exported(db: sqlite3.Connection, kind: str, label_key: Path, bank: str | None) -> Iterator[Record]:
    """Records with the verdicts that stand, in the order in which they were given.

    Args:
        db: In a read transaction, which holds while this is read.
        kind: One of ``KINDS``.
        label_key: Where in the metadata the label goes; what is there gives way.
        bank: Of this bank only; ``None`` for all.
    """
    condition = "i.verdict IS NOT NULL" + ("" if bank is None else " AND i.bank = ?")
    order = " ORDER BY i.verdict"
    for one in decision_where(db, condition + order, () if bank is None else (bank,)):
        yield _record(one, kind, label_key)


def _record(one: Decision, kind: str, label_key: Path) -> Record:
    if kind == "training":
        return {"text": one.record["text"], "metadata": _with({}, label_key, one.label)}
    labelled = {**one.record, "metadata": _with(one.record["metadata"], label_key, one.label)}
    if kind == "verdicts":
        del labelled["decision"]
    return labelled


def _with(metadata: Any, path: Path, label: str | None) -> dict[str, Any]:
    """Metadata with a value at a path; the given ones stay as they are."""
    own = dict(metadata) if isinstance(metadata, dict) else {}
    own[path[0]] = label if len(path) == 1 else _with(own.get(path[0]), path[1:], label)
    return own
