"""The verdict of an evaluation in a sentence or two: which run is better, by how much, and how sure that is."""

import math
from collections.abc import Sequence

from ecom_rag.evaluation.study import Pair, Study
from ecom_rag.evaluation.tables import deciding, number, p_text
from ecom_rag.judging.significance import Comparison, Interval

LEVEL = 0.05
RULE = f"Bold and significant: the 95% interval of the difference excludes zero and p is below {LEVEL}"
_NAMED = 3  # runs named one by one; of more their number is said
_FIGURES = 3  # of a single run


def verdict(study: Study) -> list[str]:
    """Sentences that follow from the figures alone; one for each measure that decides.

    The first measure decides, and with labels also what is computed over the whole set, such as macro-F1.
    """
    if len(study.runs) == 1:
        return [_one_run(study)]
    compared = [name for name in dict.fromkeys(pair.measure for pair in study.pairs) if name in deciding(study)]
    return [_of_two(study, name) if len(study.runs) == 2 else _of_many(study, name) for name in compared]


def significant(one: Comparison, p: float) -> bool:
    """Whether the interval of a difference excludes zero and its p, corrected where several are compared, is small."""
    return (one.low > 0 or one.high < 0) and p < LEVEL


def _one_run(study: Study) -> str:
    run = study.runs[0]
    shown = list(run.intervals.items())[:_FIGURES]
    figures = [f"{name} {_between(one)}" for name, one in shown]
    said = figures[0] if len(figures) == 1 else f"{', '.join(figures[:-1])} and {figures[-1]}"
    return f"{run.name} reaches {said} on {len(study.queries)} queries."


def _between(one: Interval) -> str:
    ends = "" if math.isnan(one.low) else f" (95% interval {one.low:.4f} to {one.high:.4f})"
    return number(one.mean) + ends


def _of_two(study: Study, measure: str) -> str:
    [pair] = [one for one in study.pairs if one.measure == measure]
    first, second = study.runs
    means = f"{second.intervals[measure].mean:.4f} against {first.intervals[measure].mean:.4f}"
    said = f"{measure} {means}, {_difference(pair.comparison, pair.p_holm)}"
    if not significant(pair.comparison, pair.p_holm):
        return f"No significant difference between {first.name} and {second.name}: {said}."
    better = "better" if pair.comparison.difference > 0 else "worse"
    return f"{second.name} is significantly {better} than {first.name}: {said}."


def _difference(one: Comparison, p: float) -> str:
    interval = f"95% interval {one.low:+.4f} to {one.high:+.4f}"
    return f"a difference of {one.difference:+.4f} ({interval}, p {p_text(p)})"


def _of_many(study: Study, measure: str) -> str:
    best = max(study.runs, key=lambda run: run.intervals[measure].mean)
    beaten: list[str] = []
    level: list[str] = []
    for pair in (one for one in study.pairs if one.measure == measure and best.name in (one.first, one.second)):
        other = pair.first if pair.second == best.name else pair.second
        (beaten if significant(pair.comparison, pair.p_holm) else level).append(_against(pair, other, best.name))
    parts = []
    if beaten:
        parts.append(f"significantly better than {_listed(beaten)}")
    if level:
        parts.append(f"no significant difference from {_listed(level)}")
    mean = best.intervals[measure].mean
    return f"{best.name} has the highest {measure} of {len(study.runs)} runs, {mean:.4f}: {'; '.join(parts)}."


def _against(pair: Pair, other: str, best: str) -> str:
    gain = pair.comparison.difference if pair.second == best else -pair.comparison.difference
    return f"{other} ({gain:+.4f}, p {p_text(pair.p_holm)} after Holm)"


def _listed(runs: Sequence[str]) -> str:
    return ", ".join(runs) if len(runs) <= _NAMED else f"{len(runs)} other runs"
