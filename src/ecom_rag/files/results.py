"""Results: queries with what was found for them, the one place that knows the keys ``topk_*`` and rounds for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.files.records import Record
from ecom_rag.files.values import copied

LISTS = ("topk_sim", "topk_seed", "topk_metadata")
EVIDENCE = "topk_evidence"
_LARGEST = float(np.finfo(np.float32).max)


def result_of(
    query: Record,
    scores: NDArray[np.float32],
    seeds: Sequence[Record],
    evidence: list[dict[str, Any]] | None,
) -> Record:
    """A query with its seeds; shares no list or dict with them, so that changing a result changes nothing else.

    Args:
        query: May be a result itself; what was found for it before is replaced, old evidence too.
        scores: ``(k,)``, descending; may be longer than ``seeds``, where there were fewer of them.
        seeds: The records found.
        evidence: For each seed the score and rank by route, if there is more than one.

    Raises:
        EmbeddingError: A score is NaN or infinity.
    """
    sims = scores[: len(seeds)]
    check_scores(sims, query)
    result = {
        **{key: copied(value) for key, value in query.items() if key != EVIDENCE},
        "topk_sim": [round(sim, 6) for sim in sims.tolist()],
        "topk_seed": [seed["text"] for seed in seeds],
        "topk_metadata": [copied(seed["metadata"]) for seed in seeds],
    }
    if evidence is not None:
        result[EVIDENCE] = evidence
    return result


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
            raise ValueError(f'"{key}" is not an array; expected one entry a candidate')
    lengths = {key: len(record[key]) for key in present}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ValueError(f"the candidate lists differ in length ({found}); expected one entry a candidate in each")
    for key in ("topk_metadata", "topk_evidence"):
        if not all(isinstance(item, dict) for item in record.get(key, ())):
            raise ValueError(f'"{key}" holds something else than objects; expected one a candidate')
    if not all(isinstance(seed, str) for seed in record["topk_seed"]):
        raise ValueError('"topk_seed" holds something else than strings; expected the seeds\' texts')
    if not all(map(_is_score, record["topk_sim"])):
        raise ValueError('"topk_sim" holds something else than numbers of float32; expected one score a candidate')


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def check_scores(scores: NDArray[Any], query: dict[str, Any]) -> None:
    """The edge that every score passes on its way into a result: none is NaN or infinity.

    Raises:
        EmbeddingError: One is.
    """
    if not np.isfinite(scores).all():
        raise EmbeddingError(
            f"the query {query['text'][:40]!r}: a score is NaN or infinity; the checkpoint is damaged,"
            " or needs --precision fp32"
        )
