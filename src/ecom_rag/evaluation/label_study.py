"""An evaluation by labels: each query's own label against the labels of the seeds that were found for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.confusion import confusion
from ecom_rag.evaluation.labels import (
    Votes,
    class_figures,
    macro_f1,
    macro_f1_interval,
    paired_macro_f1,
    pr_curve,
    vote,
)
from ecom_rag.evaluation.measures import PerQuery, evaluate_run, parse_measures
from ecom_rag.evaluation.runs import NamedRun
from ecom_rag.evaluation.study import (
    WORST,
    Case,
    Contribution,
    Pair,
    RunStudy,
    Study,
    candidates_of,
    compare_runs,
    contributions_of,
    depth_notes,
)
from ecom_rag.files.identity import as_label, required_label
from ecom_rag.judging.significance import RESAMPLES, Interval, holm, intervals

MACRO_F1 = "macro-F1"
_CURVES = 12  # of the most frequent classes, in the report
_WITHOUT_TOTALS = ("P", "RR", "Success")


@dataclass(frozen=True, slots=True)
class ByLabel:
    """How results are evaluated by labels.

    Args:
        label_key: Metadata key of the labels, ``a.b`` for nested ones.
        votes: Ask the nearest so many seeds; by default all of a result.
        fixed_precision: For the recall at a fixed precision.
        positive: A class to report on by itself.
        measures: ``P@k``, ``RR@k``, ``Success@k`` by label; others need all relevant seeds, which results do not hold.
        resamples: Of bootstrap and randomisation.
        seed: Of both.
    """

    label_key: str = "label"
    votes: int | None = None
    fixed_precision: float = 0.9
    positive: str | None = None
    measures: str | None = None
    resamples: int = RESAMPLES
    seed: int = 0


def study_labels(runs: Sequence[NamedRun], asked: ByLabel, *, settings: Mapping[str, Any]) -> Study:
    """Evaluate results by the vote of their seeds' labels.

    Args:
        runs: As ``load_labelled`` reads them, over the same queries.
        asked: What is voted and measured.
        settings: Written down with the figures.

    Raises:
        UsageError: An unknown measure or positive class, or options out of range.
    """
    _check(asked)
    names = _measures(asked.measures, min(run.depth for run in runs))
    truth = _truth(runs, asked.label_key)
    positive = _positive(asked.positive, truth)
    texts = {query: result["text"] for query, result in runs[0].results.items()}
    studies, ballots = [], []
    for run in runs:
        labels = _labels(run, asked.label_key)
        cast = vote(truth, labels, k=asked.votes)
        study = _run_study(run, labels, cast, truth, names, asked)
        if positive is not None:
            chosen = next(one for one in study.classes if one.label == positive)
            study.intervals[f"AP({positive})"] = _point(chosen.average_precision)
            study.intervals[f"R@P{asked.fixed_precision:g}({positive})"] = _point(chosen.recall_at_precision)
        study.notes += depth_notes(names, run.depth, chosen=True)
        if asked.votes is not None and asked.votes > run.depth:
            held = f"the results hold at most {run.depth} seeds a query"
            study.notes.append(f"{asked.votes} votes were asked for, {held}")
        study.contributions = _contributions(run, labels, truth, asked)
        studies.append(study)
        ballots.append(cast)
    pairs = compare_runs(studies, asked.resamples, asked.seed) + _compare_f1(studies, ballots, asked)
    return Study("labels", dict(settings), texts, studies, pairs)


def _run_study(
    run: NamedRun, labels: list[list[str]], cast: Votes, truth: list[str], names: Sequence[str], asked: ByLabel
) -> RunStudy:
    draws = {"resamples": asked.resamples, "seed": asked.seed}
    hits = {
        query: {str(place): int(label == own) for place, label in enumerate(found)} or {"": 0}
        for query, found, own in zip(run.run, labels, truth, strict=True)
    }
    by_rank = evaluate_run(run.run, hits, names)
    values = np.column_stack([cast.correct, by_rank.values])
    per_query = PerQuery(tuple(run.run), ("accuracy", *by_rank.measures), values)
    ends = dict(zip(per_query.measures, intervals(values, **draws), strict=True))
    classes = class_figures(cast, fixed_precision=asked.fixed_precision)
    own = [one for one in classes if one.support]
    figures = {
        "accuracy": ends.pop("accuracy"),
        MACRO_F1: macro_f1_interval(cast, **draws),
        "macro-recall": _point(float(np.mean([one.recall for one in own]))),
        "macro-AP": _point(float(np.mean([one.average_precision for one in own]))),
        **ends,
    }
    study = RunStudy(run.name, per_query, figures, list(run.notes), classes=classes, confusion=confusion(cast))
    unanswered = int((cast.predicted < 0).sum())
    if unanswered:
        study.notes.append(f"{unanswered} of {len(truth)} queries have no seeds to vote; they count as wrong")
    for one in own[:_CURVES]:
        index = cast.classes.index(one.label)
        study.curves[one.label] = pr_curve(cast.truth == index, cast.shares[:, index])
    study.worst = _worst(run, labels, cast)
    return study


def _worst(run: NamedRun, labels: list[list[str]], cast: Votes) -> list[Case]:
    """The most confident mistakes."""
    share = np.where(cast.predicted >= 0, cast.shares.max(axis=1, initial=0.0), 1.0)
    wrong = np.flatnonzero(cast.correct == 0)
    rows = wrong[np.argsort(-share[wrong], kind="stable")][:WORST]
    queries = list(run.run)
    cases = []
    for row in rows.tolist():
        result, found, own = run.results[queries[row]], labels[row], cast.classes[cast.truth[row]]
        marks = ["right" if label == own else "wrong" for label in found]
        text = f"{result['text']}  [{own}]"
        cases.append(Case(queries[row], text, float(share[row]), candidates_of(result, found, marks.__getitem__), []))
    return cases


def _contributions(run: NamedRun, labels: list[list[str]], truth: list[str], asked: ByLabel) -> list[Contribution]:
    def figures(ranking: NDArray[np.int64]) -> tuple[NDArray[np.float64], Mapping[str, float]]:
        order = [
            [found[place] for place in places if place >= 0]
            for found, places in zip(labels, ranking.tolist(), strict=True)
        ]
        cast = vote(truth, order, k=asked.votes)
        return cast.correct, {"accuracy": float(cast.correct.mean()), MACRO_F1: macro_f1(cast)}

    return contributions_of(list(run.results.values()), figures, asked.resamples, asked.seed)


def _compare_f1(studies: Sequence[RunStudy], ballots: Sequence[Votes], asked: ByLabel) -> list[Pair]:
    couples = list(combinations(range(len(studies)), 2))
    found = paired_macro_f1(ballots, couples, resamples=asked.resamples, seed=asked.seed)
    corrected = holm([one.p for one in found])
    return [
        Pair(studies[i].name, studies[j].name, MACRO_F1, one, p)
        for (i, j), one, p in zip(couples, found, corrected, strict=True)
    ]


def _measures(measures: str | None, depth: int) -> tuple[str, ...]:
    k = min(10, max(depth, 1))
    names = parse_measures(measures or f"P@{k} RR@{k} Success@{k}")
    for name in names:
        if name.partition("@")[0].partition("(")[0] not in _WITHOUT_TOTALS:
            raise UsageError(
                f"{name} needs to know all relevant seeds, which results with labels do not say; expected"
                f" {', '.join(one + '@k' for one in _WITHOUT_TOTALS)}, or give `qrels`"
            )
    return names


def _check(asked: ByLabel) -> None:
    if not 0 < asked.fixed_precision <= 1:
        raise UsageError(
            f"the fixed precision is {asked.fixed_precision}; expected more than 0 and at most 1, e.g. 0.9"
        )
    if asked.votes is not None and asked.votes < 1:
        raise UsageError(f"votes is {asked.votes}; expected at least 1")


def _positive(given: str | None, truth: Sequence[str]) -> str | None:
    label = as_label(given)
    if given is not None and label not in truth:
        raise UsageError(f"no query has the label {given!r}; labels found: {', '.join(sorted(set(truth))[:8])}")
    return label


def _truth(runs: Sequence[NamedRun], label_key: str) -> list[str]:
    if not runs:
        raise UsageError("there is no run to evaluate; give at least one results file")
    own = [[required_label(one["metadata"], label_key, "the query") for one in run.results.values()] for run in runs]
    for run, labels in zip(runs, own, strict=True):
        if labels != own[0]:
            raise UsageError(
                f"{runs[0].name} and {run.name} give their queries different labels;"
                " compare results of the same query file"
            )
    return own[0]


def _labels(run: NamedRun, label_key: str) -> list[list[str]]:
    return [
        [required_label(metadata, label_key, "candidate") for metadata in result["topk_metadata"]]
        for result in run.results.values()
    ]


def _point(value: float) -> Interval:
    """A figure for which no interval is worked out."""
    return Interval(value, float("nan"), float("nan"))
