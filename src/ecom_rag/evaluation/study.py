"""A whole evaluation: figures with intervals, comparisons of runs, contributions of routes, the worst queries.

``study_retrieval`` is for judgements; ``label_study.study_labels`` for labels. Both give a ``Study``, which
``tables`` and ``report`` show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.confusion import Confusion
from ecom_rag.evaluation.contributions import ALL, ablations, evidence_of
from ecom_rag.evaluation.labels import ClassFigures, Curve
from ecom_rag.evaluation.measures import (
    PerQuery,
    cutoff,
    default_measures,
    evaluate_run,
    parse_measures,
    run_notes,
)
from ecom_rag.evaluation.runs import NamedRun
from ecom_rag.files.records import Record
from ecom_rag.files.trec import Qrels
from ecom_rag.judging.significance import RESAMPLES, Comparison, Interval, holm, intervals, paired

WORST = 20
_SHOWN = 3  # candidates of a worst query


@dataclass(frozen=True)
class Found:
    """One candidate of a worst query: its name, text, score and whether it is right."""

    name: str
    text: str
    score: float | None
    mark: str


@dataclass(frozen=True)
class Case:
    """A query that went wrong: what was found, and what should have been."""

    query: str
    text: str
    value: float
    found: Sequence[Found]
    missed: Sequence[Found]


@dataclass(frozen=True)
class Contribution:
    """The run with some of its routes: ``only NAME``, ``without NAME`` or ``all routes``.

    Args:
        what: Which routes.
        means: Measure -> mean.
        against_all: The first measure against ``all routes``; ``None`` for that itself.
    """

    what: str
    means: Mapping[str, float]
    against_all: Comparison | None


@dataclass(frozen=True)
class Pair:
    """Two runs compared by one measure; ``p_holm`` is corrected for the number of pairs."""

    first: str
    second: str
    measure: str
    comparison: Comparison
    p_holm: float


@dataclass
class RunStudy:
    """All about one run; ``intervals`` also has figures that exist only for a whole set, such as macro-F1."""

    name: str
    per_query: PerQuery
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)
    contributions: list[Contribution] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)
    classes: list[ClassFigures] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    confusion: Confusion | None = None


@dataclass
class Study:
    """An evaluation of one or several runs over the same queries."""

    kind: str
    settings: dict[str, Any]
    texts: dict[str, str]
    runs: list[RunStudy]
    pairs: list[Pair]

    @property
    def queries(self) -> tuple[str, ...]:
        """Ids, in the order of every run's per-query figures."""
        return self.runs[0].per_query.queries


def study_retrieval(
    runs: Sequence[NamedRun],
    qrels: Qrels,
    *,
    measures: str | None = None,
    texts: Mapping[str, str] | None = None,
    document_text: Callable[[set[str]], Mapping[str, str]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Evaluate runs against judgements.

    Args:
        runs: At least one.
        qrels: Query id -> document id -> grade.
        measures: Names by ``ir_measures``; by default the usual ones that the runs' depth allows. The first decides
            which queries are the worst.
        texts: Query id -> text, where the runs do not hold it.
        document_text: Gives the texts of documents by id, for the report.
        resamples: Of bootstrap and randomisation.
        seed: Of both.
        settings: Written down with the figures.

    Raises:
        UsageError: An unknown measure, no run, or a run without any judged query.
    """
    if not runs:
        raise UsageError("there is no run to evaluate; give at least one results file")
    if qrels and not any(grade > 0 for judged in qrels.values() for grade in judged.values()):
        raise UsageError(
            f"no document of the {len(qrels)} judged queries is relevant, so nothing can be measured;"
            " expected grades above 0"
        )
    depth = min(run.depth for run in runs)
    names = parse_measures(measures) if measures else default_measures(depth)
    known = {query: result["text"] for run in runs for query, result in run.results.items()}
    known = {query: text for query, text in {**(texts or {}), **known}.items() if query in qrels}
    figures = [_figures(run, qrels, names) for run in runs]
    together = np.concatenate([per_query.values for per_query in figures], axis=1)
    ends = iter(intervals(together, resamples=resamples, seed=seed))
    studies = []
    for run, per_query in zip(runs, figures, strict=True):
        notes = run.notes + run_notes(run.run, qrels) + depth_notes(names, run.depth, chosen=measures is not None)
        studies.append(RunStudy(run.name, per_query, {name: next(ends) for name in per_query.measures}, notes))
        studies[-1].contributions = _retrieval_contributions(run, qrels, names, resamples, seed)
        studies[-1].worst = _worst(run, per_query, qrels, known, document_text)
    return Study("retrieval", dict(settings or {}), known, studies, compare_runs(studies, resamples, seed))


def _figures(run: NamedRun, qrels: Qrels, names: Sequence[str]) -> PerQuery:
    try:
        return evaluate_run(run.run, qrels, names)
    except UsageError as error:
        raise UsageError(f"{run.name}: {error}") from None


def compare_runs(studies: Sequence[RunStudy], resamples: int, seed: int) -> list[Pair]:
    """Every two runs, by every per-query measure; p is corrected over the pairs of a measure."""
    found: list[Pair] = []
    couples = list(combinations(studies, 2))
    places = list(combinations(range(len(studies)), 2))
    results = paired([study.per_query.values for study in studies], places, resamples=resamples, seed=seed)
    for column, measure in enumerate(studies[0].per_query.measures):
        corrected = holm([result[column].p for result in results])
        for (first, second), result, p in zip(couples, results, corrected, strict=True):
            found.append(Pair(first.name, second.name, measure, result[column], p))
    return found


def contributions_of(
    results: Sequence[Record],
    figures: Callable[[NDArray[np.int64]], tuple[NDArray[np.float64], Mapping[str, float]]],
    resamples: int,
    seed: int,
) -> list[Contribution]:
    """Contributions from rankings by subsets of the routes; none where there is no evidence of two routes.

    Args:
        results: With evidence.
        figures: From a ranking, as ``contributions.ablations`` gives them, to the first measure of each query, and to
            all means.
        resamples: Of the test.
        seed: Of the test.
    """
    candidates = evidence_of(results)
    if candidates is None:
        return []
    by_routes = {what: figures(ranking) for what, ranking in ablations(candidates).items()}
    columns = [values[:, None] for values, _ in by_routes.values()]
    base = list(by_routes).index(ALL)
    couples = [(base, place) for place in range(len(columns)) if place != base]
    compared = dict(zip(couples, paired(columns, couples, resamples=resamples, seed=seed), strict=True))
    return [
        Contribution(what, means, None if place == base else compared[base, place][0])
        for place, (what, (_, means)) in enumerate(by_routes.items())
    ]


def depth_notes(names: Sequence[str], depth: int, *, chosen: bool) -> list[str]:
    """What the depth of a run does to its figures."""
    notes = [
        f"{name} is over at most {depth} candidates, since the run holds no more; score with `top_k` {cutoff(name)}"
        for name in names
        if (cutoff(name) or 0) > depth
    ]
    if not chosen and depth < 100:
        notes.append(f"R@100 is left out: the run holds at most {depth} candidates a query; score with `top_k` 100")
    if "AP" in names:
        notes.append(f"AP is over the {depth} candidates that the run holds at most")
    return notes


def candidates_of(result: Record, names: Sequence[str], mark: Callable[[int], str]) -> list[Found]:
    """The first candidates of a result, for a person to read."""
    return [
        Found(names[place], result["topk_seed"][place], float(result["topk_sim"][place]), mark(place))
        for place in range(min(_SHOWN, len(names)))
    ]


def _retrieval_contributions(
    run: NamedRun, qrels: Qrels, names: Sequence[str], resamples: int, seed: int
) -> list[Contribution]:
    queries = [query for query in run.results if query in qrels]

    def figures(ranking: NDArray[np.int64]) -> tuple[NDArray[np.float64], Mapping[str, float]]:
        order = {
            query: [run.run[query][place] for place in places if place >= 0]
            for query, places in zip(queries, ranking.tolist(), strict=True)
        }
        per_query = evaluate_run(order, qrels, names)
        return per_query.values[:, 0], per_query.means()

    return contributions_of([run.results[query] for query in queries], figures, resamples, seed)


def _worst(
    run: NamedRun,
    per_query: PerQuery,
    qrels: Qrels,
    texts: Mapping[str, str],
    document_text: Callable[[set[str]], Mapping[str, str]] | None,
) -> list[Case]:
    rows = np.argsort(per_query.values[:, 0], kind="stable")[:WORST]
    rows = rows[per_query.values[rows, 0] < 1]
    queries = [(per_query.queries[row], float(per_query.values[row, 0])) for row in rows.tolist()]
    missed_of = {
        query: [name for name, grade in qrels[query].items() if grade > 0 and name not in run.run.get(query, ())[:10]]
        for query, _ in queries
    }
    wanted = {name for names in missed_of.values() for name in names[:_SHOWN]}
    known = document_text(wanted) if document_text is not None else {}
    cases = []
    for query, value in queries:
        names, result, judged = run.run.get(query, []), run.results.get(query), qrels[query]
        marks = [f"grade {judged[name]}" if name in judged else "not judged" for name in names]
        if result is not None:
            found = candidates_of(result, names, marks.__getitem__)
        else:
            found = [Found(name, "", None, mark) for name, mark in zip(names[:_SHOWN], marks, strict=False)]
        missed = [Found(name, known.get(name, ""), None, f"grade {judged[name]}") for name in missed_of[query][:_SHOWN]]
        cases.append(Case(query, texts.get(query, ""), value, found, missed))
    return cases
