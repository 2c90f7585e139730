"""Queries that stand among their own results: how many, and the runs without them.

A seed is the query itself as ``identity.is_itself`` says. BEIR's evaluation leaves such a document out; where it is
counted, figures over judgements are too low (nothing else can be first), and figures over labels too high.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ecom_rag.evaluation.runs import NamedRun
from ecom_rag.files.identity import is_itself
from ecom_rag.files.records import Record
from ecom_rag.files.results import LISTS

_EVIDENCE = "topk_evidence"


def without_itself(run: NamedRun, *, id_key: str = "id", labelled: bool = False) -> NamedRun:
    """The run without the queries themselves, and a note on how many there were.

    Args:
        run: Results or a TREC run.
        id_key: Metadata key of the ids.
        labelled: Whether the run names documents by their place, as ``load_labelled`` does.
    """
    kept, results, queries = {}, {}, 0
    for query, documents in run.run.items():
        own = _own_places(run, query, id_key)
        queries += bool(own)
        kept[query] = [document for place, document in enumerate(documents) if place not in own]
        if query in run.results:
            results[query] = _without(run.results[query], own)
        if labelled:
            kept[query] = [str(place) for place in range(len(kept[query]))]
    if not queries:
        return run
    note = f"{_share(queries, run)}; left out, so these have a candidate less"
    return replace(run, run=kept, results=results, notes=[*run.notes, note])


def noted(run: NamedRun, *, id_key: str = "id") -> NamedRun:
    """The same run, with a note where queries stand among their own results."""
    queries = sum(bool(_own_places(run, query, id_key)) for query in run.run)
    note = f"{_share(queries, run)} and count there; `exclude_self` leaves them out"
    return replace(run, notes=[*run.notes, note]) if queries else run


def _share(queries: int, run: NamedRun) -> str:
    return (
        f"{queries} of {len(run.run)} queries have themselves among their results (a candidate of their own id, or"
        " where ids are missing of their own text)"
    )


def _own_places(run: NamedRun, query: str, id_key: str) -> set[int]:
    if query not in run.results:
        return {place for place, document in enumerate(run.run[query]) if document == query}
    result = run.results[query]
    seeds = zip(result["topk_seed"], result["topk_metadata"], strict=True)
    return {place for place, (text, metadata) in enumerate(seeds) if is_itself(result, text, metadata, id_key)}


def _without(result: Record, own: set[int]) -> Record:
    """A result without some of its candidates; each route's ranks as if it had not found them."""
    lists = {key: result[key] for key in (*LISTS, _EVIDENCE) if result.get(key)}
    left = {key: [item for place, item in enumerate(items) if place not in own] for key, items in lists.items()}
    gone = [lists[_EVIDENCE][place] for place in own] if _EVIDENCE in lists else []
    if gone:
        left[_EVIDENCE] = [_closed_up(item, gone) for item in left[_EVIDENCE]]
    return {**result, **left}


def _closed_up(item: dict[str, Any], gone: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Evidence with each rank moved up by the candidates before it that are gone."""
    closed = {}
    for route, own in item.items():
        before = sum(0 < _rank(other.get(route)) < _rank(own) for other in gone)
        closed[route] = {**own, "rank": own["rank"] - before} if before else own
    return closed


def _rank(own: Any) -> float:
    rank = own.get("rank") if isinstance(own, dict) else None
    return rank if isinstance(rank, int | float) else 0
