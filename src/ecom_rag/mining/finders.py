"""Candidates for negatives: the best rows of the corpus for each query, by a route or from a file of results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.files.results import check_result
from ecom_rag.mining.sources import Corpus
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.retrieval import Ranking, pair_scores
from ecom_rag.retrieval import routes as table
from ecom_rag.retrieval.bm25 import BM25Index

ROUTES = (*table.ENCODED_ROUTES, "bm25")


class Finder(Protocol):
    """Where candidates come from."""

    def search(self, queries: Sequence[str], depth: int) -> Ranking:
        """The best rows of the corpus for each query, best first."""

    def floors(self, queries: Sequence[str], positives: Sequence[Sequence[str]], found: Ranking) -> NDArray[np.float32]:
        """``(queries,)`` score of each query's lowest positive, comparable with ``found.scores``."""


class EncodedFinder:
    """A route of an encoder over the corpus.

    Args:
        encoder: The model.
        embeddings: Of the corpus.
        route: ``dense``, ``sparse`` or ``multivector``.
    """

    def __init__(self, encoder: Encoder, embeddings: Embeddings, route: str) -> None:
        self._encoder, self._route = encoder, route
        self._index: Any = table.ROUTES[route].index(getattr(embeddings, route))
        self._queries: tuple[Sequence[str], Embeddings] | None = None

    def search(self, queries: Sequence[str], depth: int) -> Ranking:
        """See ``Finder.search``."""
        embeddings = self._encode(queries)
        found: Ranking = self._index.search(getattr(embeddings, self._route), depth)
        return found

    def floors(self, queries: Sequence[str], positives: Sequence[Sequence[str]], found: Ranking) -> NDArray[np.float32]:
        """See ``Finder.floors``; the pairs are scored by the same route."""
        texts = list(dict.fromkeys(text for own in positives for text in own))
        rows = {text: row for row, text in enumerate(texts)}
        documents = self._encoder.encode(texts, outputs=(self._route,))
        pairs = np.array([(q, rows[text]) for q, own in enumerate(positives) for text in own], np.int64)
        scores = pair_scores(self._encode(queries), documents, pairs.reshape(-1, 2))[self._route]
        lowest = np.full(len(queries), np.inf, np.float32)
        np.minimum.at(lowest, pairs[:, 0], scores)
        return lowest

    def _encode(self, queries: Sequence[str]) -> Embeddings:
        if self._queries is None or self._queries[0] is not queries:
            self._queries = queries, self._encoder.encode(queries, side="query", outputs=(self._route,))
        return self._queries[1]


class LexicalFinder:
    """BM25 over the corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._index = BM25Index(corpus.texts)

    def search(self, queries: Sequence[str], depth: int) -> Ranking:
        """See ``Finder.search``."""
        return self._index.search(queries, depth)

    def floors(self, queries: Sequence[str], positives: Sequence[Sequence[str]], found: Ranking) -> NDArray[np.float32]:
        """See ``Finder.floors``; a positive that shares no term with its query, or is not in the corpus, scores 0."""
        floors = np.zeros(len(queries), np.float32)
        for number, given in enumerate(positives):
            rows = np.unique(self._corpus.rows_of(given))
            if not len(rows) or rows[0] < 0:
                continue
            allowed = np.zeros(len(self._corpus), bool)
            allowed[rows] = True
            scores = self._index.search([queries[number]], len(rows), allowed=allowed).scores[0]
            if np.isfinite(scores).all():
                floors[number] = scores.min()
        return floors


class ListedFinder:
    """The candidates of a file of results (of ``score``, ``recall`` or ``rerank``), by the text of the query.

    Args:
        path: Records with ``topk_seed`` and ``topk_sim``, best first.
        corpus: Its rows are what is found.
        partial: Candidates that the corpus does not hold are passed over; else they are an error.

    Raises:
        UsageError: The results are of another corpus, or the file is empty.
        RecordError: A line that is no result.
    """

    def __init__(self, path: str, corpus: Corpus, *, partial: bool = False) -> None:
        if not Path(path).is_file():
            raise UsageError(f"{path}: no such file; expected results of ecom-rag score, recall or rerank")
        self._corpus = corpus
        self._found: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        for result in records.read(path, check=check_result):
            rows = [corpus.rows.get(text, -1) for text in result["topk_seed"]]
            if -1 in rows and not partial:
                text = result["topk_seed"][rows.index(-1)]
                raise UsageError(
                    f"{path}: candidate {text[:40]!r} is not in the corpus; pass the seeds that were"
                    " searched with `seeds`"
                )
            self._found[result["text"]] = np.array(rows, np.int64), np.array(result["topk_sim"], np.float32)
        if not self._found:
            raise UsageError(f"{path}: holds no results; expected those of ecom-rag score, recall or rerank")

    def search(self, queries: Sequence[str], depth: int) -> Ranking:
        """See ``Finder.search``; a query that the file does not hold has no candidates."""
        found = Ranking.empty(len(queries), depth)
        for number, query in enumerate(queries):
            rows, scores = self._found.get(query, (np.empty(0, np.int64), np.empty(0, np.float32)))
            found.rows[number, : len(rows[:depth])] = rows[:depth]
            found.scores[number, : len(rows[:depth])] = scores[:depth]
        return found

    def floors(self, queries: Sequence[str], positives: Sequence[Sequence[str]], found: Ranking) -> NDArray[np.float32]:
        """See ``Finder.floors``, and ``listed_floors``."""
        return listed_floors(self._corpus, positives, found)


def listed_floors(corpus: Corpus, positives: Sequence[Sequence[str]], found: Ranking) -> NDArray[np.float32]:
    """The score of the lowest positive that a ranking lists.

    Where none is listed, that of the last candidate: no positive has more, so margin and percentage let no candidate
    pass that the true score would refuse.
    """
    floors = np.full(len(positives), np.inf, np.float32)
    for number, own in enumerate(positives):
        listed = found.rows[number] >= 0
        if listed.any():
            scores = found.scores[number][listed]
            places = np.isin(corpus.groups[found.rows[number][listed]], corpus.groups_of(own))
            floors[number] = scores[places].min() if places.any() else scores.min()
    return floors
