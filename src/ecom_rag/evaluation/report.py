"""The HTML report of an evaluation."""

from collections.abc import Iterator
from html import escape

from ecom_rag.evaluation import charts
from ecom_rag.evaluation.page import Section, confusion_table, cut, document, made_of, note, table
from ecom_rag.evaluation.study import Case, Found, RunStudy, Study
from ecom_rag.evaluation.tables import (
    CLASS_HEAD,
    class_cells,
    contribution_cells,
    interval_text,
    pair_cells,
    shown_pairs,
)
from ecom_rag.evaluation.verdict import RULE, significant, verdict

_PACKAGES = ("numpy", "scipy", "ir-measures")  # that the figures depend on
_CONFUSION = "Rows: the class that the query has. Columns: the class that its seeds vote for. Numbers are queries"


def as_html(study: Study, *, title: str = "Evaluation", made_by: str) -> str:
    """A study as one self-contained page, readable on a telephone, on paper and on a dark screen.

    Args:
        study: What is shown.
        title: The heading.
        made_by: The command line or the Python call that gives the study.

    Returns:
        HTML; the same text for the same study on one day, which ``SOURCE_DATE_EPOCH`` can set.
    """
    sections = [_figures(study), *_comparison(study)]
    for number, run in enumerate(study.runs, start=1):
        sections += _run(run, study, f"run-{number}")
    return document(title, verdict(study), _made(study, made_by), sections)


def _made(study: Study, command: str) -> str:
    settings = "; ".join(f"{key}: {value}" for key, value in study.settings.items() if value is not None)
    return made_of(command, {"Data": f"{len(study.queries)} queries; {settings}"}, _PACKAGES)


def _figures(study: Study) -> Section:
    measures = list(study.runs[0].intervals)
    body = [[name, *(interval_text(run.intervals[name]) for run in study.runs)] for name in measures]
    by_query = study.runs[0].per_query.measures[0]
    figures = {run.name: run.per_query.of(by_query) for run in study.runs}
    content = (
        table(["measure", *(run.name for run in study.runs)], body)
        + note("Mean over queries, with the 95% interval of a bootstrap over queries. Higher is better.")
        + charts.intervals({run.name: run.intervals[measures[0]] for run in study.runs}, measures[0])
        + (charts.histogram(figures, by_query) if study.kind == "retrieval" else "")
    )
    return Section(2, "figures", "Figures", content)


def _comparison(study: Study) -> Iterator[Section]:
    if not study.pairs:
        return
    corrected = len(study.runs) > 2
    pairs = shown_pairs(study)
    head = ["runs", "measure", "second minus first", "p", *(["p (Holm)"] if corrected else []), "better/equal/worse"]
    sure = [significant(pair.comparison, pair.p_holm) for pair in pairs]
    body = table(head, [pair_cells(pair, corrected=corrected) for pair in pairs], texts=2, sure=sure)
    after = ", after Holm's correction for the number of pairs" if corrected else ""
    told = (
        "Paired over the same queries: 95% bootstrap interval of the difference, p of a two-sided randomisation test."
        f" {RULE}{after}."
    )
    yield Section(2, "comparison", "Comparison", body + note(told))
    measure = study.runs[0].per_query.measures[0]
    base = study.runs[0]
    for number, run in enumerate(study.runs[1:], start=2):
        change = run.per_query.of(measure) - base.per_query.of(measure)
        content = charts.differences(change, measure) + _losses(study, base, run, measure)
        yield Section(3, f"change-{number}", f"{base.name} → {run.name}", content)


def _losses(study: Study, base: RunStudy, run: RunStudy, measure: str) -> str:
    """The queries that lose most: what a change breaks is what to read first."""
    before, after = base.per_query.of(measure), run.per_query.of(measure)
    order = sorted(range(len(before)), key=lambda row: after[row] - before[row])[:10]
    losses = [row for row in order if after[row] < before[row] - 1e-12]
    if not losses:
        return note("No query loses.")
    body = [
        [study.queries[row], cut(study.texts.get(study.queries[row], "")), f"{before[row]:.3f}", f"{after[row]:.3f}"]
        for row in losses
    ]
    return note("Largest losses:") + table(["query", "text", base.name, run.name], body, texts=2)


def _run(run: RunStudy, study: Study, anchor: str) -> Iterator[Section]:
    notes = "".join(f'<p class="note">Note: {escape(one)}.</p>' for one in run.notes)
    yield Section(2, anchor, run.name, notes)
    if run.classes:
        body = table(list(CLASS_HEAD), [class_cells(one) for one in run.classes])
        body += note("AP and recall at the fixed precision are over the share of votes.")
        yield Section(3, f"{anchor}-classes", "Classes", body)
    if run.confusion:
        yield Section(3, f"{anchor}-confusion", "Confusion matrix", confusion_table(run.confusion, _CONFUSION))
    if run.curves:
        yield Section(3, f"{anchor}-curves", "Precision and recall", charts.pr_curves(run.curves))
    if run.contributions:
        head, cells = contribution_cells(run.contributions)
        tests = [one.against_all for one in run.contributions]
        sure = [test is not None and significant(test, test.p) for test in tests]
        body = table(head, cells, sure=sure) + note(
            "Fused anew from the ranks in topk_evidence by unweighted reciprocal rank, over the candidates that the"
            " results hold; what a route found beyond them is not seen."
        )
        yield Section(3, f"{anchor}-routes", "Contribution of each route", body)
    if run.worst:
        what = f"Lowest {run.per_query.measures[0]}" if study.kind == "retrieval" else "The most confident mistakes"
        cases = "".join(_case(case) for case in run.worst)
        body = note(f"{what} first.") + f'<ol class="cases">{cases}</ol>'
        yield Section(3, f"{anchor}-worst", "Worst queries", body)


def _case(case: Case) -> str:
    found = "".join(_found(one) for one in case.found) or "<li>nothing found</li>"
    missed = "".join(_found(one) for one in case.missed)
    missed = f'<span class="small">should have been found:</span><ul>{missed}</ul>' if missed else ""
    text = escape(cut(case.text)) or "(text not known)"
    return (
        f'<li><b>{text}</b> <span class="small">query {escape(case.query)}, {case.value:.3f}</span>'
        f"<ul>{found}</ul>{missed}</li>"
    )


def _found(one: Found) -> str:
    score = f", {one.score:.4f}" if one.score is not None else ""
    grade = one.mark.removeprefix("grade ")
    kind = "right" if one.mark == "right" or (grade.isdecimal() and int(grade) > 0) else "wrong"
    return (
        f'<li><span class="{kind}">{escape(one.name)}</span> {escape(cut(one.text))}'
        f' <span class="small">({escape(one.mark)}{score})</span></li>'
    )
