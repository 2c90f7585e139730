"""Figures of the review: the queue, the decisions, agreement, and whether automatic decisions keep their promise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ecom_rag.decision.monitor import Monitored, Watched, watch
from ecom_rag.decision.promises import Promise
from ecom_rag.evaluation.charts import COLOURS, ticks
from ecom_rag.files.records import Record
from ecom_rag.serving.journal import overview
from ecom_rag.serving.review.pages import render
from ecom_rag.serving.review.review import Review

STATES = ("automatic", "waiting", "answered", "escalated", "settled")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 300, 56, 16, 14, 44
_POINTS = 400
_LOWEST, _HIGHEST = -3.0, 6.0  # powers of ten that are drawn


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of e-values, ready for the template.

    Args:
        width: Of the drawing.
        height: Of the drawing.
        left: Where the plot begins.
        right: Where it ends.
        bottom: Where it ends below.
        x: Places and names of the lower axis.
        y: Places and names of the left axis.
        alarm: Height of the alarm's line.
        lines: Points of each label.
    """

    width: int
    height: int
    left: int
    right: int
    bottom: int
    x: list[tuple[float, str]]
    y: list[tuple[float, str]]
    alarm: float
    lines: list[str]


def add_dashboard(router: APIRouter, review: Review) -> None:
    """Add the page.

    Args:
        router: Gets it.
        review: Whose journal it shows.
    """

    @router.get("/dashboard")
    def show(request: Request) -> Response:
        actor = review.person(request)
        journal = review.journal
        watched = [(bank, found) for bank in review.banks() if (found := watched_bank(review, bank)) is not None]
        return render(
            request,
            "dashboard.html",
            actor,
            counts=journal.counts(),
            states=STATES,
            decisions=_table(overview.tallies(journal)),
            agreement=journal.agreement(),
            days=overview.per_day(journal),
            differing=overview.differing(journal),
            watched=[(bank, found, chart_of(found)) for bank, found in watched],
            colours=COLOURS,
        )


def watched_bank(review: Review, bank: str) -> Monitored | None:
    """What ``decision.monitor`` says of the verdicts on a bank's automatic decisions.

    Args:
        review: Whose journal is read.
        bank: Its name.

    Returns:
        One entry per label with a threshold; ``None`` without a policy that promises something.
    """
    policy = review.policy(bank)
    rules = () if policy is None else policy.classes.items()
    promises = [Promise(label, rule.target, rule.threshold) for label, rule in rules if rule.threshold is not None]
    if not promises:
        return None
    key = review.label_key_of(bank)
    return watch(_placed(review.journal.export("decided", label_key=key, bank=bank)), promises, label_key=key)


def chart_of(found: Monitored) -> Chart | None:
    """Draw the e-values of the labels of which decisions were checked; ``None`` where none was."""
    classes = [one for one in found.classes if len(one.wrong)]
    if not classes:
        return None
    paths = [_path(one) for one in classes]
    line = math.log10(1 / classes[0].alpha)
    low = max(_LOWEST, math.floor(min(-1.0, *(logs.min() for _, logs in paths), 0.0)))
    high = min(_HIGHEST, math.ceil(max(line + 0.3, *(logs.max() for _, logs in paths))))
    last = max(len(one.wrong) for one in classes)

    def x(count: float) -> float:
        return round(_LEFT + count / last * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(power: float) -> float:
        return round(float(_TOP + (high - min(max(power, low), high)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)), 1)

    return Chart(
        *(_WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        x=[(x(value), said) for value, said in ticks(0, last, whole=True)] if last > 1 else [(x(0), "0"), (x(1), "1")],
        y=[(y(power), f"{10.0**power:g}") for power in range(math.ceil(low), math.floor(high) + 1)],
        alarm=y(line),
        lines=[
            " ".join(f"{x(n)},{y(v)}" for n, v in zip(counts.tolist(), logs.tolist(), strict=True))
            for counts, logs in paths
        ],
    )


def _path(one: Watched) -> tuple[Any, Any]:
    """Counts of decisions and the powers of ten of the e-value, from 0 decisions on; some points of a long line."""
    logs = np.concatenate([[0.0], one.log_wealth / math.log(10)])
    kept = np.unique(np.linspace(0, len(logs) - 1, min(len(logs), _POINTS)).round().astype(np.int64))
    return kept, logs[kept]


def _placed(records: Iterator[Record]) -> Iterator[tuple[str, Record]]:
    """Records with their places; one without a campaign is a campaign of its own."""
    for number, record in enumerate(records, 1):
        own = record["decision"].get("campaign") or f"record {number}"
        yield f"record {number}", {**record, "decision": {**record["decision"], "campaign": own}}


def _table(rows: Sequence[tuple[str, str, int]]) -> list[tuple[str, list[int]]]:
    """Numbers by label and state, a row per label."""
    found: dict[str, dict[str, int]] = {}
    for label, state, count in rows:
        found.setdefault(label, {})[state] = count
    return [(label, [counts.get(state, 0) for state in STATES]) for label, counts in found.items()]
