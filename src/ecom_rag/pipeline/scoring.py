"""Scoring: recall by one route of an encoder."""

from collections.abc import Iterable, Sequence
from typing import Any

from ecom_rag import arguments
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import OUTPUTS
from ecom_rag.pipeline.search import Pipeline
from ecom_rag.pipeline.settings import Recall
from ecom_rag.retrieval import hybrid
from ecom_rag.seeds.memory import Seeds

MODES = (*OUTPUTS, "hybrid")


def score(
    queries: Iterable[Record],
    seeds: Iterable[Record],
    encoder: Encoder,
    *,
    mode: str = "dense",
    weights: Sequence[float] = hybrid.EQUAL,
    top_k: int = 10,
    exclude_self: bool = False,
    id_key: str = "id",
) -> list[Record]:
    """Score records in memory: multi-route recall with one route; see ``Pipeline`` for several calls.

    Args:
        queries: Any iterable of records ``{"text": str, "metadata": dict}``; ``metadata`` may be left out.
        seeds: The records that are searched, at least one.
        encoder: The embedding model.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Three numbers of at least 0, of dense, sparse and multivector, for ``hybrid``.
        top_k: Seeds per query, at least 1.
        exclude_self: Leave a seed out of the results of the query that it is, see ``Recall``.
        id_key: Metadata key of the ids of queries and seeds.

    Returns:
        The queries in order, each with ``topk_sim`` (descending; cosine in -1..1 for ``dense``, higher is more
        similar), ``topk_seed`` and ``topk_metadata``, and under ``hybrid`` also ``topk_evidence``. They share nothing
        with ``queries`` and ``seeds``. Of no queries an empty list.

    Raises:
        UsageError: No seeds, or an argument of the wrong kind.
        RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
        ModelError: The checkpoint cannot give what the mode needs.
    """
    arguments.model(encoder, "encoder", "check_outputs", "Encoder")
    settings = score_settings(mode, weights, top_k=top_k, exclude_self=exclude_self, id_key=id_key)
    return Pipeline(Seeds(seeds, routes=(mode,), encoder=encoder), settings).recall(queries)


def score_settings(
    mode: str, weights: Sequence[float], *, top_k: int, filter: Any = None, exclude_self: bool, id_key: str | None
) -> Recall:
    """Scoring as what it is: recall by one route; see ``score``. The other settings are checked where they are used.

    Raises:
        UsageError: An unknown mode, or weights that make no sense.
    """
    arguments.one_of(mode, "mode", MODES)
    weights = tuple(hybrid.weights_of(weights).values())
    return Recall(
        routes=(mode,),
        hybrid_weights=weights if mode == "hybrid" else hybrid.EQUAL,
        top_k=top_k,
        filter=filter,
        exclude_self=exclude_self,
        id_key=id_key,
    )
