"""evaluate."""

from typing import Annotated, Any

import typer

from ecom_rag.cli.console import tell, write_bytes
from ecom_rag.cli.options import Verbose, bars, command_line, prepare
from ecom_rag.errors import UsageError

_TREC = "TREC file to write"
_WRITTEN = ("output", "per_query", "report", "write_run", "write_qrels")  # options that change no figure
_DEPTH = 100  # results a query where evaluate itself searches


def evaluate(
    context: typer.Context,
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="Results of score, recall or rerank, or TREC runs (.trec, .run, .txt).", show_default=False
        ),
    ] = None,
    qrels: Annotated[str | None, typer.Option(help="Judgements: TREC or BEIR's .tsv.", show_default=False)] = None,
    beir: Annotated[
        str | None, typer.Option(help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Of the BEIR folder.")] = "test",
    labels: Annotated[bool, typer.Option("--labels", help="Hold the seeds' labels against the query's own.")] = False,
    label_key: Annotated[str, typer.Option(help="Metadata key of the label; a.b for nested ones.")] = "label",
    id_key: Annotated[str, typer.Option(help="Metadata key of query and document ids.")] = "id",
    exclude_self: Annotated[
        bool | None,
        typer.Option(
            "--exclude-self/--keep-self",
            help="Leave a query out of its own results: a seed of its id or, where ids are missing, of its text.",
            show_default="with --beir",
        ),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(help="ir-measures names, e.g. nDCG@10,R@100,P@5,RR@10,AP,Success@1.", show_default="the usual"),
    ] = None,
    votes: Annotated[
        int | None, typer.Option(help="With --labels: nearest seeds that vote.", show_default="all")
    ] = None,
    fixed_precision: Annotated[float, typer.Option(help="With --labels: for the recall at a fixed precision.")] = 0.9,
    positive: Annotated[str | None, typer.Option(help="With --labels: report this class by itself.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Figures as JSON; - is stdout.", show_default=False)
    ] = None,
    per_query: Annotated[
        str | None, typer.Option(help="Figures of each query: .jsonl, .json, .parquet.", show_default=False)
    ] = None,
    report: Annotated[str | None, typer.Option(help="HTML report with plots.", show_default=False)] = None,
    fit_fusion: Annotated[
        str | None, typer.Option(help="Fit fusion weights on topk_evidence, save them here.", show_default=False)
    ] = None,
    write_run: Annotated[str | None, typer.Option(help=f"{_TREC} the run to.", show_default=False)] = None,
    write_qrels: Annotated[str | None, typer.Option(help=f"{_TREC} the judgements to.", show_default=False)] = None,
    export_queries: Annotated[
        str | None, typer.Option(help="With --beir: write the split's queries as records.", show_default=False)
    ] = None,
    export_seeds: Annotated[
        str | None, typer.Option(help="With --beir: write the corpus as seed records.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --beir and no RESULTS: search it with this encoder.", show_default="none")
    ] = None,
    routes: Annotated[
        str | None,
        typer.Option(help="With --beir and no RESULTS: the routes.", show_default="bm25; with --model dense too"),
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="Of these routes, as in recall.", show_default="weighted")] = None,
    rerank: Annotated[str | None, typer.Option(help="And a reranker over them.", show_default="none")] = None,
    resamples: Annotated[int, typer.Option(help="Of bootstrap and randomisation test.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of both.", min=0)] = 0,
    verbose: Verbose = False,
) -> None:
    """Say how good results are, how sure that is, and whether one run is better than another.

    Judgements come from --qrels, from --beir, or with --labels from the metadata of queries and seeds. Several RESULTS
    are compared, query by query, each two of them.

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
    written = {
        "--per-query": per_query,
        "--report": report,
        "--fit-fusion": fit_fusion,
        "--write-run": write_run,
        "--write-qrels": write_qrels,
        "--export-queries": export_queries,
        "--export-seeds": export_seeds,
    }
    for option, path in written.items():
        if path == "-":
            raise UsageError(f"{option} - is not supported: standard output is for the figures; give {option} a path")
    _check_paths([*(results or []), qrels], beir, [output, *written.values()])
    if export_queries or export_seeds:
        _export(beir, split, export_queries, export_seeds)
        if not results:
            return
    searched = [option for option in (model, routes, fusion, rerank) if option is not None]
    if not results and not searched:
        raise UsageError(
            "no RESULTS are given; expected results files, or --beir DIR with --model or --routes to"
            " search it, or with --export-queries and --export-seeds to make files of it"
        )
    if labels and (qrels or beir):
        raise UsageError("--labels and --qrels or --beir are two sources of judgements; give one of them")
    if (write_run or fit_fusion) and results and len(results) > 1:
        raise UsageError(f"{len(results)} RESULTS are given; --write-run and --fit-fusion take one")
    if exclude_self is False and beir is None:
        raise UsageError("--keep-self is for --beir, which leaves queries out of their own results; leave it out")
    common: dict[str, Any] = {
        "id_key": id_key,
        "exclude_self": exclude_self,
        "measures": measures,
        "resamples": resamples,
        "seed": seed,
    }
    from ecom_rag.evaluation import files, tables
    from ecom_rag.files import formats

    if labels:
        study, runs, judged = files.evaluate_labels(
            results or [],
            label_key=label_key,
            votes=votes,
            fixed_precision=fixed_precision,
            positive=positive,
            **{**common, "exclude_self": bool(exclude_self)},
        )
    elif searched:
        study, runs, judged = _search(str(beir), split, model, routes, fusion, rerank, common)
    else:
        study, runs, judged = files.evaluate_files(results or [], qrels=qrels, beir=beir, split=split, **common)
    if write_run:
        formats.write_run(_scored(runs[0]), write_run, tag=runs[0].name.replace(" ", "_"))
    if write_qrels:
        formats.write_qrels(judged, write_qrels)
    if per_query:
        files.write_per_query(study, per_query)
    if report:
        files.write_report(
            study, report, title=" / ".join(run.name for run in runs), made_by=command_line(context, without=_WRITTEN)
        )
    if output == "-":
        from ecom_rag.files import records

        write_bytes(records.dumps(tables.as_json(study)))
    else:
        typer.echo(tables.as_text(study), nl=False)
        if output:
            files.write_figures(study, output)
    if fit_fusion:
        _fit(
            files,
            runs[0],
            judged,
            fit_fusion,
            seed,
            {"results": results[0] if results else study.settings["runs"], "judgements": qrels or beir or label_key},
        )
    _say(
        [
            ("figures", output if output != "-" else None),
            ("per query", per_query),
            ("report", report),
            ("run", write_run),
            ("judgements", write_qrels),
        ]
    )


def _check_paths(inputs: list[str | None], beir: str | None, outputs: list[str | None]) -> None:
    """Nothing that is read is written over, and no output by another one; all of it before any work is done."""
    import os

    from ecom_rag.files import publish

    targets = [publish.target_of(path) for path in outputs if path is not None and path != "-"]
    places = [os.path.realpath(target.path) for target in targets if not target.stream]
    for target in targets:
        if places.count(os.path.realpath(target.path)) > 1:
            raise UsageError(f"{target.name}: is named for two outputs; give each its own")
        publish.check_not_read(target, [*inputs, beir])


def _search(
    beir: str, split: str, model: str | None, routes: str | None, fusion: str | None, rerank: str | None, common: Any
) -> Any:
    """Recall over the folder, and its evaluation."""
    import tempfile
    from pathlib import Path

    from ecom_rag.evaluation import files
    from ecom_rag.pipeline import read_settings, recall_file

    named = None if routes is None else [route.strip() for route in routes.split(",")]
    exclude = common["exclude_self"] is not False
    settings, _ = read_settings(
        None, {"routes": named, "fusion": fusion, "top_k": _DEPTH, "depth": _DEPTH, "exclude_self": exclude}
    )
    names = ",".join(settings.routes_of_file(encoder=model is not None))
    parts = {"routes": names, "model": model, "fusion": settings.fusion, "rerank": rerank}
    described = "; ".join(f"{what} {value}" for what, value in parts.items() if value is not None)

    def load_encoder() -> Any:
        from ecom_rag.models import Encoder

        return Encoder.from_pretrained(str(model))

    def load_cross_encoder() -> Any:
        from ecom_rag.models import CrossEncoder

        return CrossEncoder.from_pretrained(str(rerank))

    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        queries, seeds, run = (str(Path(folder) / name) for name in ("queries.jsonl", "seeds.jsonl", "recall.jsonl"))
        _export(beir, split, queries, seeds)
        recall_file(
            queries,
            run,
            settings,
            seeds=seeds,
            progress=progress,
            load_encoder=load_encoder if model else None,
            load_cross_encoder=load_cross_encoder if rerank else None,
        )
        found = files.evaluate_files([run], beir=beir, split=split, described=described, **common)
        if exclude:
            found[0].runs[0].notes += files.own_documents(queries, seeds)
        return found


def _export(beir: str | None, split: str, queries: str | None, seeds: str | None) -> None:
    assert beir is not None  # without it the options would be idle
    from ecom_rag.files import formats

    folder = formats.read_beir(beir, split)
    for path, items, what in ((queries, iter(folder.queries), "queries"), (seeds, folder.documents(), "seeds")):
        if path:
            tell(f"wrote {formats.write_records(items, path)} {what} -> {path}")


def _scored(run: Any) -> Any:
    for query, documents in run.run.items():
        sims = run.results[query]["topk_sim"] if run.results else [float(-rank) for rank in range(len(documents))]
        first = dict(reversed(list(zip(documents, sims, strict=True))))  # of a document named twice the first place
        yield query, list(dict.fromkeys(documents)), [first[document] for document in dict.fromkeys(documents)]


def _fit(files: Any, run: Any, judged: Any, path: str, seed: int, fitted_on: dict[str, Any]) -> None:
    fitted = files.fit_fusion_on(run, judged, seed=seed, fitted_on=fitted_on)
    fitted.save(path)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in fitted.weights.items())
    said = "accepted" if fitted.accepted else "refused, the baseline is written"
    tell(
        f"learned fusion {said}: {fitted.method} ({weights}); out-of-fold gain over {fitted.baseline}"
        f" {fitted.gain:+.4f} [{fitted.gain_low:+.4f}, {fitted.gain_high:+.4f}] {fitted.measure} -> {path}"
    )


def _say(written: list[tuple[str, str | None]]) -> None:
    named = ", ".join(f"{what} -> {path}" for what, path in written if path)
    if named:
        tell(named)
