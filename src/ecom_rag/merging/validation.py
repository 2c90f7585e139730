"""Validation sets: what a merged model is measured on while weights are searched, by nDCG@10 in exact search.

A set is a BEIR folder, labelled records (each retrieves the others of its label), or queries with ``pos`` and ``neg``
(the positives among the negatives, the only kind for rerankers).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import UsageError
from ecom_rag.files import readers, records
from ecom_rag.files.beir import read_beir
from ecom_rag.files.identity import required_label
from ecom_rag.mining.triples import KnownPositives, read_examples
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.retrieval import DenseIndex

KINDS = ("beir", "labelled", "triples")
_K = 10


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """One set of a specification.

    Args:
        name: For reports.
        beir: Folder, or
        labelled: File of records, or
        triples: File of queries with ``pos`` and ``neg``.
        split: Of a BEIR folder.
        label: Key of the label in a record's metadata.
        weight: In the objective, the weighted mean of the sets' nDCG@10; by default 1, or 0 with ``max_loss``.
        max_loss: Most that may be lost against the base, e.g. 0.01.
        max_documents: Of a BEIR folder: all judged documents and a sample of the others up to this many.
    """

    name: str
    beir: str | None = None
    labelled: str | None = None
    triples: str | None = None
    split: str = "dev"
    label: str = "label"
    weight: float | None = None
    max_loss: float | None = None
    max_documents: int | None = None

    @property
    def share(self) -> float:
        """Weight in the objective."""
        return self.weight if self.weight is not None else (1.0 if self.max_loss is None else 0.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """A set in memory.

    Args:
        settings: What it was read from.
        queries: Texts.
        documents: Texts.
        own: ``(queries,)`` row of the document that is the query itself, -1 for none.
        grades: ``(queries, documents)`` of grades, or
        classes: ``(documents,)`` of labelled records: those of the query's own class are relevant.
        candidates: For triples, the documents of each query.
    """

    settings: ValidationSet
    queries: list[str]
    documents: list[str]
    own: NDArray[np.int64]
    grades: csr_matrix | None = None
    classes: NDArray[np.int64] | None = None
    candidates: list[NDArray[np.int64]] | None = None

    @property
    def digest(self) -> str:
        """Changes with the texts and the judgements."""
        found = hashlib.blake2b(digest_size=16)
        for text in (*self.queries, "\0", *self.documents):
            found.update(text.encode("utf-8", "surrogatepass") + b"\n")
        graded = () if self.grades is None else (self.grades.indptr, self.grades.indices, self.grades.data)
        own = () if self.classes is None and (self.own < 0).all() else (self.own,)
        for array in (*graded, *own, *(() if self.classes is None else (self.classes,))):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def read_spec(path: str) -> list[ValidationSet]:
    """Read a specification: a TOML file of ``[[sets]]``; see ``ValidationSet`` for the keys.

    Raises:
        UsageError: Unreadable, an unknown key, a value of the wrong kind, or nothing to aim at.
    """
    table = readers.read_toml(path, remedy="expected a TOML file of [[sets]], see docs/merging.md")
    if set(table) != {"sets"} or not isinstance(table["sets"], list) or not table["sets"]:
        raise UsageError(
            f"{path}: found keys {', '.join(table) or 'none'}; expected [[sets]] alone, see docs/merging.md"
        )
    found = [_one_set(f"{path}: sets[{number}]", item) for number, item in enumerate(table["sets"])]
    names = [item.name for item in found]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two sets have the same name; name them {', '.join(sorted(set(names)))} and another")
    if not any(item.share > 0 for item in found):
        raise UsageError(f"{path}: no set has a weight above 0, so there is nothing to aim at; give one")
    return found


def _one_set(where: str, item: dict[str, Any]) -> ValidationSet:
    known = {entry.name: entry.type for entry in fields(ValidationSet)}
    for key, value in item.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key}; expected some of {', '.join(known)}")
        wanted: Any = (int, float) if key in ("weight", "max_loss") else int if key == "max_documents" else str
        if isinstance(value, bool) or not isinstance(value, wanted) or (wanted is not str and not value >= 0):
            kinds = "a text" if wanted is str else "a number of at least 0"
            raise UsageError(f"{where}: {key} is {value!r}; expected {kinds}")
    given = [kind for kind in KINDS if item.get(kind)]
    if len(given) != 1:
        raise UsageError(f"{where}: found {' and '.join(given) or 'no data'}; expected one of {', '.join(KINDS)}")
    return ValidationSet(**{"name": Path(item[given[0]]).name, **item})


def load(settings: ValidationSet) -> Judged:
    """Read a set.

    Raises:
        UsageError: A file is missing, or nothing in it can be measured.
        RecordError: A line that does not fit.
    """
    if settings.beir is not None:
        return _beir(settings, settings.beir)
    if settings.labelled is not None:
        return _labelled(settings, settings.labelled)
    assert settings.triples is not None
    return _triples(settings, settings.triples)


def measure(judged: Judged, model: Encoder | CrossEncoder) -> float:
    """The mean nDCG@10 over the queries, 0 to 1.

    Raises:
        UsageError: A reranker on a set that needs search.
    """
    if isinstance(model, CrossEncoder) and judged.candidates is None:
        raise UsageError(
            f'validation set "{judged.settings.name}": a reranker is measured on triples (queries with pos'
            " and neg); mine them with ecom-rag mine"
        )
    if judged.candidates is not None:
        ids = _ranked_candidates(judged, model)
    else:
        assert isinstance(model, Encoder)
        documents = model.encode(judged.documents).dense
        queries = model.encode(judged.queries, side="query").dense
        assert documents is not None and queries is not None
        found = DenseIndex(documents).search(queries, _K + 1).rows
        itself = found == judged.own[:, None]
        order = np.argsort(itself, axis=1, kind="stable")[:, :_K]  # the query's own row to the end
        ids = np.where(np.take_along_axis(itself, order, 1), -1, np.take_along_axis(found, order, 1))
    if judged.classes is not None:
        return float(class_ndcg(ids, judged.own, judged.classes).mean())
    assert judged.grades is not None
    return float(ndcg(ids, judged.grades).mean())


def class_ndcg(ids: NDArray[np.int64], own: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """As ``ndcg``, where the documents of the query's own class have grade 1, the query itself aside.

    Args:
        ids: ``(queries, k)`` documents, best first, -1 for none; a query's own row is not among them.
        own: ``(queries,)`` row of the query itself.
        classes: ``(documents,)``; every query's class has a second document.
    """
    depth = ids.shape[1]
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gains = (ids >= 0) & (classes[np.maximum(ids, 0)] == classes[own][:, None])
    others = np.bincount(classes)[classes[own]] - 1
    ideal = np.array([discounts[:count].sum() for count in range(depth + 1)])
    found: NDArray[np.float64] = (gains * discounts).sum(axis=1) / ideal[np.minimum(others, depth)]
    return found


def ndcg(ids: NDArray[np.int64], grades: csr_matrix) -> NDArray[np.float64]:
    """The nDCG of rankings as trec_eval has it (Järvelin & Kekäläinen 2002): gain = grade, over ``log2(rank + 1)``.

    Args:
        ids: ``(queries, k)`` documents, best first, -1 for none.
        grades: ``(queries, documents)``; every query has a grade above 0.

    Returns:
        ``(queries,)`` in 0 to 1.
    """
    depth = ids.shape[1]
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    rows = np.arange(len(ids))[:, None].repeat(depth, 1)
    gains = np.asarray(grades[rows.ravel(), np.maximum(ids, 0).ravel()], np.float64).reshape(ids.shape)
    gains = np.where(ids >= 0, np.maximum(gains, 0), 0)
    ideal = np.zeros(len(ids))
    for row in range(len(ids)):
        best = np.sort(grades.data[grades.indptr[row] : grades.indptr[row + 1]])[::-1][:depth]
        ideal[row] = (np.maximum(best, 0) * discounts[: len(best)]).sum()
    return (gains * discounts).sum(axis=1) / ideal


def _ranked_candidates(judged: Judged, model: Encoder | CrossEncoder) -> NDArray[np.int64]:
    assert judged.candidates is not None
    lengths = [len(rows) for rows in judged.candidates]
    if isinstance(model, CrossEncoder):
        pairs = [
            (query, judged.documents[row])
            for query, rows in zip(judged.queries, judged.candidates, strict=True)
            for row in rows.tolist()
        ]
        scores = model.score(pairs)
    else:
        documents, queries = model.encode(judged.documents).dense, model.encode(judged.queries, side="query").dense
        assert documents is not None and queries is not None
        owners = np.repeat(np.arange(len(lengths)), lengths)
        scores = np.einsum("pd,pd->p", queries[owners], documents[np.concatenate(judged.candidates)])
    ids = np.full((len(lengths), _K), -1, np.int64)
    for row, own in enumerate(np.split(scores, np.cumsum(lengths)[:-1])):
        best = judged.candidates[row][np.argsort(-own, kind="stable")[:_K]]
        ids[row, : len(best)] = best
    return ids


def _beir(settings: ValidationSet, folder: str) -> Judged:
    beir = read_beir(folder, settings.split)
    kept = {
        query: {document: grade for document, grade in judged.items() if grade > 0}
        for query, judged in beir.qrels.items()
    }
    queries = [query for query in beir.queries if kept[query["metadata"]["id"]]]
    documents = list(beir.documents())
    if settings.max_documents is not None and len(documents) > settings.max_documents:
        judged = {document for grades in beir.qrels.values() for document in grades}
        order = np.random.default_rng(0).permutation(len(documents)).tolist()
        others = [row for row in order if documents[row]["metadata"]["id"] not in judged]
        room = max(0, settings.max_documents - (len(documents) - len(others)))
        taken = set(others[room:])
        documents = [document for row, document in enumerate(documents) if row not in taken]
    rows = {document["metadata"]["id"]: row for row, document in enumerate(documents)}
    entries = [
        (number, rows[document], grade)
        for number, query in enumerate(queries)
        for document, grade in kept[query["metadata"]["id"]].items()
        if document in rows
    ]
    answered = {number for number, _, _ in entries}
    if len(answered) < len(queries) or not queries:
        raise UsageError(
            f"{folder}: {len(queries) - len(answered)} of {len(queries)} queries of split {settings.split}"
            " have no relevant document in the corpus; are they of one set?"
        )
    own = np.array([rows.get(query["metadata"]["id"], -1) for query in queries], np.int64)
    return Judged(
        settings,
        [query["text"] for query in queries],
        [document["text"] for document in documents],
        own,
        _grades(entries, len(queries), len(documents)),
    )


def _labelled(settings: ValidationSet, path: str) -> Judged:
    items, labels = [], []
    for where, item in records.placed(path):
        items.append(item)
        try:
            labels.append(required_label(item["metadata"], settings.label, where))
        except ValueError as error:
            raise UsageError(str(error)) from None
    _, codes, counts = np.unique(np.array(labels, object), return_inverse=True, return_counts=True)
    own = np.flatnonzero(counts[codes] > 1)
    if len(own) == 0:
        raise UsageError(f"{path}: no two records share a {settings.label}; there is nothing to retrieve")
    texts = [item["text"] for item in items]
    return Judged(
        settings,
        [texts[row] for row in own.tolist()],
        texts,
        own.astype(np.int64),
        classes=codes.reshape(-1).astype(np.int64),
    )


def _triples(settings: ValidationSet, path: str) -> Judged:
    rows: dict[str, int] = {}
    entries, candidates = [], []
    examples = read_examples(path)
    known = KnownPositives(examples)
    for number, example in enumerate(examples):
        positives = [rows.setdefault(text, len(rows)) for text in dict.fromkeys(example.positives)]
        kept = dict.fromkeys(example.negatives[place] for place in known.negatives(example))
        negatives = [rows.setdefault(text, len(rows)) for text in kept]
        entries += [(number, row, 1) for row in positives]
        # Negatives first: a model that cannot tell them apart must not profit from the order.
        candidates.append(np.array([*negatives, *positives], np.int64))
    queries = [example.query for example in examples]
    grades = _grades(entries, len(examples), len(rows))
    itself = np.full(len(examples), -1, np.int64)
    return Judged(settings, queries, list(rows), itself, grades, candidates=candidates)


def _grades(entries: Sequence[tuple[int, int, int]], queries: int, documents: int) -> csr_matrix:
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    return csr_matrix((values.astype(np.float64), (rows, columns)), shape=(queries, documents))
