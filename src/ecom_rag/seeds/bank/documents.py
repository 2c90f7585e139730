"""Records to rows and back: what a document's id is, and what may be stored."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ecom_rag.arguments import listed
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import as_id
from ecom_rag.files.keys import value_at
from ecom_rag.files.records import Record

CONTENT = "sha256:"
"""How the ids of documents without an id of their own begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it is stored: ``metadata`` and ``extra`` (the record's other keys) as JSON."""

    id: str
    text: str
    metadata: str
    extra: str | None
    blobs: dict[str, bytes]


def rows_of(batch: Sequence[Record], id_key: str) -> tuple[list[Row], list[int], list[str]]:
    """The rows to store, of each id the last record.

    Args:
        batch: Records, as ``records.cleaned`` gives them.
        id_key: Key of the metadata that holds the id.

    Returns:
        The rows without embeddings, the number of each one's record in the batch, and notes worth a user's eye.

    Raises:
        RecordError: An id that is neither a string nor a whole number.
    """
    found = [_row(record, number, id_key) for number, record in enumerate(batch)]
    last = {row.id: number for number, row in enumerate(found)}
    kept = [number for number, row in enumerate(found) if last[row.id] == number]
    notes = []
    if len(kept) < len(found):
        double = next(row.id for number, row in enumerate(found) if last[row.id] != number)
        notes.append(
            f"{len(found) - len(kept)} records have the id of a later record (e.g. {double!r}); of each id the"
            " last was kept"
        )
    return [found[number] for number in kept], kept, notes


def record_of(text: str, metadata: str, extra: str | None) -> Record:
    """A stored document as the record that it came from."""
    record: Record = {"text": text, "metadata": records.loads(metadata.encode())}
    if extra is not None:
        record |= records.loads(extra.encode())
    return record


def ids_of(values: Iterable[Any]) -> list[str]:
    """Ids that a caller asks for, in their order.

    Raises:
        UsageError: Something that cannot be an id.
    """
    try:
        return [as_id(value) for value in listed(values, "ids", "a list of ids")]
    except ValueError as error:
        raise UsageError(f"an id {error}") from None


def _row(record: Record, number: int, id_key: str) -> Row:
    text, metadata = record["text"], record["metadata"]
    extra = {key: value for key, value in record.items() if key not in ("text", "metadata")}
    stored = records.dumps(metadata).decode().rstrip("\n")
    others = records.dumps(extra).decode().rstrip("\n") if extra else None
    own = value_at(metadata, id_key)
    try:
        id_ = _content_id(text, metadata, extra) if own is None else as_id(own)
    except ValueError as error:
        raise RecordError(f"record {number}", f"the {id_key!r} of its metadata {error}") from None
    return Row(id_, text, stored, others, {})


def _content_id(text: str, metadata: Any, extra: Any) -> str:
    """The id of a record that has none: equal records are the same document."""
    whole = json.dumps([text, metadata, extra], ensure_ascii=False, sort_keys=True).encode()
    return f"{CONTENT}{hashlib.sha256(whole).hexdigest()[:32]}"
