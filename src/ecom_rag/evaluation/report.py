"""The HTML report: one file with everything in it, no scripts, nothing loaded from elsewhere."""

from collections.abc import Sequence
from html import escape

from ecom_rag._version import __version__
from ecom_rag.evaluation import charts
from ecom_rag.evaluation.study import Case, Found, RunStudy, Study
from ecom_rag.evaluation.tables import (
    CLASS_HEAD,
    class_cells,
    contribution_cells,
    interval_text,
    pair_cells,
    shown_pairs,
)

_TEXT = 240  # characters of a text
_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #222; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; margin: .6rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #eee; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; }
td.sure { font-weight: 600; } .note, figcaption, .small { color: #666; font-size: .88rem; }
figure { margin: .8rem 0; } svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg .tick { fill: #666; font-size: 11px; } svg .grid { stroke: #ddd; stroke-width: 1; }
ol.cases > li { margin: .8rem 0; } ol.cases ul { margin: .2rem 0; padding-left: 1.2rem; }
.right { color: #00704e; } .wrong { color: #b34700; }
"""


def as_html(study: Study, *, title: str = "Evaluation") -> str:
    """A study as one self-contained page."""
    parts = [f"<h1>{escape(title)}</h1>", _settings(study), _summary(study), _pairs(study)]
    for run in study.runs:
        parts.append(_run(run, study))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _settings(study: Study) -> str:
    said = "; ".join(f"{key}: {value}" for key, value in study.settings.items() if value is not None)
    return f'<p class="small">{len(study.queries)} queries; {escape(said)}; ecom_rag {__version__}</p>'


def _summary(study: Study) -> str:
    measures = list(study.runs[0].intervals)
    first = measures[0]
    body = [[name, *(interval_text(run.intervals[name]) for run in study.runs)] for name in measures]
    by_query = study.runs[0].per_query.measures[0]
    figures = {run.name: run.per_query.of(by_query) for run in study.runs}
    return (
        "<h2>Figures</h2>"
        + _table(["measure", *(run.name for run in study.runs)], body)
        + '<p class="note">Mean over queries, with the 95 % interval of a bootstrap over queries. Higher is better.</p>'
        + charts.intervals({run.name: run.intervals[first] for run in study.runs}, first)
        + (charts.histogram(figures, by_query) if study.kind == "retrieval" else "")
    )


def _pairs(study: Study) -> str:
    if not study.pairs:
        return ""
    corrected = len(study.runs) > 2
    pairs = shown_pairs(study)
    head = ["runs", "measure", "second minus first", "p", *(["p (Holm)"] if corrected else []), "better/equal/worse"]
    sure = [pair.comparison.low > 0 or pair.comparison.high < 0 for pair in pairs]
    measure = study.runs[0].per_query.measures[0]
    plots = []
    base = study.runs[0]
    for run in study.runs[1:]:
        change = run.per_query.of(measure) - base.per_query.of(measure)
        plots.append(f"<h3>{escape(base.name)} → {escape(run.name)}</h3>" + charts.differences(change, measure))
        plots.append(_changes(study, base, run, measure))
    return (
        "<h2>Comparison</h2>"
        + _table(head, [pair_cells(pair, corrected=corrected) for pair in pairs], sure=sure)
        + '<p class="note">Paired over the same queries: 95 % bootstrap interval of the difference, p of a two-sided'
        " randomisation test. Bold: the interval excludes zero.</p>" + "".join(plots)
    )


def _changes(study: Study, base: RunStudy, run: RunStudy, measure: str) -> str:
    """The queries that lose most: what a change breaks is what to read first."""
    before, after = base.per_query.of(measure), run.per_query.of(measure)
    order = sorted(range(len(before)), key=lambda row: after[row] - before[row])[:10]
    losses = [row for row in order if after[row] < before[row] - 1e-12]
    if not losses:
        return '<p class="note">No query loses.</p>'
    body = [
        [study.queries[row], _cut(study.texts.get(study.queries[row], "")), f"{before[row]:.3f}", f"{after[row]:.3f}"]
        for row in losses
    ]
    return '<p class="note">Largest losses:</p>' + _table(["query", "text", base.name, run.name], body)


def _run(run: RunStudy, study: Study) -> str:
    parts = [f"<h2>{escape(run.name)}</h2>"]
    parts += [f'<p class="note">Note: {escape(note)}.</p>' for note in run.notes]
    if run.classes:
        parts.append("<h3>Classes</h3>" + _table(list(CLASS_HEAD), [class_cells(one) for one in run.classes]))
        parts.append('<p class="note">AP and recall at the fixed precision are over the share of votes.</p>')
    if run.curves:
        parts.append(charts.pr_curves(run.curves))
    if run.contributions:
        head, body = contribution_cells(run.contributions)
        sure = [
            bool(one.against_all) and (one.against_all.low > 0 or one.against_all.high < 0)  # type: ignore[union-attr]
            for one in run.contributions
        ]
        parts.append("<h3>Contribution of each route</h3>" + _table(head, body, sure=sure))
        parts.append(
            '<p class="note">Fused anew from the ranks in topk_evidence by unweighted reciprocal rank, over'
            " the candidates that the results hold; what a route found beyond them is not seen.</p>"
        )
    if run.worst:
        what = f"lowest {run.per_query.measures[0]}" if study.kind == "retrieval" else "the most confident mistakes"
        parts.append(f"<h3>Worst queries: {escape(what)}</h3>")
        parts.append('<ol class="cases">' + "".join(_case(case) for case in run.worst) + "</ol>")
    return "".join(parts)


def _case(case: Case) -> str:
    found = "".join(_found(one) for one in case.found) or "<li>nothing found</li>"
    missed = "".join(_found(one) for one in case.missed)
    missed = f'<span class="small">should have been found:</span><ul>{missed}</ul>' if missed else ""
    text = escape(_cut(case.text)) or "(text not known)"
    return (
        f'<li><b>{text}</b> <span class="small">query {escape(case.query)}, {case.value:.3f}</span>'
        f"<ul>{found}</ul>{missed}</li>"
    )


def _found(one: Found) -> str:
    score = f", {one.score:.4f}" if one.score is not None else ""
    grade = one.mark.removeprefix("grade ")
    kind = "right" if one.mark == "right" or (grade.isdecimal() and int(grade) > 0) else "wrong"
    return (
        f'<li><span class="{kind}">{escape(one.name)}</span> {escape(_cut(one.text))}'
        f' <span class="small">({escape(one.mark)}{score})</span></li>'
    )


def _table(head: Sequence[str], body: Sequence[Sequence[str]], *, sure: Sequence[bool] | None = None) -> str:
    lines = []
    for row, cells in enumerate(body):
        kind = ' class="sure"' if sure is not None and sure[row] else ""
        lines.append("<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in cells) + "</tr>")
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
