"""A change: rows that are written for it, and what is noted last, which makes it."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ecom_rag.errors import RecordError
from ecom_rag.filters.milvus import facts
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.seeds.bank.documents import Row
from ecom_rag.seeds.bank.filtered import Filtered
from ecom_rag.seeds.milvus import log, schema
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.milvus.rows import Rows, digest
from ecom_rag.seeds.milvus.words import WordCache
from ecom_rag.seeds.remote.engine import Sides
from ecom_rag.seeds.remote.state import Texts
from ecom_rag.seeds.remote.terms import Counts, Side

_AT_ONCE = 256  # rows that are made and inserted at a time
_RANGE = 1024  # rows that are copied at a time


class Writer(Rows):
    """One state of a bank, and the change that ``commit`` makes of it, see ``remote.engine.Writer``.

    Args:
        client: A connection.
        read: What is noted.
        words: Those of bm25.
        keep: Called before rows are written, to go on having the bank.
    """

    def __init__(self, client: Client, read: log.Read, words: WordCache, keep: Callable[[], None]) -> None:
        super().__init__(client, read, words)
        self._keep = keep
        self._counts: Counter[bytes] = Counter()
        self._new: dict[bytes, int] = {}
        self._gone: list[int] = []
        self.next = read.noted

    def note(self, key: str, value: Any) -> None:
        """See ``Writer``."""
        self.next = replace(self.next, meta={**self.next.meta, key: value})

    def meta(self) -> dict[str, Any]:
        """See ``Rows``."""
        return dict(self.next.meta)

    def append(self, rows: list[Row], vectors: Embeddings, sides: Sides, routes: Sequence[str]) -> int:
        """See ``Writer``."""
        sequence = self.noted.sequence + 1
        made = [_fields(row) for row in rows]
        weights = _weights(vectors) if "sparse" in routes else None
        replaced = self.remove([row.id for row in rows], sides, routes)
        if not self.next.rows:
            self.next = replace(self.next, rows=schema.rows_name(self.client, self.noted.revision))
            schema.create_rows(self.client, self.next.rows, routes, self.next.meta["sizes"])
        values = {side.route: self._values(side, [row.text for row in rows]) for side in sides.values()}
        if weights is not None:
            values["sparse"] = weights
            self.state.statistics.largest = max(self.state.statistics.largest, float(weights.data.max(initial=0)))
        if "dense" in routes:
            assert vectors.dense is not None
            lengths = np.linalg.norm(vectors.dense.astype(np.float64), axis=1)
            self.state.statistics.norm = max(self.state.statistics.norm, float(lengths.max()))
        first = self.state.next_row
        for number, one in enumerate(made):
            one |= {"row": first + number, "born": sequence}
        self.insert(self.next.rows, made, vectors if "dense" in routes else Embeddings(), values)
        self.state.sequence, self.state.next_row = sequence, first + len(rows)
        self.state.live += len(rows)
        return replaced

    def remove(self, what: Filtered | Sequence[str], sides: Sides, routes: Sequence[str]) -> int:
        """See ``Writer``."""
        if not self.noted.rows:
            return 0
        if isinstance(what, Filtered):
            found = list(self.streamed(f"{self.held} and ({what.where})", ["record"]))
        else:
            found = list(self._named("id_digest", [digest(name) for name in what], ["record"]))
        texts = [json.loads(one["record"])[1] for one in found]
        self._gone += [int(one["row"]) for one in found]
        for side in sides.values():
            counts = side.count(texts)
            self._counts.subtract(_documents(counts))
            self.state.statistics.texts[side.route].terms -= int(counts.lengths.sum())
        self.state.live -= len(found)
        self.state.sequence += bool(found)
        return len(found)

    def insert(
        self, collection: str, made: Sequence[dict[str, Any]], vectors: Embeddings, values: Mapping[str, csr_matrix]
    ) -> None:
        """Write rows with their vectors.

        Args:
            collection: Where.
            made: The rows' other fields.
            vectors: Of the rows, the dense ones.
            values: Of the rows, by field the sparse ones.
        """
        for start in range(0, len(made), _AT_ONCE):
            self._keep()
            part = [dict(one) for one in made[start : start + _AT_ONCE]]
            size = 0
            for number, one in enumerate(part):
                if vectors.dense is not None:
                    one["dense"] = vectors.dense[start + number]
                for field, matrix in values.items():
                    one[field] = _as_dict(matrix, start + number)
                    size += 10 * len(one[field])
                size += len(one["record"]) + (0 if vectors.dense is None else 4 * vectors.dense.shape[1])
            self.client.insert(collection, part, size // max(len(part), 1))

    def rebuild(self, sides: Sides, made: Mapping[str, str]) -> None:
        """Write all rows into a new collection: with new numbers of words, and the present mean length.

        Args:
            sides: Routes over texts.
            made: What the terms depend on.
        """
        self.note("made", dict(made))
        if not self.noted.rows:
            return
        routes = self.noted.meta["routes"]
        version, new = self.noted.terms + 1, schema.rows_name(self.client, self.noted.revision)
        schema.create_rows(self.client, new, routes, self.noted.meta["sizes"])
        numbers = dict[bytes, int]()
        for side in sides.values():
            own, counts = self._counted_anew(side)
            self.state.statistics.texts[side.route] = own
            numbers = {name: number for number, name in enumerate(counts)}
            log.forget_terms(self.client, version, after=-1)
            log.write_terms(self.client, version, self.noted.sequence, _words_of(counts))
        for part in self._blocks([*_KEPT, *(route for route in routes if route != "bm25")]):
            dense = np.array([one.pop("dense") for one in part], np.float32) if "dense" in routes else None
            values = {}
            for side in sides.values():
                counted = side.count([json.loads(one["record"])[1] for one in part])
                places = np.array([numbers[name] for name in counted.names], np.int64)
                slope = self.state.statistics.texts[side.route].slope
                values[side.route] = side.values(counted, places, slope)
            self.insert(new, part, Embeddings(dense), values)
        old = [*self.noted.old, (self.noted.rows, time.time())]
        left = self.noted.sequence  # no row that is gone is in the new collection
        self.next = replace(self.next, rows=new, terms=version, old=old, left=left)

    def finish(self) -> None:
        """Let the bank be opened."""
        self.next = replace(self.next, finished=True)

    def commit(self) -> None:
        """Make the change."""
        sequence = self.state.sequence = min(self.state.sequence, self.noted.sequence + 1)
        if any(self._counts.values()):
            words = [*self._new, *(name for name in self._counts if name not in self._new)]
            changed = {name: self._counts[name] for name in words if self._counts[name] or name in self._new}
            log.write_terms(self.client, self.next.terms, sequence, _words_of(changed))
        log.write_gone(self.client, sequence, self._gone)
        self.next = log.write_state(
            self.client,
            replace(
                self.next,
                sequence=sequence,
                next_row=self.state.next_row,
                live=self.state.live,
                statistics=self.state.statistics.to_json(),
            ),
        )

    def _values(self, side: Side, texts: Sequence[str]) -> csr_matrix:
        """Values of new texts, which are counted."""
        counts = side.count(texts)
        own = self.state.statistics.texts.setdefault(side.route, Texts())
        numbers, _ = self.words.known(counts.names)
        for place in np.flatnonzero(numbers < 0).tolist():
            name = counts.names[place]
            if name not in self._new:
                self._new[name] = own.numbers
                own.numbers += 1
            numbers[place] = self._new[name]
        self._counts.update(_documents(counts))
        own.terms += int(counts.lengths.sum())
        if not own.slope:
            own.slope = side.slope(len(texts), int(counts.lengths.sum()))
        return side.values(counts, numbers, own.slope)

    def _counted_anew(self, side: Side) -> tuple[Texts, Counter[bytes]]:
        own, found = Texts(), Counter[bytes]()
        for part in self._blocks(["record"]):
            counts = side.count([json.loads(one["record"])[1] for one in part])
            found.update(_documents(counts))
            own.terms += int(counts.lengths.sum())
        own.numbers, own.slope = len(found), side.slope(self.state.live, own.terms)
        return own, found

    def _blocks(self, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        for first, last in pairwise([*range(0, self.state.next_row, _RANGE), self.state.next_row]):
            self._keep()
            where = f"{self.held} and row >= {first} and row < {last}"
            found = self.client.query(self.noted.rows, where, ["row", *fields])
            if found:
                yield [{name: one[name] for name in ("row", *fields)} for one in found]


_KEPT = ("born", "id_digest", "text_digest", "record", "filter")


def _fields(row: Row) -> dict[str, Any]:
    """What the server keeps of a document beside its vectors.

    Raises:
        RecordError: More than it takes.
    """
    record = json.dumps([row.id, row.text, row.metadata, row.extra], ensure_ascii=False)
    seen = facts(json.loads(row.metadata))
    sizes = {"the document": len(record.encode()), "what filters see of its metadata": len(json.dumps(seen))}
    for what, size in sizes.items():
        if size > schema.LONGEST:
            raise RecordError(
                row.id[:80], f"{what} takes {size} bytes; a bank in Milvus holds up to {schema.LONGEST}, cut it"
            )
    return {"id_digest": digest(row.id), "text_digest": digest(row.text), "record": record, "filter": seen}


def _weights(vectors: Embeddings) -> csr_matrix:
    """Learned weights as they are written: none twice, none 0."""
    assert vectors.sparse is not None
    SparseIndex(vectors.sparse)  # looks at the weights
    weights = vectors.sparse.copy()
    weights.sum_duplicates()
    weights.eliminate_zeros()
    return weights


def _as_dict(matrix: csr_matrix, row: int) -> dict[int, float]:
    """A row for the server, which takes no empty one: all have a 0, which no query asks for."""
    own = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return {0: 1.0, **dict(zip((matrix.indices[own] + 1).tolist(), matrix.data[own].tolist(), strict=True))}


def _documents(counts: Counts) -> dict[bytes, int]:
    """In how many of some texts each term is."""
    return dict(zip(counts.names, np.diff(counts.level.starts).tolist(), strict=True))


def _words_of(counts: Mapping[bytes, int]) -> Iterator[tuple[str, int]]:
    return ((name.decode("utf-8", "surrogatepass"), count) for name, count in counts.items())
