"""Negatives for a block of queries in memory: candidates, rules, reranker, and the objects that are written."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.records import Record
from ecom_rag.mining.finders import Finder
from ecom_rag.mining.rules import Rules, allowed, order_of
from ecom_rag.mining.sources import Corpus
from ecom_rag.models import CrossEncoder

_NAMED = 3


def mine(
    queries: list[Record],
    corpus: Corpus,
    ranking: Finder,
    rules: Rules,
    *,
    cross_encoder: CrossEncoder | None = None,
    counts: Counter[str] | None = None,
) -> list[Record]:
    """Mine for a block of queries in memory; see ``memory.mine`` for whole lists.

    Args:
        queries: As ``sources.Queries`` gives them.
        corpus: What negatives come from.
        ranking: Finds candidates.
        rules: Which of them are taken.
        cross_encoder: Finds false negatives, and gives scores.
        counts: Added to: what was refused, and which queries came out short.

    Returns:
        FlagEmbedding's objects, of the queries that have a positive and a negative.
    """
    counts = counts if counts is not None else Counter()
    without = [item for item in queries if not item["pos"]]
    _note(counts, "no positive", without)
    items = [item for item in queries if item["pos"]]
    if not items:
        return []
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
    counts.update({f"refused {reason}": number for reason, number in refused.items()})
    orders = [order_of(found.rows[row][keep[row]], text, rules) for row, text in enumerate(texts)]
    if cross_encoder is None:
        chosen = [order[: rules.negatives] for order in orders]
        scores = None
    else:
        chosen, scores = _by_reranker(items, orders, corpus, rules, cross_encoder, counts)
    mined = []
    for number, item in enumerate(items):
        if len(chosen[number]):
            extra = scores[number] if scores is not None else _grades(item, len(chosen[number]))
            negatives = [corpus.texts[row] for row in chosen[number].tolist()]
            mined.append({"query": item["query"], "pos": item["pos"], "neg": negatives, **extra, **item["rest"]})
    sizes = [len(rows) for rows in chosen]
    within = (found.rows[:, rules.first - 1 : rules.last] >= 0).sum(axis=1)  # candidates at the ranks asked for
    bare = [row for row, size in enumerate(sizes) if size == 0]
    _note(counts, "none", [items[row] for row in bare if within[row]])
    _note(counts, "short", [items[row] for row in bare if not within[row]])
    _note(counts, "few", [item for item, size in zip(items, sizes, strict=True) if 0 < size < rules.negatives])
    counts.update({"written": len(mined), "negatives": sum(sizes)})
    return mined


def _by_reranker(
    items: list[Record],
    orders: list[NDArray[np.int64]],
    corpus: Corpus,
    rules: Rules,
    cross_encoder: CrossEncoder,
    counts: Counter[str],
) -> tuple[list[NDArray[np.int64]], list[dict[str, list[float]]]]:
    """The first of each order that the reranker lets pass, with its logits; scores no more pairs than it must."""
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
            if _relevance(logit) > ceilings[number]:
                counts["refused reranker"] += 1
            else:
                chosen[number].append((row, logit))
    scores = [
        {"pos_scores": [round(x, 6) for x in logits.tolist()], "neg_scores": [round(logit, 6) for _, logit in taken]}
        for logits, taken in zip(positive_logits, chosen, strict=True)
    ]
    return [np.array([row for row, _ in taken], np.int64) for taken in chosen], scores


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


def _note(counts: Counter[str], what: str, items: list[Record]) -> None:
    """Count queries, and keep the first few for the summary."""
    counts[f"queries {what}"] += len(items)
    for item in items:
        if sum(1 for key in counts if key.startswith(f"named {what}: ")) >= _NAMED:
            break
        counts[f"named {what}: {item['query'][:40]}"] += 1
