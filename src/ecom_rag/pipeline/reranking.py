"""Re-sorting candidates by a cross-encoder's relevance; all of a candidate moves along."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecom_rag import arguments
from ecom_rag.arguments import flag, number, one_of, whole_or_none
from ecom_rag.errors import EmbeddingError, RecordError
from ecom_rag.files import records
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE, check_result, evidence_lists, resorted, scores_of
from ecom_rag.models import CrossEncoder
from ecom_rag.models.known_scores import KnownScores
from ecom_rag.retrieval import Ranking
from ecom_rag.retrieval.fusion import route_scores
from ecom_rag.retrieval.ranking import Evidence
from ecom_rag.values import copied

WHEN = ("always", "open")
_EARLIER = "retrieval"  # evidence of the scores that the candidates came with
_RERANKER = "reranker"  # of the relevance, where it is not the score itself


def rerank(
    results: Iterable[Record],
    cross_encoder: CrossEncoder | KnownScores,
    *,
    top_k: int | None = None,
    normalize: bool = False,
    blend: float = 1.0,
    when: str = "always",
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Re-sort the candidates of each result by the relevance of its text and each seed.

    ``topk_sim``, ``topk_seed``, ``topk_metadata`` and ``topk_evidence`` move together; ``topk_sim`` becomes the new
    relevance and the score and rank before it are kept in the evidence as ``retrieval`` (``retrieval_2`` for a second
    reranking, and so on). Equal relevance keeps the order before.

    Args:
        results: Any iterable of records as ``score`` and ``recall`` give them; left as they are.
        cross_encoder: The reranker, alone or with the scores that it gave before.
        top_k: Results to keep per query after re-sorting, at least 1; by default all.
        normalize: Give the sigmoid of the logit, 0..1; higher is more relevant either way.
        blend: Below 1 the candidates are ordered by ``blend`` times the relevance and ``1 - blend`` times the score
            they came with, each in standard deviations above the lowest of the result; that is then ``topk_sim``,
            and the relevance and its rank are in the evidence as ``reranker``. A reranker that was trained on little
            data does not know all that the routes know; half and half can be better than either (docs/training.md).
        when: ``always``, or ``open`` for the results alone of which a person must look (``decision``); the others stay
            as they are.
        progress: Called with the number of pairs done.

    Returns:
        New records in the order of ``results``, which share nothing with them. Of no results an empty list.

    Raises:
        UsageError: An argument of the wrong kind.
        RecordError: Something that is no result of ``score`` or ``recall``, or with ``open`` has no decision; says
            which and why.
        EmbeddingError: The reranker gave NaN or infinity.
    """
    arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder")
    top_k = check_options(top_k=top_k, normalize=normalize, blend=blend, when=when)
    check = check_open if when == "open" else check_result
    found = [copied(result) for result in _checked(results, check)]
    places = [place for place, result in enumerate(found) if when == "always" or is_open(result)]
    chosen = _reranked([found[place] for place in places], cross_encoder, top_k, normalize, blend, progress)
    for place, result in zip(places, chosen, strict=True):
        found[place] = result
    return found


def is_open(result: Record) -> bool:
    """Whether a person must look at a listing, by its ``decision``."""
    return bool(result["decision"]["action"] == "review")


def check_open(result: Record) -> None:
    """Raise ``ValueError`` unless a record is a result with a decision."""
    check_result(result)
    decision = result.get("decision")
    if not isinstance(decision, Mapping) or "action" not in decision:
        raise ValueError('has no "decision"; expected results of decide, or of recall with a policy')


def _reranked(
    given: list[Record],
    cross_encoder: CrossEncoder | KnownScores,
    top_k: int | None,
    normalize: bool,
    blend: float,
    progress: Callable[[int], None] | None,
) -> list[Record]:
    scores = scores_of(given)
    places = np.where(np.isfinite(scores), np.arange(scores.shape[1]), -1)
    before = Ranking(places, scores)
    pairs = [(result["text"], seed) for result in given for seed in result["topk_seed"]]
    relevance = cross_encoder.score(pairs, normalize=normalize, progress=progress)
    after = by_relevance(before, relevance, k=top_k or scores.shape[1], blend=blend)
    found = []
    for result, order, new, evidence in zip(given, after.rows, after.scores, evidence_lists(after), strict=True):
        taken = {name for item in result.get(EVIDENCE, ()) for name in item}
        named = [{_free(name, taken): entry for name, entry in item.items()} for item in evidence]
        count = len(named)
        found.append(resorted(result, order[:count].tolist(), new[:count], named))
    return found


def rerank_rows(
    ranking: Ranking,
    queries: Sequence[str],
    documents: Mapping[int, str],
    cross_encoder: CrossEncoder,
    *,
    k: int,
    normalize: bool = False,
    blend: float = 1.0,
) -> Ranking:
    """Re-sort a ranking by relevance; see ``rerank`` for what each argument means.

    Args:
        ranking: Candidates of the queries.
        queries: Their texts.
        documents: The text of each row in the ranking.
        cross_encoder: The reranker.
        k: Results per query.
        normalize: As of ``rerank``.
        blend: As of ``rerank``.

    Returns:
        The k best, with the scores and ranks before as evidence ``retrieval``.

    Raises:
        EmbeddingError: The reranker gave NaN or infinity.
    """
    relevance = cross_encoder.score(pairs_of(ranking, queries, documents), normalize=normalize)
    return by_relevance(ranking, relevance, k=k, blend=blend)


def pairs_of(ranking: Ranking, queries: Sequence[str], documents: Mapping[int, str]) -> list[tuple[str, str]]:
    """What a reranker reads of a ranking: each query with its candidates, one query after the other.

    Args:
        ranking: Candidates of the queries.
        queries: Their texts.
        documents: The text of each row in the ranking.
    """
    query, place = np.nonzero(ranking.rows >= 0)
    rows = ranking.rows[query, place].tolist()
    return [(queries[number], documents[row]) for number, row in zip(query.tolist(), rows, strict=True)]


def by_relevance(ranking: Ranking, relevance: NDArray[np.float32], *, k: int, blend: float) -> Ranking:
    """A ranking in the order of the relevance of its candidates.

    Args:
        ranking: The candidates.
        relevance: ``(candidates,)`` of what ``pairs_of`` gave.
        k: Results per query.
        blend: As of ``rerank``.

    Raises:
        EmbeddingError: The relevance holds NaN or infinity.
    """
    if not np.isfinite(relevance).all():
        raise EmbeddingError("the reranker gave NaN or infinity; its checkpoint is damaged, or needs `precision` fp32")
    found = ranking.rows >= 0
    scores = np.full(found.shape, -np.inf, np.float32)
    scores[found] = relevance
    places = np.where(found, np.arange(1, found.shape[1] + 1), 0)
    before = Evidence(ranking.scores, places)
    evidence = dict(ranking.evidence)
    if blend < 1:
        ranks = np.empty_like(places)
        np.put_along_axis(ranks, np.argsort(-scores, axis=1, kind="stable"), places, axis=1)
        own = evidence[_RERANKER] = Evidence(scores, np.where(found, ranks, 0))
        mixed = blend * route_scores(own, method="zscore") + (1 - blend) * route_scores(before, method="zscore")
        scores = np.where(found, mixed, -np.inf).astype(np.float32)  # equal in float32 is a tie
    evidence[_EARLIER] = before
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(found, order, axis=1)
    return Ranking(
        np.take_along_axis(ranking.rows, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
        {name: own.at(order, kept) for name, own in evidence.items()},
    )


def check_options(*, top_k: int | None, normalize: bool, blend: float, when: str = "always") -> int | None:
    """``top_k`` as a plain number, if the options of ``rerank`` make sense.

    Raises:
        UsageError: They do not.
    """
    flag(normalize, "normalize")
    one_of(when, "when", WHEN)
    number(blend, "blend", low=0, high=1, expected="0 to 1, the reranker's share")
    return whole_or_none(top_k, "top_k")


def _checked(results: Iterable[Record], check: Callable[[Record], None]) -> Iterator[Record]:
    for place, result in enumerate(records.cleaned(results, "result")):
        try:
            check(result)
        except ValueError as error:
            raise RecordError(f"result {place}", str(error)) from None
        yield result


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first of ``name_2``, ``name_3``, ... that is not taken."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
