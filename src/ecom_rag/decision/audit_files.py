"""An audit over files, and its summary as text."""

import os
from dataclasses import replace
from pathlib import Path

from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.decision.audit import TOP_K, Audit, audit
from ecom_rag.decision.audit_findings import KINDS
from ecom_rag.decision.audit_page import as_html
from ecom_rag.decision.settings import Auditing
from ecom_rag.errors import UsageError
from ecom_rag.files import publish, records, writing
from ecom_rag.files.progress import Progress
from ecom_rag.files.results import check_result
from ecom_rag.models.spec import AnyEncoder
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.pipeline.places import Asked, OfBank, OfFile, Place
from ecom_rag.pipeline.provenance import read_beside
from ecom_rag.retrieval.routes import outputs_of
from ecom_rag.text.analysis import Analyzer


def audit_file(
    output: PathLike,
    asked: Auditing,
    *,
    seeds: PathLike | None = None,
    bank: PathLike | None = None,
    queries: PathLike | None = None,
    report: PathLike | None = None,
    model: AnyEncoder | None = None,
    analyzer: Analyzer | None = None,
    made_by: str = "ecom_rag.decision.audit_file(output, asked, ...)",
    progress: Progress | None = None,
) -> Audit:
    """Audit a bank or a file of seeds, by all routes that it has, and write what is found.

    Args:
        output: Path of the findings, or ``-`` for standard output.
        asked: What to look for.
        seeds: Path of a file of seeds; ``None`` where ``bank`` is given.
        bank: Folder of the bank; ``None`` where ``seeds`` is given.
        queries: Path of what ``recall`` wrote over the same seeds; by default nothing is said of hits.
        report: Path of an HTML page of the findings; by default none is made.
        model: The encoder; a bank brings its own.
        analyzer: How the texts of ``seeds`` become terms; a bank brings its own.
        made_by: The command line or the Python call that the page names.
        progress: As in ``audit``.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    output, queries, report = (
        path_of(output, "output"),
        path_or_none(queries, "queries"),
        path_or_none(report, "report"),
    )
    asked.check()
    if queries == "-":
        raise UsageError("`queries` - is not supported; give the results of recall as a file")
    terms = analyzer or Analyzer()
    job = Asked("audit", queries or "-", output, Recall(top_k=TOP_K), seeds, bank, model, None, terms, "fail")
    _check_report(report, output, [queries, path_or_none(seeds, "seeds")])
    results = None if queries is None else list(records.read(queries, check=check_result))
    place: Place = (OfFile if job.bank is None else OfBank)(job)
    encoder = place.encoder() if outputs_of(place.routes) else None
    source = place.source(encoder, None, progress)
    pipeline = Pipeline(source, replace(job.settings, routes=place.routes).check(), encoder=encoder)
    found = audit(pipeline, asked, queries=results, progress=progress)
    if queries is not None:
        found.notes.extend(_made(queries, pipeline))
    writing.write(output, found.findings)
    if report is not None:
        page = as_html(found, made_by=made_by, data=Path(str(job.bank or job.seeds)).name)
        with publish.writing(report) as sink:
            sink.write(page.encode())
    return found


def _check_report(report: str | None, output: str, read: list[str | None]) -> None:
    """Raise ``UsageError`` where the page could not be written, or would take another file's place."""
    if report is None:
        return
    if report == "-":
        raise UsageError("`report` - is not supported: standard output is for the findings; give it a path")
    target = publish.target_of(report)
    if os.path.realpath(report) == os.path.realpath(output):
        raise UsageError(f"{report}: is named for two outputs; give each its own")
    publish.check_not_read(target, read)


def _made(queries: str, pipeline: Pipeline) -> list[str]:
    """A note where results were not made from the seeds as they are now."""
    made = read_beside(queries)
    if made is None:
        return [f"{queries}: nothing says from which seeds it was recalled; that was not checked"]
    with pipeline.view() as view:
        now = pipeline.provenance(view)
    if (made.seeds, made.sequence) != (now.seeds, now.sequence):
        return [
            f"{Path(queries).name}: was recalled from other seeds, or before they changed; recall it again to be sure"
        ]
    return []


def as_text(found: Audit) -> str:
    """A line for each kind of finding and for each label.

    Args:
        found: What ``audit`` gave.
    """
    lines = [f"{found.seeds} seeds with a label, in {found.campaigns} campaigns.", ""]
    width = max(map(len, KINDS))
    lines.append(f"{'finding':{width}}  campaigns   seeds  what it means")
    for kind, said in KINDS.items():
        if kind in found.counts:
            campaigns, seeds = found.counts[kind]
            lines.append(f"{kind:{width}}  {campaigns:>9}  {seeds:>6}  {said}")
    if not found.counts:
        lines.append("nothing")
    width = max(len("label"), *(len(one.label) for one in found.classes))
    lines += ["", f"{'label':{width}}  seeds  campaigns  conflicts  missing for a guarantee"]
    for one in sorted(found.classes, key=lambda one: (-one.campaigns, one.label)):
        aside = "  innocent" if one.innocent else ""
        missing = one.missing or "-"
        lines.append(
            f"{one.label:{width}}  {one.seeds:>5}  {one.campaigns:>9}  {one.conflicts:>9}  {missing:>23}{aside}"
        )
    return "\n".join(lines).rstrip() + "\n"
