"""Results: queries with what was found for them, the one place that knows the keys ``topk_*`` and rounds for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.files.records import Record
from ecom_rag.values import copied

LISTS = ("topk_sim", "topk_seed", "topk_metadata")
EVIDENCE = "topk_evidence"
_LARGEST = float(np.finfo(np.float32).max)


def results_of(queries: Sequence[Record], ranking: Any, seeds: Mapping[int, Record]) -> list[Record]:
    """Queries with their seeds; they share no list or dict with them: changing a result changes nothing else.

    Args:
        queries: May be results themselves; what was found for them before is replaced, old evidence too.
        ranking: The ``Ranking`` of the same queries.
        seeds: The record of each row in it.

    Raises:
        EmbeddingError: A score is NaN or infinity.
    """
    evidence = evidence_lists(ranking) if ranking.evidence else None
    results = []
    for number, query in enumerate(queries):
        found = [seeds[row] for row in ranking.rows[number].tolist() if row >= 0]
        result = {
            **{key: copied(value) for key, value in query.items() if key != EVIDENCE},
            "topk_sim": _rounded(ranking.scores[number, : len(found)], query),
            "topk_seed": [seed["text"] for seed in found],
            "topk_metadata": [copied(seed["metadata"]) for seed in found],
        }
        if evidence is not None:
            result[EVIDENCE] = evidence[number]
        results.append(result)
    return results


def scores_of(results: Sequence[Record]) -> NDArray[np.float32]:
    """``topk_sim`` of results as ``(results, most candidates)``, -inf behind the last of each."""
    width = max((len(result["topk_sim"]) for result in results), default=0)
    scores = np.full((len(results), width), -np.inf, np.float32)
    for row, result in zip(scores, results, strict=True):
        row[: len(result["topk_sim"])] = result["topk_sim"]
    return scores


def resorted(
    result: Record, order: Sequence[int], scores: NDArray[Any], evidence: Sequence[Mapping[str, Any]]
) -> Record:
    """A result with its candidates in another order, by other scores.

    Args:
        result: Left as it is.
        order: Which candidates, the best first.
        scores: Their new ones.
        evidence: What is added to theirs.

    Raises:
        EmbeddingError: A score is NaN or infinity.
    """
    before = result.get(EVIDENCE) or [{} for _ in result["topk_sim"]]
    return {
        **result,
        "topk_sim": _rounded(scores, result),
        "topk_seed": [result["topk_seed"][i] for i in order],
        "topk_metadata": [result["topk_metadata"][i] for i in order],
        EVIDENCE: [{**before[i], **added} for i, added in zip(order, evidence, strict=True)],
    }


def evidence_lists(ranking: Any) -> list[list[dict[str, dict[str, float | int]]]]:
    """``topk_evidence`` of each query: for each result the routes that found it, with their own score and rank."""
    by_query: list[list[dict[str, dict[str, float | int]]]] = [
        [{} for _ in range(count)] for count in ranking.counts.tolist()
    ]
    for name, evidence in ranking.evidence.items():
        queries, places = np.nonzero(evidence.ranks)
        ranks, scores = evidence.ranks[queries, places], evidence.scores[queries, places].astype(np.float64).round(6)
        for query, place, rank, score in zip(*(a.tolist() for a in (queries, places, ranks, scores)), strict=True):
            by_query[query][place][name] = {"score": score, "rank": rank}
    return by_query


def check_result(record: dict[str, Any]) -> None:
    """Raise ``ValueError`` unless a record has candidates that can be re-sorted."""
    missing = [key for key in LISTS if key not in record]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing; expected a result of ecom-rag score or recall")
    present = [key for key in (*LISTS, "topk_evidence") if key in record]
    for key in present:
        if not isinstance(record[key], list):
            raise ValueError(f'"{key}" is not an array; expected one entry per candidate')
    lengths = {key: len(record[key]) for key in present}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ValueError(f"the candidate lists differ in length ({found}); expected one entry per candidate in each")
    for key in ("topk_metadata", "topk_evidence"):
        if not all(isinstance(item, dict) for item in record.get(key, ())):
            raise ValueError(f'"{key}" holds something else than objects; expected one object per candidate')
    if not all(isinstance(seed, str) for seed in record["topk_seed"]):
        raise ValueError('"topk_seed" holds something else than strings; expected the seeds\' texts')
    if not all(map(_is_score, record["topk_sim"])):
        raise ValueError('"topk_sim" holds something else than numbers of float32; expected one score per candidate')


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _rounded(scores: NDArray[Any], query: Record) -> list[float]:
    """The edge that every score passes on its way into a result: none is NaN or infinity."""
    if not np.isfinite(scores).all():
        raise EmbeddingError(
            f"the query {query['text'][:40]!r}: a score is NaN or infinity; the checkpoint is damaged,"
            " or needs `precision` fp32"
        )
    return [round(score, 6) for score in scores.tolist()]
