"""Re-sorting candidates by a cross-encoder's relevance, with everything that belongs to a candidate moving along."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag import arguments, records
from ecom_rag.arguments import flag, number, whole_or_none
from ecom_rag.errors import EmbeddingError, RecordError
from ecom_rag.models.cross_encoder import CrossEncoder
from ecom_rag.records import Record
from ecom_rag.retrieval.fusion import Evidence, route_scores
from ecom_rag.values import copied

LISTS = ("topk_sim", "topk_seed", "topk_metadata")
_EARLIER = "retrieval"  # evidence entry of the scores that the candidates came with
_LARGEST = float(np.finfo(np.float32).max)
_RERANKER = "reranker"  # entry of the relevance, where it is not the score itself


def rerank(
    results: Iterable[Record],
    cross_encoder: CrossEncoder,
    *,
    top_k: int | None = None,
    normalize: bool = False,
    blend: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Re-sort the candidates of each result by the relevance of its text and each seed.

    ``topk_sim``, ``topk_seed``, ``topk_metadata`` and ``topk_evidence`` move together; ``topk_sim`` becomes the new
    relevance and the score and rank before it are kept in the evidence as ``retrieval`` (``retrieval_2`` for a second
    reranking, and so on). Equal relevance keeps the order before.

    Args:
        results: Any iterable of records as ``score`` and ``recall`` give them; left as they are.
        cross_encoder: The reranker.
        top_k: Keep this many per query after re-sorting, at least 1; by default all.
        normalize: Sigmoid of the logit, 0..1; higher is more relevant either way.
        blend: Below 1 the candidates are ordered by ``blend`` times the relevance and ``1 - blend`` times the score
            they came with, each in standard deviations above the lowest of the result; that is then ``topk_sim``,
            and the relevance and its rank are in the evidence as ``reranker``. A reranker that was trained on little
            data does not know all that the routes know; half and half can be better than either (docs/training.md).
        progress: Called with the number of pairs done.

    Returns:
        New records in the order of ``results``, which share nothing with them. Of no results an empty list.

    Raises:
        UsageError: An argument of the wrong kind.
        RecordError: Something that is no result of ``score`` or ``recall``; says which and why.
        EmbeddingError: The reranker gave NaN or infinity.
    """
    arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder")
    top_k = check_options(top_k=top_k, normalize=normalize, blend=blend)
    results = [copied(result) for result in _checked(results)]
    pairs = [(result["text"], seed) for result in results for seed in result["topk_seed"]]
    relevance = cross_encoder.score(pairs, normalize=normalize, progress=progress)
    ends = np.cumsum([len(result["topk_seed"]) for result in results], dtype=np.int64)
    return [
        _resorted(result, relevance[end - len(result["topk_seed"]) : end], top_k, blend)
        for result, end in zip(results, ends, strict=True)
    ]


def check_options(*, top_k: int | None, normalize: bool, blend: float) -> int | None:
    """``top_k`` as a plain number, if the options of ``rerank`` make sense.

    Raises:
        UsageError: They do not.
    """
    flag(normalize, "normalize")
    number(blend, "blend", low=0, high=1, expected="0 to 1, the reranker's share")
    return whole_or_none(top_k, "top_k")


def _checked(results: Iterable[Record]) -> Iterator[Record]:
    for place, result in enumerate(records.cleaned(results, "result")):
        try:
            check_result(result)
        except ValueError as error:
            raise RecordError(f"result {place}", str(error)) from None
        yield result


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
        raise EmbeddingError(f"the query {query['text'][:40]!r}: a score is NaN or infinity; the checkpoint is damaged,"
                             " or needs --precision fp32")  # fmt: skip


def _resorted(
    result: dict[str, Any], relevance: NDArray[np.float32], top_k: int | None, blend: float
) -> dict[str, Any]:
    evidence = result.get("topk_evidence") or [{} for _ in result["topk_sim"]]
    taken = {key for item in evidence for key in item}
    name = _free(_EARLIER, taken)
    scores: NDArray[Any] = relevance
    if blend < 1:
        earlier = np.array(result["topk_sim"], np.float64)
        scores = blend * _standardised(relevance) + (1 - blend) * _standardised(earlier)
        ranks = np.empty(len(relevance), np.int64)
        ranks[np.argsort(-relevance, kind="stable")] = np.arange(1, len(relevance) + 1)
        own = _free(_RERANKER, taken)
        evidence = [
            {**item, own: {"score": round(float(score), 6), "rank": int(rank)}}
            for item, score, rank in zip(evidence, relevance, ranks, strict=True)
        ]
    check_scores(scores, result)
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return {
        **result,
        "topk_sim": [round(float(scores[i]), 6) for i in order],
        "topk_seed": [result["topk_seed"][i] for i in order],
        "topk_metadata": [result["topk_metadata"][i] for i in order],
        "topk_evidence": [{**evidence[i], name: {"score": result["topk_sim"][i], "rank": i + 1}} for i in order],
    }


def _standardised(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Standard deviations above the lowest, as fusion's ``zscore``."""
    given = np.asarray(scores, np.float32)[None, :]
    return route_scores(Evidence(given, np.ones(given.shape, np.int64)), method="zscore")[0]


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first of ``name_2``, ``name_3``, ... that is not taken."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
