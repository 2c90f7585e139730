"""An item as the page shows it: the text in pieces, the decision in figures, and the seeds for and against."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.decision.guarantee import percent
from ecom_rag.decision.policy import Policy
from ecom_rag.files.identity import known_id, label_of
from ecom_rag.files.json_text import dumps
from ecom_rag.files.results import EVIDENCE
from ecom_rag.serving.review.hidden import Piece, pieces
from ecom_rag.serving.review.marks import marks_of
from ecom_rag.serving.review.review import Review
from ecom_rag.serving.review.spelled import Reading

ROUTES = ("dense", "sparse", "multivector", "bm25", "variant")


@dataclass(frozen=True, slots=True)
class Bar:
    """What a route says of a seed.

    Args:
        route: Its name.
        score: As of the route.
        rank: From 1.
        width: 0 to 100: the score's share of the largest one of the route.
    """

    route: str
    score: float
    rank: int
    width: float


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed beside the item.

    Args:
        number: Place among the results, from 1.
        text: What it says.
        label: Its label; ``None`` for none.
        id: Its id; ``None`` for none.
        similarity: Of the fused ranking.
        bars: By route.
        metadata: Further values, each in one line.
    """

    number: int
    text: str
    label: str | None
    id: str | None
    similarity: float
    bars: list[Bar]
    metadata: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Promise:
    """What the policy promises of decisions without a person.

    Args:
        labels: Of which; several that share one promise.
        precision: Share of right ones, in words.
        confidence: In words.
        jointly: Whether the confidence is for all labels at once.
    """

    labels: tuple[str, ...]
    precision: str
    confidence: str
    jointly: bool


@dataclass(frozen=True, slots=True)
class Look:
    """All that is shown of an item.

    Args:
        text: In pieces.
        readings: Evasive spellings.
        hidden: Names of hidden characters and how often each occurs.
        routes: That mark the text, for the legend.
        metadata: Values, each in one line.
        decision: As it is in the record.
        promise: Of the label's automatic decisions; ``None`` for none.
        seeds_for: With the label of the decision.
        seeds_against: With other labels, or none.
    """

    text: list[Piece]
    readings: list[Reading]
    hidden: dict[str, int]
    routes: list[str]
    metadata: list[tuple[str, str]]
    decision: Mapping[str, Any]
    promise: Promise | None
    seeds_for: list[Seed] = field(default_factory=list)
    seeds_against: list[Seed] = field(default_factory=list)


def look_at(review: Review, bank: str, record: Mapping[str, Any]) -> Look:
    """Prepare an item.

    Args:
        review: The page.
        bank: That it was decided over.
        record: As it was decided.
    """
    spans, read = marks_of(record)
    shown = pieces(record["text"], spans)
    hidden: dict[str, int] = {}
    for piece in shown:
        if piece.name:
            hidden[piece.name] = hidden.get(piece.name, 0) + 1
    decision = record["decision"]
    label = decision.get("label")
    promise = _promise(review.policy(bank), label)
    routes = sorted({route for piece in shown for route in piece.routes})
    found = Look(shown, read, hidden, routes, _lines(record["metadata"]), decision, promise)
    for seed in _seeds(review, bank, record):
        (found.seeds_for if seed.label is not None and seed.label == label else found.seeds_against).append(seed)
    return found


def _promise(policy: Policy | None, label: str | None) -> Promise | None:
    rule = None if policy is None else policy.classes.get(label or "")
    if policy is None or rule is None or rule.threshold is None:
        return None
    guarantee = policy.guarantee
    labels = tuple(rule.pool) or (str(label),)
    return Promise(labels, percent(rule.target), percent(1 - guarantee.delta), guarantee.jointly)


def _seeds(review: Review, bank: str, record: Mapping[str, Any]) -> list[Seed]:
    key = review.label_key_of(bank)
    evidence = record.get(EVIDENCE) or [{} for _ in record["topk_seed"]]
    highest: dict[str, float] = {}
    for routes in evidence:
        for route, one in routes.items():
            highest[route] = max(highest.get(route, 0.0), float(one["score"]))
    columns = (record["topk_seed"], record["topk_metadata"], record["topk_sim"], evidence)
    return [
        Seed(
            number,
            text,
            label_in(metadata, key),
            known_id(metadata, review.id_key),
            float(similarity),
            _bars(routes, highest),
            [line for line in _lines(metadata) if line[0] not in (review.id_key, key)],
        )
        for number, (text, metadata, similarity, routes) in enumerate(zip(*columns, strict=True), 1)
    ]


def _bars(routes: Mapping[str, Any], highest: Mapping[str, float]) -> list[Bar]:
    known = [route for route in ROUTES if route in routes] + sorted(set(routes) - set(ROUTES))
    found = []
    for route in known:
        score, rank = float(routes[route]["score"]), int(routes[route]["rank"])
        width = 100 * max(0.0, score) / highest[route] if highest[route] > 0 else 0.0
        found.append(Bar(route, score, rank, round(width, 1)))
    return found


def label_in(metadata: Any, key: str) -> str | None:
    """The label of metadata; ``None`` where there is none, or what cannot be one."""
    try:
        return label_of(metadata, key)
    except ValueError:
        return None


def _lines(metadata: Any) -> list[tuple[str, str]]:
    if not isinstance(metadata, Mapping):
        return []
    return [(str(key), value if isinstance(value, str) else dumps(value).decode()) for key, value in metadata.items()]
