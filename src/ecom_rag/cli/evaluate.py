"""evaluate."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ecom_rag.cli.console import tell, write_bytes
from ecom_rag.cli.options import Verbose, bars, check_outputs, command_line, prepare
from ecom_rag.cli.wording import worded
from ecom_rag.errors import UsageError

_WRITTEN = ("output", "per_query", "report", "write_run", "write_qrels")  # options that change no figure
_DEPTH = 100  # results per query where evaluate itself searches


def evaluate(
    context: typer.Context,
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="Results of score, recall or rerank, or TREC runs (.trec, .run, .txt).", show_default=False
        ),
    ] = None,
    qrels: Annotated[str | None, typer.Option(help="Judgements file: TREC or BEIR's .tsv.", show_default=False)] = None,
    beir: Annotated[
        str | None, typer.Option(help="BEIR folder with corpus.jsonl, queries.jsonl and qrels/.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the BEIR folder.")] = "test",
    labels: Annotated[bool, typer.Option("--labels", help="Compare the seeds' labels with the query's own.")] = False,
    label_key: Annotated[str, typer.Option(help="Metadata key of the label; a.b for a nested one.")] = "label",
    id_key: Annotated[str, typer.Option(help="Metadata key of query and document ids.")] = "id",
    exclude_self: Annotated[
        bool | None,
        typer.Option(
            "--exclude-self/--keep-self",
            help="Leave out seeds that are the query itself: its id or, where ids are missing, its text.",
            show_default="with --beir",
        ),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Measures to report, e.g. nDCG@10,R@100,P@5,RR@10,AP,Success@1.", show_default="a standard set"
        ),
    ] = None,
    votes: Annotated[
        int | None, typer.Option(help="With --labels: number of nearest seeds that vote.", show_default="all")
    ] = None,
    fixed_precision: Annotated[float, typer.Option(help="With --labels: precision at which recall is reported.")] = 0.9,
    positive: Annotated[str | None, typer.Option(help="With --labels: class to report separately.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="JSON file of the figures; - is stdout.", show_default=False)
    ] = None,
    per_query: Annotated[
        str | None, typer.Option(help="Figures per query to write: .jsonl, .json or .parquet.", show_default=False)
    ] = None,
    report: Annotated[str | None, typer.Option(help="HTML report to write, with plots.", show_default=False)] = None,
    fit_fusion: Annotated[
        str | None,
        typer.Option(help="Fit fusion weights on topk_evidence and save them to this file.", show_default=False),
    ] = None,
    write_run: Annotated[str | None, typer.Option(help="TREC file to write the run to.", show_default=False)] = None,
    write_qrels: Annotated[
        str | None, typer.Option(help="TREC file to write judgements to.", show_default=False)
    ] = None,
    export_queries: Annotated[
        str | None, typer.Option(help="With --beir: records file to write the split's queries to.", show_default=False)
    ] = None,
    export_seeds: Annotated[
        str | None, typer.Option(help="With --beir: records file to write the corpus to.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --beir and no RESULTS: encoder to search with.", show_default="none")
    ] = None,
    routes: Annotated[
        str | None,
        typer.Option(help="With --beir and no RESULTS: routes to search.", show_default="bm25; with --model dense too"),
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="With --beir and no RESULTS: fusion of the routes, as in recall.", show_default="auto"),
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="With --beir and no RESULTS: reranker of the candidates.", show_default="none")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap and the randomisation test.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap and the randomisation test.", min=0)] = 0,
    verbose: Verbose = False,
) -> None:
    """Measure result quality with confidence intervals, and compare runs.

    Judgements come from --qrels, from --beir or, with --labels, from the metadata of queries and seeds. Several RESULTS
    are compared query by query, every two of them.

    \b
    Examples:
      ecom-rag evaluate run.jsonl --qrels qrels.tsv --report report.html
      ecom-rag evaluate old.jsonl new.jsonl --labels --label-key policy.label --output figures.json
      ecom-rag evaluate --beir scifact --split test --model starter --routes bm25,dense --report report.html
      ecom-rag evaluate --beir scifact --split test --export-queries q.jsonl --export-seeds s.jsonl
      ecom-rag score q.jsonl --seeds s.jsonl --model starter --top-k 100 --output run.jsonl
      ecom-rag evaluate run.jsonl --beir scifact --split test --measures nDCG@10,R@100
    """
    prepare(verbose)
    results = results or []
    outputs = _Outputs(output, per_query, report, fit_fusion, write_run, write_qrels, export_queries, export_seeds)
    outputs.check([*results, qrels, beir])
    if export_queries or export_seeds:
        _export(beir, split, export_queries, export_seeds)
        if not results:
            return
    options = {"model": model, "routes": routes, "fusion": fusion, "rerank": rerank}
    search = {name: value for name, value in options.items() if value is not None}
    _check_sources(results, search, outputs, labels=labels, qrels=qrels, beir=beir, exclude_self=exclude_self)
    from ecom_rag.evaluation import files

    common: dict[str, Any] = {"measures": measures, "resamples": resamples, "seed": seed}
    if labels:
        common |= {"label_key": label_key, "votes": votes, "fixed_precision": fixed_precision, "positive": positive}
        found = files.evaluate_labels(results, id_key=id_key, exclude_self=bool(exclude_self), **common)
    elif search:
        found = _searched(str(beir), split, search, exclude_self is not False, common)
    else:
        common |= {"id_key": id_key, "exclude_self": exclude_self}
        found = files.evaluate_files(results, qrels=qrels, beir=beir, split=split, **common)
    study, runs, judged = found
    for one in study.runs:
        one.notes[:] = map(worded, one.notes)
    _write(outputs, study, runs, judged, made_by=command_line(context, without=_WRITTEN))
    if fit_fusion:
        searched = results[0] if results else study.settings["runs"]
        _fit(runs[0], judged, fit_fusion, seed, {"results": searched, "judgements": qrels or beir or label_key})
    outputs.tell()


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The files to write."""

    figures: str | None
    per_query: str | None
    report: str | None
    fit_fusion: str | None
    write_run: str | None
    write_qrels: str | None
    export_queries: str | None
    export_seeds: str | None

    def check(self, inputs: list[str | None]) -> None:
        """Nothing that is read is written over, and no output by another one; all of it before any work is done."""
        paths = asdict(self)
        for name, path in paths.items():
            if path == "-" and name != "figures":
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} - is not supported: standard output is for the figures; give {option} a path"
                )
        check_outputs(paths.values(), inputs)

    def tell(self) -> None:
        """Say what was written where."""
        written = {
            "figures": self.figures if self.figures != "-" else None,
            "per query": self.per_query,
            "report": self.report,
            "run": self.write_run,
            "judgements": self.write_qrels,
        }
        named = ", ".join(f"{what} -> {path}" for what, path in written.items() if path)
        if named:
            tell(named)


def _check_sources(
    results: list[str],
    search: dict[str, str],
    outputs: _Outputs,
    *,
    labels: bool,
    qrels: str | None,
    beir: str | None,
    exclude_self: bool | None,
) -> None:
    """Something to evaluate, one source of judgements, and no option that they leave without a meaning."""
    if not results and not search:
        raise UsageError(
            "no RESULTS are given; expected results files, or --beir DIR with --model or --routes to"
            " search it, or with --export-queries and --export-seeds to make files of it"
        )
    if labels and (qrels or beir):
        raise UsageError("--labels and --qrels or --beir are two sources of judgements; give one of them")
    if (outputs.write_run or outputs.fit_fusion) and len(results) > 1:
        raise UsageError(f"{len(results)} RESULTS are given; --write-run and --fit-fusion take one")
    if exclude_self is False and beir is None:
        raise UsageError("--keep-self is for --beir, which leaves queries out of their own results; leave it out")


def _searched(beir: str, split: str, search: dict[str, str], exclude_self: bool, common: dict[str, Any]) -> Any:
    """Recall over the folder, and its evaluation."""
    from ecom_rag.evaluation.files import evaluate_files
    from ecom_rag.evaluation.searched import search_beir
    from ecom_rag.pipeline import read_settings

    model, rerank = search.get("model"), search.get("rerank")
    routes = [route.strip() for route in search["routes"].split(",")] if "routes" in search else None
    asked = {"routes": routes, "fusion": search.get("fusion"), "exclude_self": exclude_self}
    settings, _ = read_settings(None, {**asked, "top_k": _DEPTH, "depth": _DEPTH})
    names = ",".join(settings.routes_of_file(encoder=model is not None))
    parts = {"routes": names, "model": model, "fusion": settings.fused_by, "rerank": rerank}
    described = "; ".join(f"{what} {value}" for what, value in parts.items() if value is not None)
    with bars() as progress:
        run, notes = search_beir(beir, split, settings, model=model, reranker=rerank, progress=progress)
    found = evaluate_files([run], beir=beir, split=split, exclude_self=exclude_self, described=described, **common)
    found[0].runs[0].notes += notes
    return found


def _write(outputs: _Outputs, study: Any, runs: list[Any], judged: Any, *, made_by: str) -> None:
    """Figures on standard output, and what else is asked for in its file."""
    from ecom_rag.evaluation import files, tables
    from ecom_rag.files import records, trec

    if outputs.write_run:
        trec.write_run(_scored(runs[0]), outputs.write_run, tag=runs[0].name.replace(" ", "_"))
    if outputs.write_qrels:
        trec.write_qrels(judged, outputs.write_qrels)
    if outputs.per_query:
        files.write_per_query(study, outputs.per_query)
    if outputs.report:
        title = " / ".join(run.name for run in runs)
        files.write_report(study, outputs.report, title=title, made_by=made_by)
    if outputs.figures == "-":
        write_bytes(records.dumps(tables.as_json(study)))
        return
    typer.echo(worded(tables.as_text(study)), nl=False)
    if outputs.figures:
        files.write_figures(study, outputs.figures)


def _export(beir: str | None, split: str, queries: str | None, seeds: str | None) -> None:
    assert beir is not None  # without it the options would be idle
    from ecom_rag.files.beir import read_beir, write_records

    folder = read_beir(beir, split)
    for path, items, what in ((queries, iter(folder.queries), "queries"), (seeds, folder.documents(), "seeds")):
        if path:
            tell(f"wrote {write_records(items, path)} {what} -> {path}")


def _scored(run: Any) -> Any:
    for query, documents in run.run.items():
        sims = run.results[query]["topk_sim"] if run.results else [float(-rank) for rank in range(len(documents))]
        first = dict(reversed(list(zip(documents, sims, strict=True))))  # of a document named twice the first place
        yield query, list(dict.fromkeys(documents)), [first[document] for document in dict.fromkeys(documents)]


def _fit(run: Any, judged: Any, path: str, seed: int, fitted_on: dict[str, Any]) -> None:
    from ecom_rag.evaluation.files import fit_fusion_on

    fitted = fit_fusion_on(run, judged, seed=seed, fitted_on=fitted_on)
    fitted.save(path)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in fitted.weights.items())
    said = "accepted" if fitted.accepted else "refused, the baseline is written"
    tell(
        f"learned fusion {said}: {fitted.method} ({weights}); out-of-fold gain over {fitted.baseline}"
        f" {fitted.gain:+.4f} [{fitted.gain_low:+.4f}, {fitted.gain_high:+.4f}] {fitted.measure} -> {path}"
    )
