"""Negatives for a block of queries in memory: candidates, rules, reranker, and the objects that are written."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.records import Record
from ecom_rag.mining.finders import Finder
from ecom_rag.mining.rules import Rules, allowed, order_of
from ecom_rag.mining.sources import Corpus
from ecom_rag.models import CrossEncoder
from ecom_rag.retrieval import Ranking

NAMED = 3  # queries in a note


def mine(
    queries: list[Record],
    corpus: Corpus,
    ranking: Finder,
    rules: Rules,
    *,
    cross_encoder: CrossEncoder | None = None,
) -> tuple[list[Record], Counter[str]]:
    """Mine for a block of queries in memory; see ``memory.mine`` for whole lists.

    Args:
        queries: As ``sources.Queries`` gives them.
        corpus: What negatives come from.
        ranking: Finds candidates.
        rules: Which of them are taken.
        cross_encoder: Finds false negatives, and gives scores.

    Returns:
        FlagEmbedding's objects, of the queries that have a positive and a negative; and counts: of what was written
        and refused, and of the queries that came out short, with the first few of them as ``named``.
    """
    items = [item for item in queries if item["pos"]]
    counts = _named("no positive", [item for item in queries if not item["pos"]])
    if not items:
        return [], counts
    found, orders, refused = _candidates(items, corpus, ranking, rules)
    counts.update({f"refused {reason}": number for reason, number in refused.items()})
    if cross_encoder is None:
        chosen = [order[: rules.negatives] for order in orders]
        scores = [_grades(item, len(rows)) for item, rows in zip(items, chosen, strict=True)]
    else:
        chosen, scores, tried = _by_reranker(items, orders, corpus, rules, cross_encoder)
        counts["refused reranker"] = tried - sum(map(len, chosen))
    mined = []
    for item, rows, own in zip(items, chosen, scores, strict=True):
        if len(rows):
            negatives = [corpus.texts[row] for row in rows.tolist()]
            mined.append({"query": item["query"], "pos": item["pos"], "neg": negatives, **own, **item["rest"]})
    within = [(rows[rules.first - 1 : rules.last] >= 0).any() for rows in found.rows]  # a candidate at the ranks
    rest = list(zip(items, map(len, chosen), within, strict=True))
    counts += _named("none", [item for item, size, some in rest if size == 0 and some])
    counts += _named("short", [item for item, size, some in rest if size == 0 and not some])
    counts += _named("few", [item for item, size, _ in rest if 0 < size < rules.negatives])
    return mined, counts + Counter({"written": len(mined), "negatives": sum(map(len, chosen))})


def _candidates(
    items: list[Record], corpus: Corpus, ranking: Finder, rules: Rules
) -> tuple[Ranking, list[NDArray[np.int64]], dict[str, int]]:
    """What was found, the rows that may be negatives in the order in which they are taken, and how many may not."""
    texts = [item["query"] for item in items]
    found = ranking.search(texts, rules.last)
    filtered = rules.margin is not None or rules.percentage is not None
    floors = ranking.floors(texts, [item["pos"] for item in items], found) if filtered else None
    keep, refused = allowed(
        found.rows,
        found.scores,
        rules,
        groups=corpus.groups,
        known=[np.array(item["known"], np.int64) for item in items],
        same_label=[corpus.of_labels(item["labels"]) for item in items],
        floors=floors,
    )
    return found, [order_of(found.rows[row][keep[row]], text, rules) for row, text in enumerate(texts)], refused


def _by_reranker(
    items: list[Record],
    orders: list[NDArray[np.int64]],
    corpus: Corpus,
    rules: Rules,
    cross_encoder: CrossEncoder,
) -> tuple[list[NDArray[np.int64]], list[dict[str, list[float]]], int]:
    """The first of each order that the reranker lets pass, with its logits, and how many were tried: just enough."""
    positive_pairs = [(item["query"], text) for item in items for text in item["pos"]]
    ends = np.cumsum([len(item["pos"]) for item in items])
    positive_logits = np.split(cross_encoder.score(positive_pairs), ends[:-1])
    ceilings = np.array([_ceiling(logits, rules) for logits in positive_logits])
    chosen: list[list[tuple[int, float]]] = [[] for _ in items]
    place = [0] * len(items)
    while True:
        tries = [
            (number, row)
            for number, order in enumerate(orders)
            for row in order[place[number] : place[number] + rules.negatives - len(chosen[number])].tolist()
        ]
        if not tries:
            break
        logits = cross_encoder.score([(items[number]["query"], corpus.texts[row]) for number, row in tries])
        for (number, row), logit in zip(tries, logits.tolist(), strict=True):
            place[number] += 1
            if not _relevance(logit) > ceilings[number]:  # NaN passes
                chosen[number].append((row, logit))
    scores = [
        {"pos_scores": [round(x, 6) for x in logits.tolist()], "neg_scores": [round(logit, 6) for _, logit in taken]}
        for logits, taken in zip(positive_logits, chosen, strict=True)
    ]
    return [np.array([row for row, _ in taken], np.int64) for taken in chosen], scores, sum(place)


def _grades(item: Record, negatives: int) -> dict[str, list[float]]:
    """Judgements in the place of a teacher's scores, where they were asked for; what nobody judged has 0."""
    grades = item.get("grades")
    return {} if grades is None else {"pos_scores": grades, "neg_scores": [0] * negatives}


def _ceiling(positive_logits: NDArray[np.float32], rules: Rules) -> float:
    """The largest relevance that a negative may have."""
    ceiling = 1.0 if rules.reranker_threshold is None else rules.reranker_threshold
    if rules.reranker_margin is not None:
        ceiling = min(ceiling, _relevance(float(positive_logits.min())) - rules.reranker_margin)
    return ceiling


def _relevance(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(logit))))


def _named(what: str, items: list[Record]) -> Counter[str]:
    """How many queries there are, and the first few for the summary."""
    names = list(dict.fromkeys(item["query"][:40] for item in items))
    return Counter({f"queries {what}": len(items)}) + Counter(f"named {what}: {name}" for name in names[:NAMED])
