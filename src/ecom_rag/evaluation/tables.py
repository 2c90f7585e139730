"""A study as text for a terminal, as JSON for a program, and as one row a query."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ecom_rag.evaluation.study import Pair, Study
from ecom_rag.judging.significance import Comparison, Interval
from ecom_rag.text.printing import printable

_CLASSES = 30  # on a terminal


def as_text(study: Study) -> str:
    """Tables for a terminal: figures with intervals, comparisons, classes, contributions, notes."""
    measures = list(study.runs[0].intervals)
    parts = [
        f"{len(study.queries)} queries; mean [95 % interval]",
        table(
            ["", *(run.name for run in study.runs)],
            [[name, *(interval_text(run.intervals[name]) for run in study.runs)] for name in measures],
        ),
    ]
    pairs = shown_pairs(study)
    if pairs:
        parts.append("paired differences, second minus first [95 % interval], p of the randomisation test")
        head = ["", "measure", "difference", "p", *(["p (Holm)"] if len(study.runs) > 2 else []), "better/equal/worse"]
        parts.append(table(head, [pair_cells(one, corrected=len(study.runs) > 2) for one in pairs]))
    for run in study.runs:
        own = [one for one in run.classes if one.support]
        if own:
            shown = own if len(own) <= _CLASSES else own[:_CLASSES]
            more = (
                f" ({len(own) - len(shown)} rarer ones in the report and in `output`)" if len(shown) < len(own) else ""
            )
            parts.append(f"{printable(run.name)}: classes{more}")
            parts.append(table(list(CLASS_HEAD), [class_cells(one) for one in shown]))
        if run.contributions:
            parts.append(
                f"{printable(run.name)}: what the routes contribute, by reciprocal rank over the candidates kept"
            )
            parts.append(table(*contribution_cells(run.contributions)))
        if run.notes:
            parts.append("\n".join(printable(f"note: {run.name}: {note}") for note in run.notes))
    return "\n\n".join(parts) + "\n"


def as_json(study: Study) -> dict[str, Any]:
    """Everything but the texts and the per-query figures, with plain numbers; NaN becomes null."""
    content: dict[str, Any] = _plain(
        {
            "kind": study.kind,
            "settings": study.settings,
            "queries": len(study.queries),
            "runs": [
                {
                    "name": run.name,
                    "figures": {name: asdict(one) for name, one in run.intervals.items()},
                    **({"classes": [asdict(one) for one in run.classes]} if run.classes else {}),
                    **({"contributions": [asdict(one) for one in run.contributions]} if run.contributions else {}),
                    "notes": run.notes,
                }
                for run in study.runs
            ],
            "pairs": [asdict(pair) for pair in study.pairs],
        }
    )
    return content


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """One row a query and run: ``query``, ``text``, ``run`` and a column for each measure."""
    for run in study.runs:
        for query, values in zip(run.per_query.queries, run.per_query.values.tolist(), strict=True):
            figures = dict(zip(run.per_query.measures, values, strict=True))
            yield {"query": query, "text": study.texts.get(query, ""), "run": run.name, **figures}


def shown_pairs(study: Study) -> list[Pair]:
    """All measures where two runs are compared; of more runs the first measure and what is for the whole set."""
    return [pair for pair in study.pairs if len(study.runs) == 2 or pair.measure in deciding(study)]


def deciding(study: Study) -> set[str]:
    """The first measure, and those that no single query has, such as macro-F1."""
    run = study.runs[0]
    return {run.per_query.measures[0], *set(run.intervals).difference(run.per_query.measures)}


CLASS_HEAD = ("class", "support", "voted", "precision", "recall", "F1", "AP", "R at fixed P")


def class_cells(one: Any) -> list[str]:
    """A row of the table of classes."""
    figures = (one.precision, one.recall, one.f1, one.average_precision, one.recall_at_precision)
    return [one.label, str(one.support), str(one.predicted), *(number(value) for value in figures)]


def pair_cells(pair: Pair, *, corrected: bool) -> list[str]:
    """A row of the table of comparisons."""
    one = pair.comparison
    holm = [p_text(pair.p_holm)] if corrected else []
    counts = f"{one.better}/{one.equal}/{one.worse}"
    return [f"{pair.first} -> {pair.second}", pair.measure, _difference(one), p_text(one.p), *holm, counts]


def contribution_cells(contributions: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of contributions."""
    shown = list(contributions[0].means)[:4]
    body = []
    for one in contributions:
        against = one.against_all
        tested = [_difference(against), p_text(against.p)] if against else ["", ""]
        body.append([one.what, *(number(one.means[name]) for name in shown), *tested])
    return ["", *shown, f"{shown[0]} against all", "p"], body


def _difference(one: Comparison) -> str:
    return f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def interval_text(one: Interval) -> str:
    """``0.6451 [0.5956, 0.6921]``; without ends where there are none."""
    if math.isnan(one.low):
        return number(one.mean)
    return f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]"


def number(value: float) -> str:
    """Four digits, ``-`` for none."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def p_text(p: float) -> str:
    """Four digits, but never 0."""
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def table(head: list[str], body: list[list[str]]) -> str:
    """Columns aligned by display width, since labels may be Chinese; escapes in them are shown, not obeyed."""
    lines = [[printable(cell) for cell in line] for line in (head, *body)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell + " " * (w - width(cell)) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def width(text: str) -> int:
    """Terminal columns; East Asian wide characters take two."""
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
