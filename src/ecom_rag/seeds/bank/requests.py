"""Requests that were answered, kept in the transaction of the change that each of them made.

A client that had no answer asks again with the same key. Where the first attempt was committed, its answer is there; a
kill between a change and its answer is not possible. The table is made by the first request that has a key, so that
banks of other versions are opened as ever; compactions and snapshots take it along.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from ecom_rag.errors import RepeatedKeyError

KEPT_SECONDS = 24 * 3600.0
MOST = 100_000
_TABLE = """
CREATE TABLE IF NOT EXISTS requests (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT NOT NULL,
                                     answer TEXT NOT NULL, at REAL NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What tells a request from others.

    Args:
        key: Chosen by the client, the same for each attempt.
        digest: Of all that is asked for.
    """

    key: str
    digest: str


def answer_of(db: Connection, request: Request, bank: Path) -> dict[str, Any] | None:
    """The answer that a request had before; ``None`` for a new one.

    Args:
        db: In a transaction.
        request: The request.
        bank: Named in errors.

    Raises:
        RepeatedKeyError: Another request has used the key.
    """
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'requests'").fetchone() is None:
        return None
    found = db.execute(
        "SELECT digest, answer FROM requests WHERE key = ? AND at > ?", (request.key, time.time() - KEPT_SECONDS)
    ).fetchone()
    if found is None:
        return None
    if found[0] != request.digest:
        raise RepeatedKeyError(
            f"{bank}: the idempotency key was used for another request; give each request a key of its own, and only"
            " attempts of the same request the same one"
        )
    answer: dict[str, Any] = json.loads(found[1])
    return answer


def remember(db: Connection, request: Request, answer: dict[str, Any]) -> None:
    """Keep the answer to a request, and drop those that are too old or too many.

    Args:
        db: In the write transaction of the change.
        request: The request, which has no answer yet.
        answer: What JSON can hold.
    """
    now = time.time()
    db.execute(_TABLE)
    db.execute("DELETE FROM requests WHERE key = ?", (request.key,))  # expired
    db.execute(
        "INSERT INTO requests (key, digest, answer, at) VALUES (?, ?, ?, ?)",
        (request.key, request.digest, json.dumps(answer), now),
    )
    # Numbers ascend with time, so that only the first rows are looked at.
    youngest = "SELECT number FROM requests WHERE at > ? ORDER BY number LIMIT 1"
    db.execute(f"DELETE FROM requests WHERE number < ({youngest})", (now - KEPT_SECONDS,))
    db.execute("DELETE FROM requests WHERE number <= (SELECT max(number) FROM requests) - ?", (MOST,))
