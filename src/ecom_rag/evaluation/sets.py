"""A judged set in memory: what checkpoints in training and merges are measured on.

In: a BEIR folder, labelled records, or queries with candidates of their own. Out: a ``JudgedSet``, the rows that a
model finds in it, and their figures: any measure of ``ir_measures`` here, nDCG as an array in ``relevance``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.measures import PerQuery, evaluate_run
from ecom_rag.files import records
from ecom_rag.files.beir import read_beir
from ecom_rag.files.digest import Digest
from ecom_rag.files.identity import required_label
from ecom_rag.judging.relevance import Grades, Relevance, same_class
from ecom_rag.retrieval import DenseIndex
from ecom_rag.retrieval.itself import search_others


@dataclass(frozen=True)
class JudgedSet:
    """A judged set in memory.

    Args:
        queries: Texts of the queries.
        documents: Texts of the documents.
        relevance: Which documents are relevant to each query.
        own: ``(queries,)`` row of the document that is the query itself and is never found, -1 for none; by default
            none at all.
        candidates: For each query the rows that are ranked, where that is not all documents.
    """

    queries: list[str]
    documents: list[str]
    relevance: Relevance
    own: NDArray[np.int64] | None = None
    candidates: list[NDArray[np.int64]] | None = None

    @property
    def digest(self) -> str:
        """Changes with the texts and the judgements."""
        found = Digest()
        for text in (*self.queries, "\0", *self.documents):
            found.text(text)
        own = () if self.own is None else (self.own,)
        for array in (*self.relevance.arrays, *own, *(self.candidates or ())):
            found.data(np.ascontiguousarray(array).tobytes())
        return found.value

    def search(self, documents: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """What exact search finds for each query: of its candidates, or of all documents but itself.

        Args:
            documents: ``(documents, dim)`` embeddings.
            queries: ``(queries, dim)`` embeddings.
            k: Rows per query.

        Returns:
            ``(queries, at most k)`` rows, best first, -1 behind the last.
        """
        if self.candidates is not None:
            owners = np.repeat(np.arange(len(queries)), [len(rows) for rows in self.candidates])
            scores = np.einsum("pd,pd->p", queries[owners], documents[np.concatenate(self.candidates)])
            return self.ranked(scores)[:, :k]
        own = None if self.own is None else [row[row >= 0] for row in self.own[:, None]]
        return search_others(DenseIndex(documents), queries, min(k, len(documents)), own=own).rows

    def pairs(self) -> list[tuple[str, str]]:
        """Each query with each of its candidates, query by query."""
        asked = zip(self.queries, self.candidates or (), strict=True)
        return [(query, self.documents[row]) for query, rows in asked for row in rows.tolist()]

    def ranked(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        """The candidates by their scores.

        Args:
            scores: ``(pairs,)`` in the order of ``pairs``, higher is better; equal ones stay in that order.

        Returns:
            ``(queries, most candidates)`` rows, best first, -1 behind the last.
        """
        candidates = self.candidates or []
        lengths = np.array([len(rows) for rows in candidates], np.int64)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.full((len(lengths), int(lengths.max(initial=0))), -1, np.int64)
        rows[owners, places] = np.concatenate(candidates)[np.lexsort((-scores, owners))]
        return rows


def evaluate_rows(rows: NDArray[np.int64], judged: JudgedSet, measures: Sequence[str]) -> PerQuery:
    """Any measures of ``ir_measures`` over rankings; see ``measures.evaluate_run``.

    Args:
        rows: ``(queries, k)`` documents, best first, -1 for none.
        judged: The set they were found in, judged by ``Grades``.
        measures: Names as ``ir_measures`` has them.
    """
    assert isinstance(judged.relevance, Grades)
    run = {str(query): [str(row) for row in found if row >= 0] for query, found in enumerate(rows.tolist())}
    grades = enumerate(judged.relevance.judged)
    qrels = {str(query): {str(row): grade for row, grade in one.items()} for query, one in grades}
    return evaluate_run(run, qrels, measures)


def sampled(judged: NDArray[np.bool_], most: int | None) -> NDArray[np.int64]:
    """The rows of a corpus that are kept where it is too large: all judged ones, and a fixed sample of the others.

    The sample is drawn from one order of the whole corpus, so that a larger one holds the smaller, and the splits of
    one corpus share theirs.

    Args:
        judged: ``(documents,)``: which are judged.
        most: Documents to keep; ``None`` for all. Judged ones are kept even where there are more.

    Returns:
        Rows, ascending.
    """
    if most is None or len(judged) <= most:
        return np.arange(len(judged))
    order = np.random.default_rng(0).permutation(len(judged))
    others = order[~judged[order]][: max(0, most - int(judged.sum()))]
    return np.sort(np.concatenate([np.flatnonzero(judged), others]))


def read_beir_set(folder: str, split: str, *, max_documents: int | None = None) -> JudgedSet:
    """The queries of a split, its judgements and the corpus.

    Args:
        folder: See ``beir.read_beir``.
        split: The split whose judgements are taken.
        max_documents: See ``sampled``.

    Raises:
        UsageError: A part of the folder is missing, or a query's relevant documents are not in the corpus.
        RecordError: A line that does not fit.
    """
    beir = read_beir(folder, split)
    documents = list(beir.documents())
    judged = {document for grades in beir.qrels.values() for document in grades}
    kept = sampled(np.array([item["metadata"]["id"] in judged for item in documents], np.bool_), max_documents)
    documents = [documents[row] for row in kept.tolist()]
    rows = {document["metadata"]["id"]: row for row, document in enumerate(documents)}
    names = [query["metadata"]["id"] for query in beir.queries]
    grades = [{rows[name]: grade for name, grade in beir.qrels[query].items() if name in rows} for query in names]
    asked = sum(any(grade > 0 for grade in beir.qrels[query].values()) for query in names)
    answered = sum(any(grade > 0 for grade in found.values()) for found in grades)
    if answered < asked or not asked:
        raise UsageError(
            f"{folder}: {asked - answered} of {asked} queries of split {split} have no relevant document in the corpus;"
            " are they of one set?"
        )
    own = np.array([rows.get(query, -1) for query in names], np.int64)
    texts = ([query["text"] for query in beir.queries], [document["text"] for document in documents])
    return JudgedSet(*texts, Grades(grades, len(documents)), own)


def read_labelled_set(path: str, key: str) -> JudgedSet:
    """Labelled records, each of which asks for the others of its label.

    Args:
        path: File of records.
        key: Metadata key of the label.

    Raises:
        UsageError: A record without a label, or no two records of one.
        RecordError: A line that does not fit.
    """
    texts, labels = [], []
    for where, item in records.placed(path):
        texts.append(item["text"])
        try:
            labels.append(required_label(item["metadata"], key, where))
        except ValueError as error:
            raise UsageError(str(error)) from None
    relevance = same_class(labels)
    if len(relevance.queries) == 0:
        raise UsageError(f"{path}: no two records share a {key}; there is nothing to retrieve")
    return JudgedSet([texts[row] for row in relevance.own.tolist()], texts, relevance, relevance.own)


def candidate_set(items: Sequence[Any]) -> JudgedSet:
    """Queries whose own positives are ranked among their own negatives.

    Args:
        items: Objects with a ``query``, its ``positives`` and its ``negatives``, none of them a positive; a text that
            stands there twice is one document.
    """
    rows: dict[str, int] = {}
    grades, candidates = [], []
    for item in items:
        own, others = (
            [rows.setdefault(text, len(rows)) for text in dict.fromkeys(texts)]
            for texts in (item.positives, item.negatives)
        )
        grades.append(dict.fromkeys(own, 1))
        # Negatives first: a model that cannot tell them apart must not profit from the order.
        candidates.append(np.array([*others, *own], np.int64))
    return JudgedSet([item.query for item in items], list(rows), Grades(grades, len(rows)), candidates=candidates)
