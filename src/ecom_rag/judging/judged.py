"""How good the candidates of a fusion are, from judgements or from labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.judging.relevance import Classes, discounts, ideal_dcg
from ecom_rag.retrieval.fusion import Candidates


@dataclass(frozen=True)
class Judged:
    """How good the candidates are.

    Args:
        gains: ``(queries, candidates)`` float64, the grade of each candidate, at least 0.
        ideal: ``(queries,)`` float64, the DCG@k of the best possible ranking of all documents.
    """

    gains: NDArray[np.float64]
    ideal: NDArray[np.float64]


def judge(
    candidates: Candidates, documents: Sequence[Sequence[str]], grades: Sequence[Mapping[str, int]], *, k: int = 10
) -> Judged:
    """Grades of candidates from judgements.

    Args:
        candidates: What was found; ``rows`` index into ``documents``.
        documents: For each query the names that its ``rows`` stand for; one list for all may be repeated.
        grades: For each query, name -> grade of every judged document, found or not.
        k: Of nDCG@k.
    """
    gains = np.zeros(candidates.rows.shape)
    for query, (names, judged) in enumerate(zip(documents, grades, strict=True)):
        for place, row in enumerate(candidates.rows[query].tolist()):
            if row >= 0:
                gains[query, place] = max(0, judged.get(names[row], 0))
    return Judged(gains, ideal_dcg([judged.values() for judged in grades], k))


def judge_labels(
    candidates: Candidates,
    query_labels: NDArray[np.int64],
    seed_labels: NDArray[np.int64],
    *,
    own: Sequence[NDArray[np.int64]] | None = None,
    k: int = 10,
) -> Judged:
    """Grades of candidates from labels: 1 where a seed has the query's label.

    Args:
        candidates: What was found; ``rows`` are those of the seeds.
        query_labels: ``(queries,)`` label numbers.
        seed_labels: ``(seeds,)`` label numbers; -1 for none.
        own: For each query the rows that it is itself, which are not among the candidates; by default none.
        k: Of nDCG@k.
    """
    relevance = Classes(query_labels, seed_labels, own=np.full(len(query_labels), -1, np.int64))
    pairs = zip(query_labels, own or [np.empty(0, np.int64)] * len(query_labels), strict=True)
    left_out = np.array([(seed_labels[rows] == label).sum() for label, rows in pairs], np.int64)
    possible = np.arange(k) < (relevance.relevant - left_out)[:, None]
    return Judged(relevance.gains(candidates.rows), possible.astype(np.float64) @ discounts(k))
