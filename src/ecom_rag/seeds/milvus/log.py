"""What is noted about a bank: rows under keys, of which the newest ``state`` says what holds."""

import base64
import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import BankError
from ecom_rag.seeds.milvus import schema
from ecom_rag.seeds.milvus.client import Client

_CHUNK = 45_000  # characters that fit into a value, whatever they are
_GONE = 5_000  # numbers of rows that do
_TERMS = "terms/"  # keys of terms come after all others


@dataclass(frozen=True, slots=True)
class Noted:
    """What the newest state says.

    Args:
        revision: Of what is noted; grows with every state that is written.
        sequence: Number of the last change.
        next_row: Number that the next row gets.
        live: Documents.
        statistics: Of them, as JSON.
        meta: All that is noted about the bank beside.
        rows: The collection of its rows; empty as long as there are none.
        terms: Version of the numbers of terms.
        finished: Whether the bank is built.
        leaving: Changes up to this one whose removed rows are being deleted: older states cannot be read any more.
        left: Changes up to this one whose removed rows are deleted.
        old: Collections of rows that were replaced, and when.
        format: Of all this.
    """

    revision: int = 0
    sequence: int = 0
    next_row: int = 0
    live: int = 0
    statistics: str = "{}"
    meta: dict[str, Any] = field(default_factory=dict)
    rows: str = ""
    terms: int = 0
    finished: bool = False
    leaving: int = 0
    left: int = 0
    old: list[tuple[str, float]] = field(default_factory=list)
    format: int = schema.FORMAT


@dataclass(frozen=True, slots=True)
class Gone:
    """Rows that a change has removed.

    Args:
        sequence: Of the change.
        when: It was, in seconds.
        rows: Their numbers.
    """

    sequence: int
    when: float
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Read:
    """All that is noted, as of one moment.

    Args:
        noted: The newest state.
        gone: Rows that are left out though they are still there.
        claims: By key, until when a writer has the bank.
    """

    noted: Noted
    gone: list[Gone]
    claims: Mapping[str, float]

    @property
    def gone_rows(self) -> NDArray[np.int64]:
        """Ascending."""
        return np.array(sorted(row for one in self.gone for row in one.rows), np.int64)


def read(client: Client) -> Read:
    """What is noted about a bank.

    Raises:
        BankError: There is no bank, or one of another format.
    """
    address = client.address
    if not client.has(address.name):
        raise BankError(f"{address}: no such bank; make one with ecom-rag bank build")
    rows = client.query(address.name, f'key < "{_TERMS}"', ["key", "value"])
    values = {row["key"]: json.loads(row["value"]) for row in rows}
    states = [Noted(**value) for key, value in values.items() if key.startswith("state/") and value["format"] == 1]
    if not states:
        raise BankError(
            f"{address}: is not a seed bank of format {schema.FORMAT}, which this version of ecom_rag reads; choose"
            " another name, or build the bank again"
        )
    noted = max(states, key=lambda one: one.revision)
    gone = [Gone(**value) for key, value in sorted(values.items()) if key.startswith("gone/")]
    return Read(
        noted,
        [one for one in gone if noted.left < one.sequence <= noted.sequence],
        {key: value for key, value in values.items() if key.startswith("claim/")},
    )


def write_state(client: Client, noted: Noted) -> Noted:
    """Let a state hold from now on, in place of the one before."""
    new = replace(noted, revision=noted.revision + 1)
    write(client, {f"state/{new.revision:015d}": asdict(new)})
    client.delete(client.address.name, f'key >= "state/" and key < "state/{new.revision:015d}"')
    return new


def write_gone(client: Client, sequence: int, rows: Sequence[int]) -> None:
    """Note the rows that a change removes; without the change this means nothing."""
    parts = [list(rows[start : start + _GONE]) for start in range(0, len(rows), _GONE)]
    now = time.time()
    write(
        client,
        {f"gone/{sequence:015d}/{n:05d}": asdict(Gone(sequence, now, part)) for n, part in enumerate(parts)},
    )


def write_terms(client: Client, version: int, sequence: int, changes: Iterable[tuple[str, int]]) -> None:
    """Note by how much the counts of terms change; new terms are numbered in the order in which they stand here."""
    parts: list[list[tuple[str, int]]] = [[]]
    size = 0
    for word, count in changes:
        size += 6 * len(word) + 20
        if size > _CHUNK and parts[-1]:
            parts.append([])
            size = 6 * len(word) + 20
        parts[-1].append((word, count))
    begin = _terms_key(version, sequence)
    write(client, {f"{begin}{number:05d}": _packed(part) for number, part in enumerate(parts) if part})


def read_terms(client: Client, version: int, after: int, upto: int) -> Iterable[list[tuple[str, int]]]:
    """What ``write_terms`` wrote for the changes after one, up to one, in their order."""
    where = f'key >= "{_terms_key(version, after + 1)}" and key < "{_terms_key(version, upto + 1)}"'
    keys = sorted(row["key"] for row in client.query(client.address.name, where, ["key"]))
    for start in range(0, len(keys), 100):
        some = keys[start : start + 100]
        found = client.query(client.address.name, f"key in {json.dumps(some)}", ["key", "value"])
        for row in sorted(found, key=lambda row: str(row["key"])):
            yield _unpacked(json.loads(row["value"]))


def forget_terms(client: Client, version: int, *, after: int | None = None) -> None:
    """Remove the terms of versions before one; or those of this version that no change after one has made."""
    first, last = (_TERMS, f"{_TERMS}{version:06d}/")
    if after is not None:
        first, last = _terms_key(version, after + 1), f"{_TERMS}{version:06d}0"
    client.delete(client.address.name, f'key >= "{first}" and key < "{last}"')


def forget_gone(client: Client, first: int, last: int) -> None:
    """Remove what is noted of the rows that changes from one to one have removed."""
    client.delete(client.address.name, f'key >= "gone/{first:015d}/" and key < "gone/{last + 1:015d}/"')


def write(client: Client, values: Mapping[str, Any]) -> None:
    """Write values under keys that are new.

    Raises:
        BankError: A value that is too long.
    """
    rows = [{"key": key, "value": json.dumps(value), "none": [0.0, 0.0]} for key, value in values.items()]
    for row in rows:
        if len(row["value"]) > schema.LONGEST:
            raise BankError(
                f"{client.address}: {len(row['value'])} bytes are to be noted as {row['key']}, Milvus takes"
                f" {schema.LONGEST}; give a shorter note"
            )
    client.insert(client.address.name, rows, max((len(row["value"]) for row in rows), default=1))


def _packed(part: list[tuple[str, int]]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(part).encode())).decode()


def _unpacked(value: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = json.loads(zlib.decompress(base64.b64decode(value)))
    return found


def _terms_key(version: int, sequence: int) -> str:
    return f"{_TERMS}{version:06d}/{sequence:015d}/"
