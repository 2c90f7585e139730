"""The HTML report: one file with everything in it, no scripts, nothing loaded from elsewhere."""

import datetime
import os
import platform
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from importlib.metadata import version
from typing import NamedTuple

from ecom_rag._version import __version__
from ecom_rag.evaluation import charts
from ecom_rag.evaluation.confusion import Confusion
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

_TEXT = 240  # characters of a text
_PACKAGES = ("numpy", "scipy", "ir-measures")  # that the figures depend on


class Section(NamedTuple):
    """A part of the page: its heading of level 2 or 3, where the table of contents leads, and its content."""

    level: int
    anchor: str
    title: str
    body: str


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
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(study))
    body = [
        f'<h1>{escape(title)}</h1>\n<div class="verdict">{said}</div>',
        _made(study, made_by),
        _contents(sections),
        *(f'<h{one.level} id="{one.anchor}">{escape(one.title)}</h{one.level}>\n{one.body}' for one in sections),
    ]
    style = resources.files("ecom_rag.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _made(study: Study, made_by: str) -> str:
    """When, from what, how and with which versions the page was made."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else now
    settings = "; ".join(f"{key}: {value}" for key, value in study.settings.items() if value is not None)
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = {
        "Date": f"{day:%Y-%m-%d}",
        "Data": f"{len(study.queries)} queries; {settings}",
        "Versions": f"ecom_rag {__version__}, Python {platform.python_version()}, {packages}",
    }
    shown = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in lines.items())
    return f'<dl class="made">{shown}<dt>Made by</dt><dd><code>{escape(made_by)}</code></dd></dl>'


def _contents(sections: Sequence[Section]) -> str:
    lines = ""
    for one in sections:
        link = f'<a href="#{one.anchor}">{escape(one.title)}</a>'
        lines += f"</li><li>{link}" if one.level == 2 else f" · {link}"
    return f"<nav><ul>{lines.removeprefix('</li>')}</li></ul></nav>"


def _figures(study: Study) -> Section:
    measures = list(study.runs[0].intervals)
    body = [[name, *(interval_text(run.intervals[name]) for run in study.runs)] for name in measures]
    by_query = study.runs[0].per_query.measures[0]
    figures = {run.name: run.per_query.of(by_query) for run in study.runs}
    content = (
        _table(["measure", *(run.name for run in study.runs)], body)
        + '<p class="note">Mean over queries, with the 95% interval of a bootstrap over queries. Higher is better.</p>'
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
    body = _table(head, [pair_cells(pair, corrected=corrected) for pair in pairs], texts=2, sure=sure)
    after = ", after Holm's correction for the number of pairs" if corrected else ""
    note = (
        "Paired over the same queries: 95% bootstrap interval of the difference, p of a two-sided randomisation test."
        f" {RULE}{after}."
    )
    yield Section(2, "comparison", "Comparison", f'{body}<p class="note">{note}</p>')
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
        return '<p class="note">No query loses.</p>'
    body = [
        [study.queries[row], _cut(study.texts.get(study.queries[row], "")), f"{before[row]:.3f}", f"{after[row]:.3f}"]
        for row in losses
    ]
    return '<p class="note">Largest losses:</p>' + _table(["query", "text", base.name, run.name], body, texts=2)


def _run(run: RunStudy, study: Study, anchor: str) -> Iterator[Section]:
    notes = "".join(f'<p class="note">Note: {escape(note)}.</p>' for note in run.notes)
    yield Section(2, anchor, run.name, notes)
    if run.classes:
        body = _table(list(CLASS_HEAD), [class_cells(one) for one in run.classes])
        body += '<p class="note">AP and recall at the fixed precision are over the share of votes.</p>'
        yield Section(3, f"{anchor}-classes", "Classes", body)
    if run.confusion:
        yield Section(3, f"{anchor}-confusion", "Confusion matrix", _confusion(run.confusion))
    if run.curves:
        yield Section(3, f"{anchor}-curves", "Precision and recall", charts.pr_curves(run.curves))
    if run.contributions:
        head, cells = contribution_cells(run.contributions)
        tests = [one.against_all for one in run.contributions]
        sure = [test is not None and significant(test, test.p) for test in tests]
        body = _table(head, cells, sure=sure) + (
            '<p class="note">Fused anew from the ranks in topk_evidence by unweighted reciprocal rank, over'
            " the candidates that the results hold; what a route found beyond them is not seen.</p>"
        )
        yield Section(3, f"{anchor}-routes", "Contribution of each route", body)
    if run.worst:
        what = f"Lowest {run.per_query.measures[0]}" if study.kind == "retrieval" else "The most confident mistakes"
        cases = "".join(_case(case) for case in run.worst)
        body = f'<p class="note">{escape(what)} first.</p><ol class="cases">{cases}</ol>'
        yield Section(3, f"{anchor}-worst", "Worst queries", body)


def _confusion(found: Confusion) -> str:
    """Rows are the queries' own classes; a cell is as dark as its share of the row."""
    head = "".join(f'<th class="class">{escape(name)}</th>' for name in found.predicted)
    lines = []
    for name, counts, right in zip(found.gold, found.counts.tolist(), found.right.tolist(), strict=True):
        names = [one == name for one in found.predicted]
        cells = "".join(_cell(*one, sum(counts)) for one in zip(counts, right, names, strict=True))
        lines.append(
            f'<tr><th class="text"><span>{escape(name)}</span></th><td class="all">{sum(counts)}</td>{cells}</tr>'
        )
    return (
        f'<div class="scroll"><table class="confusion"><thead><tr><th class="text">own class</th><th>all</th>{head}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="note">Rows: the class that the query has. Columns: the class that its seeds vote for. Numbers are'
        " queries; the darker, the larger the share of the row. Framed: right.</p>"
    )


def _cell(count: int, right: bool, same: bool, total: int) -> str:
    """A cell; among the rare classes that share a row and a column, right and wrong votes stand in one cell."""
    if not count:
        return "<td>·</td>"
    kind = "hit" if right else "mixed" if same else "miss"
    return f'<td class="{kind}" style="--share: {0.08 + 0.5 * count / total:.2f}">{count}</td>'


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


def _table(
    head: Sequence[str], body: Sequence[Sequence[str]], *, texts: int = 1, sure: Sequence[bool] | None = None
) -> str:
    """A table that scrolls in its own box; the first ``texts`` columns are text, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        named = (f'<{tag} class="text"><span>{escape(cell)}</span></{tag}>' for cell in cells[:texts])
        return "".join([*named, *(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells[texts:])])

    bold = sure or [False] * len(body)
    kinds = (' class="sure"' if one else "" for one in bold)
    lines = "".join(f"<tr{kind}>{line(cells, 'td')}</tr>" for kind, cells in zip(kinds, body, strict=True))
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
