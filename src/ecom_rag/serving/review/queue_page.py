"""The page with the queue and the item that a person has open."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ecom_rag.errors import UsageError
from ecom_rag.filters.parse import parse
from ecom_rag.serving.journal import clock, overview
from ecom_rag.serving.review.acts import snippet, told
from ecom_rag.serving.review.hidden import visible
from ecom_rag.serving.review.languages import Chosen, chosen_of
from ecom_rag.serving.review.looks import look_at
from ecom_rag.serving.review.pages import render, with_query
from ecom_rag.serving.review.review import Labels, Review

QUEUES = ("review", "escalated")
REASONS = ("flood", "below_threshold", "seeds_disagree", "no_guarantee", "no_similar_seed", "policy")
_LISTED = 30
_KEYS = 9
_VIEWS = 10_000


class Views:
    """Which view of a page showed a lease last, so that a page that is left late does not end a newer one's lease."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()

    def new(self, lease: str) -> str:
        """The name of a view of the item with this lease."""
        self._of.pop(lease, None)
        self._of[lease] = secrets.token_hex(8)
        if len(self._of) > _VIEWS:
            self._of.popitem(last=False)
        return self._of[lease]

    def is_last(self, lease: str, view: str) -> bool:
        """Whether no later view has shown the lease."""
        return self._of.get(lease) == view


@dataclass(frozen=True, slots=True)
class Choices:
    """Labels as they are offered.

    Args:
        numbered: Keys and labels, in the order of the bank.
        others: Labels that a field offers, where there are more than keys.
        innocent: The label that key 0 gives; ``None`` where the bank has none for it.
    """

    numbered: list[tuple[str, str]]
    others: list[str]
    innocent: str | None


def choices_of(labels: Labels) -> Choices:
    """Give labels their keys: 1 to 9, or 1 to 8 and key 9 for a field with the others."""
    innocent = next(iter(labels.innocent), None)
    names = [label for label in labels.names if label != innocent]
    shown = names if len(names) <= _KEYS else names[: _KEYS - 1]
    return Choices([(str(key), label) for key, label in enumerate(shown, 1)], names[len(shown) :], innocent)


def add_queue(router: APIRouter, review: Review, views: Views) -> None:
    """Add the page.

    Args:
        router: Gets it.
        review: What it shows.
        views: Of its items.
    """

    @router.get("")
    def show(request: Request) -> Response:
        actor = review.person(request)
        wanted = request.query_params.get("filter", "").strip()
        queue = request.query_params.get("queue", "review")
        queue = queue if queue in QUEUES else "review"
        wrong, listed = None, []
        try:
            expression = parse(wanted) if wanted else None
            page = review.journal.waiting(expression, limit=_LISTED)
            listed = list(zip(page.items, page.sizes, strict=True))
        except UsageError as error:
            wrong = visible(str(error))
        opened = overview.open_item(review.journal, actor)
        if opened is None and wrong is None:
            seconds = review.lease_seconds
            review.journal.next(actor, queue=queue, filter=expression, lease_seconds=seconds)
            opened = overview.open_item(review.journal, actor)
        return render(
            request,
            "queue.html",
            actor,
            filter=wanted,
            filter_wrong=wrong,
            queue=queue,
            counts=review.journal.counts(),
            listed=listed,
            reasons=REASONS,
            notice=_notice(review, request, actor),
            link=lambda path="", **query: with_query(request, f"/review{path}", **query),
            snippet=snippet,
            quoted=_quoted,
            **_opened(review, opened, views),
        )


def _opened(review: Review, opened: tuple[Any, bool] | None, views: Views) -> dict[str, Any]:
    """What the template needs of the open item."""
    if opened is None:
        return {"item": None}
    item, _ = opened
    look = look_at(review, item.bank, item.record)
    return {
        "item": item,
        "look": look,
        "choices": choices_of(review.labels(item.bank)),
        "view": views.new(item.lease),
        "age_seconds": max(0.0, (clock.wall() - item.time) / 1e6),
    }


def _notice(review: Review, request: Request, actor: str) -> tuple[str, str, str] | None:
    """What the page says of the last action: its kind, a sentence, and the text that it is of."""
    said, decision = request.query_params.get("said", ""), request.query_params.get("of", "")
    chosen = chosen_of(request)
    pair = overview.second_pair(review.journal, decision, actor) if said == "second" else None
    if said == "second" and pair is not None:
        return _compared(chosen, *pair, snippet(_text(review, decision)))
    sentence = _sentence(chosen, said, request.query_params)
    if sentence is None:
        return None
    kind = "bad" if said in ("lost", "label", "failed", "empty_note") else "good"
    return kind, sentence, snippet(_text(review, decision)) if decision else ""


def _sentence(chosen: Chosen, said: str, query: Mapping[str, str]) -> str | None:
    """The sentence of a plain notice; ``None`` for none."""
    if said == "verdict":
        more = query.get("settled", "0")
        label = visible(query.get("label", ""))
        settled = chosen.say("said_settled", count=more) if more.isdigit() and more != "0" else ""
        return f"{chosen.say('said_verdict', label=label)} {settled}".strip()
    if said == "undo":
        return chosen.say("said_undo", what=visible(query.get("what", "")))
    if said == "seed":
        return chosen.say("said_seed", id=visible(query.get("seed", "")), bank=visible(query.get("bank", "")))
    if said == "failed":
        return chosen.say("said_failed", why=visible(query.get("why", "")))
    plain = ("skip", "escalate", "note", "release", "nothing_to_undo", "lost", "label", "empty_note")
    return chosen.say(f"said_{said}") if said in plain else None


def _compared(chosen: Chosen, first: Any, second: Any, text: str) -> tuple[str, str, str]:
    own, other = visible(second.body["label"]), visible(first.body["label"])
    if own == other:
        return "good", chosen.say("said_agree", own=own), text
    sentence = chosen.say("said_differ", own=own, name=visible(first.actor), other=other)
    notes = [told(chosen, one) for one in (second, first) if one.body.get("note")]
    return "differ", " ".join([sentence, *notes]), text


def _text(review: Review, decision: str) -> str:
    try:
        return str(review.journal.get(decision).record["text"])
    except UsageError:
        return ""


def _quoted(value: str) -> str:
    """A string of our filter grammar."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
