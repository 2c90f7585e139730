"""Results: queries with what was found for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.records import Record
from ecom_rag.retrieval.rerank import check_scores
from ecom_rag.values import copied

EVIDENCE = "topk_evidence"


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
