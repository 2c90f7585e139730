"""The documents of one state: rows that came by then, and were not removed by then."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import BankChangedError
from ecom_rag.files.identity import shown_label
from ecom_rag.files.json_text import loads
from ecom_rag.files.keys import Path, value_at
from ecom_rag.files.records import Record
from ecom_rag.filters.milvus import EVERY, KINDS, NONE, conditions, has_kind
from ecom_rag.filters.parse import parse
from ecom_rag.filters.unmet import SAMPLE, filter_notes
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.documents import CONTENT, record_of
from ecom_rag.seeds.bank.filtered import Filtered
from ecom_rag.seeds.milvus.candidates import candidates
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.milvus.log import Noted, Read
from ecom_rag.seeds.milvus.words import WordCache, Words
from ecom_rag.seeds.remote.bounds import Asked, Where
from ecom_rag.seeds.remote.state import State, Statistics

_TOGETHER = 1024  # rows with their vectors that are fetched at once
_NUMBERS = 8192  # numbers of rows that are
_NAMES = 1000  # digests in one question
_FILTER = "filter"


class Rows:
    """One state of a bank, see ``remote.engine.Rows``.

    Args:
        client: A connection.
        read: What is noted.
        words: Those of bm25.

    Attributes:
        state: Where the bank stands.
        client: As given.
        noted: Of ``read``.
        held: The expression for its rows.
    """

    def __init__(self, client: Client, read: Read, words: WordCache) -> None:
        self.client, self.noted = client, read.noted
        noted = read.noted
        self.state = State(noted.sequence, noted.next_row, noted.live, Statistics.of_json(noted.statistics))
        self.held = " and ".join([f"born <= {noted.sequence}", *without(read.gone_rows)])
        self._words = words

    @property
    def words(self) -> Words:
        """Of this state."""
        return self._words.at(self.noted.terms, self.noted.sequence)

    def meta(self) -> dict[str, Any]:
        """See ``Rows``."""
        return dict(self.noted.meta)

    def candidates(self, route: str, asked: Sequence[Asked], k: int, where: Where | None) -> list[NDArray[np.int64]]:
        """See ``Rows``."""
        allowed = self._expression(where)
        return candidates(self.client, self.noted.rows, route, asked, k, allowed, self.state.next_row)

    def known(self, route: str, names: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See ``Rows``."""
        return self.words.known(names)

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """See ``Rows``."""
        return [json.loads(one["record"])[1] for one in self._fetched(rows.tolist(), "record")]

    def dense(self, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
        """See ``Rows``."""
        found = [one["dense"] for one in self._fetched(rows.tolist(), "dense")]
        return np.array(found, np.float32).reshape(len(rows), dimension)

    def sparse(self, rows: NDArray[np.int64], vocabulary: int) -> csr_matrix:
        """See ``Rows``."""
        found = [sorted(one["sparse"].items()) for one in self._fetched(rows.tolist(), "sparse")]
        pairs = [(term - 1, weight) for one in found for term, weight in one if term]
        offsets = np.cumsum([0, *(sum(term > 0 for term, _ in one) for one in found)])
        weights = np.array([weight for _, weight in pairs], np.float32)
        return csr_matrix((weights, np.array([t for t, _ in pairs], np.int32), offsets), shape=(len(rows), vocabulary))

    def records(self, rows: Sequence[int]) -> dict[int, Record]:
        """See ``Rows``."""
        return {one["row"]: _record(one) for one in self._of(sorted(set(rows)), "record")}

    def metadata(self) -> Iterator[tuple[int, str, str]]:
        """See ``Rows``."""
        for one in self.streamed(self.held, ["record"]):
            name, _, metadata, _ = json.loads(one["record"])
            yield one["row"], name, metadata

    def live_rows(self) -> NDArray[np.int64]:
        """See ``Rows``."""
        return np.array([one["row"] for one in self.streamed(self.held, [], step=_NUMBERS)], np.int64)

    def rows_where(self, what: str, values: Iterable[str], *, nameless: bool = False) -> dict[str, list[int]]:
        """See ``Rows``."""
        named = {digest(value): value for value in values}
        found: dict[str, list[int]] = {}
        for one in self._named(f"{what}_digest", list(named), ["record"] if nameless else []):
            if not nameless or json.loads(one["record"])[0].startswith(CONTENT):
                found.setdefault(named[one[f"{what}_digest"]], []).append(one["row"])
        return {value: sorted(rows) for value, rows in found.items()}

    def filtered(self, filter: Any) -> Filtered:
        """See ``Rows``."""
        if filter is None:
            return Filtered(EVERY, [], self.state.live, [])
        where = conditions(parse(filter), field=_FILTER)
        count = self._count(where)
        notes = filter_notes(
            filter, matched=count, seeds=self.state.live, kinds_at=self._kinds_at, sample=self._some_metadata
        )
        return Filtered(where, [], count, notes)

    def where(self, filter: Any) -> Where:
        """See ``Rows``."""
        return Where(self.state.next_row, conditions(parse(filter), field=_FILTER))

    def label_counts(self, key: str) -> dict[str, int]:
        """See ``Rows``."""
        found: Counter[str] = Counter()
        for _, _, metadata in self.metadata():
            label = shown_label(value_at(loads(metadata.encode()), key))
            if label is not None:
                found[label] += 1
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    def documents(self, found: Filtered) -> Iterator[Record]:
        """See ``Rows``."""
        where = f"{self.held} and ({found.where})"
        return (_record(one) for one in self.streamed(where, ["record"]))

    def page(self, after: int, limit: int) -> list[tuple[int, Record]]:
        """See ``Rows``."""
        found: list[tuple[int, Record]] = []
        for one in self.streamed(self.held, ["record"], after=after):
            found.append((one["row"], _record(one)))
            if len(found) == limit:
                break
        return found

    def documents_of(self, ids: Iterable[str]) -> dict[str, Record]:
        """See ``Rows``."""
        found = self._named("id_digest", [digest(name) for name in set(ids)], ["record"])
        return {json.loads(one["record"])[0]: _record(one) for one in found}

    def streamed(self, where: str, fields: Sequence[str], *, after: int = 0, step: int = _TOGETHER) -> Iterator[Any]:
        """Rows that an expression holds for, in row order.

        Args:
            where: The expression.
            fields: That are wanted beside ``row``.
            after: The first row.
            step: Rows at a time.
        """
        for first in range(after, self.state.next_row, step):
            within = f"({where}) and row >= {first} and row < {first + step}"
            found = self.client.query(self.noted.rows, within, ["row", *fields])
            yield from sorted(found, key=lambda one: int(one["row"]))

    def _expression(self, where: Where | None) -> str:
        parts = [self.held]
        if where is not None and where.condition is not None:
            parts.append(f"({where.condition})")
        if where is not None and where.left_out:
            parts += without(np.unique(where.left_out))
        return " and ".join(parts)

    def _fetched(self, rows: Sequence[int], field: str) -> list[Any]:
        """A field of rows that are there, in the order of their numbers."""
        found = self._of(rows, field)
        if len(found) < len(rows):
            raise deleted(self.client.address, self.noted)
        return found

    def _of(self, rows: Sequence[int], field: str) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(rows), _TOGETHER):
            part = list(rows[start : start + _TOGETHER])
            found += self.client.query(self.noted.rows, f"row in {part}", ["row", field])
        return sorted(found, key=lambda one: int(one["row"]))

    def _named(self, field: str, digests: Sequence[str], more: Sequence[str]) -> Iterator[Any]:
        if not self.noted.rows:
            return
        for start in range(0, len(digests), _NAMES):
            part = json.dumps(digests[start : start + _NAMES])
            yield from self.client.query(self.noted.rows, f"{self.held} and {field} in {part}", ["row", field, *more])

    def _count(self, where: str) -> int:
        return self.client.count(self.noted.rows, f"{self.held} and ({where})") if self.noted.rows else 0

    def _kinds_at(self, path: Path) -> set[str]:
        return {kind for kind in KINDS if self._count(has_kind(path, (kind,), _FILTER))}

    def _some_metadata(self) -> Iterator[dict[str, Any]]:
        for one in self.client.query(self.noted.rows, self.held, ["record"], limit=SAMPLE) if self.noted.rows else ():
            yield loads(json.loads(one["record"])[2].encode())


def deleted(address: Address, noted: Noted) -> BankChangedError:
    """The error for a state that was read for too long."""
    return BankChangedError(
        f"{address}: was changed while it was searched, and the rows of sequence {noted.sequence} are deleted by now;"
        " search again"
    )


def digest(value: str) -> str:
    """What the server keeps of an id or a text to find it by."""
    return hashlib.sha256(value.encode()).hexdigest()


def without(rows: NDArray[np.int64]) -> list[str]:
    """Expressions for all rows but some, ascending: runs of them as ranges."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts, lasts = rows[np.r_[0, breaks + 1]], rows[np.r_[breaks, len(rows) - 1]]
    long = lasts - firsts > 2
    ranges = [
        f"(row < {first} or row > {last})"
        for first, last in zip(firsts[long].tolist(), lasts[long].tolist(), strict=True)
    ]
    pairs = zip(firsts[~long].tolist(), lasts[~long].tolist(), strict=True)
    single = [row for first, last in pairs for row in range(first, last + 1)]
    return [*ranges, *([f"row not in {single}"] if single else [])]


def expression(rows: Sequence[int]) -> str:
    """An expression for some rows."""
    return f"row in {list(rows)}" if rows else NONE


def _record(one: Any) -> Record:
    _, text, metadata, extra = json.loads(one["record"])
    return record_of(text, metadata, extra)
