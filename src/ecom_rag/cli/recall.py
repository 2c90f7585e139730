"""recall."""

from pathlib import Path
from typing import Annotated

import typer

from ecom_rag.cli.cluster import Ray, Shards, Workers, on_ray
from ecom_rag.cli.decide import Campaigns, FloodLimit, Reviewed, Strict, decided, deciding
from ecom_rag.cli.options import (
    BadLine,
    Bank,
    BatchTokens,
    Device,
    ExcludeSelf,
    Filter,
    IdKey,
    MaxLength,
    OnBadLine,
    Output,
    Precision,
    PrecisionOption,
    Queries,
    QueryExamples,
    QueryInstruction,
    QueryTask,
    Resume,
    Runtime,
    RuntimeName,
    Seeds,
    Verbose,
    bars,
    check_apart,
    instructed,
    numbers,
    placed,
    prepare,
    report,
)
from ecom_rag.cli.reading import Deobfuscate, analysis
from ecom_rag.errors import UsageError


def recall(
    queries: Queries,
    output: Output,
    seeds: Seeds = None,
    bank: Bank = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Encoder for dense, sparse, multivector: folder, hub id or 'starter'.", show_default="the bank's"
        ),
    ] = None,
    routes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated routes, some of bm25,dense,sparse,multivector,variant,hybrid.",
            show_default="bm25; with --model dense too; all of a bank",
        ),
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(
            help="Fusion: auto (weights fitted on the seeds' labels), weighted, rrf, zscore, dbsf, or a fitted .json.",
            show_default="auto; weighted with --weights",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of routes in fusion, e.g. bm25=1,dense=1.", show_default="1; dense 0.5, variant 0.3"
        ),
    ] = None,
    hybrid_weights: Annotated[
        str | None, typer.Option(help="Weights of dense, sparse and multivector within hybrid.", show_default="1,1,1")
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="Cross-encoder that re-sorts the fused candidates.", show_default="none")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Candidates kept per route and passed to the reranker.", show_default="100")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", help="Results per query.", show_default="10")] = None,
    filter: Filter = None,
    exclude_self: ExcludeSelf = None,
    id_key: IdKey = None,
    label_key: Annotated[
        str | None,
        typer.Option(help="Metadata key of the seeds' labels, for --fusion auto.", show_default="the bank's, or label"),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option("--normalize", help="Reranker relevance in 0..1 instead of logits.", show_default=False),
    ] = None,
    blend: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the reranker in the order.", show_default="1")
    ] = None,
    exact_multivector: Annotated[
        bool | None,
        typer.Option(
            "--exact-multivector", help="Score all seeds by MaxSim, not only the candidates.", show_default=False
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Policy of ecom-rag calibrate: add a decision to each record.", show_default="none"),
    ] = None,
    strict: Strict = False,
    campaigns: Campaigns = None,
    flood_limit: FloodLimit = 10,
    reviewed: Reviewed = None,
    config: Annotated[
        str | None, typer.Option(help="TOML file with these options; the command line wins.", show_default="none")
    ] = None,
    stem: Annotated[bool, typer.Option(help="Match English words by their stems in bm25 over --seeds.")] = True,
    simplify: Annotated[
        bool, typer.Option(help="Match traditional Chinese as simplified in bm25 over --seeds.")
    ] = True,
    words: Annotated[
        str | None, typer.Option(help="File of words that bm25 over --seeds keeps, one per line.", show_default="none")
    ] = None,
    max_length: MaxLength = None,
    query_instruction: QueryInstruction = None,
    query_task: QueryTask = None,
    query_examples: QueryExamples = None,
    deobfuscate: Deobfuscate = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    ray: Ray = None,
    workers: Workers = None,
    shards: Shards = None,
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Search seeds by several routes at once, fuse the rankings, and optionally rerank.

    Adds topk_sim, topk_seed, topk_metadata and topk_evidence to each record; the last holds each route's score and
    rank.

    \b
    Examples:
      ecom-rag recall listings.jsonl --seeds seeds.jsonl --model starter --output recalled.jsonl
      ecom-rag recall listings.jsonl --bank bank --filter 'label in ("fraud","medical")' --output recalled.jsonl
      ecom-rag recall listings.jsonl --bank bank --policy policy.json --output decided.jsonl
      ecom-rag recall new.parquet --seeds seeds.jsonl --model ./bge-m3 --routes bm25,dense,sparse,multivector,variant
        --rerank ./bge-reranker-v2-m3 --depth 50 --output recalled.jsonl.gz
    """
    prepare(verbose)
    from ecom_rag.models.spec import ModelSpec
    from ecom_rag.pipeline import read_settings, recall_file

    settings, models = read_settings(
        config,
        {
            "routes": None if routes is None else [route.strip() for route in routes.split(",")],
            "fusion": fusion,
            "weights": None if weights is None else _weights(weights),
            "hybrid_weights": None if hybrid_weights is None else numbers(hybrid_weights, "--hybrid-weights"),
            "depth": depth,
            "top_k": top_k,
            "filter": filter,
            "exclude_self": exclude_self,
            "id_key": id_key,
            "label_key": label_key,
            "normalize": normalize,
            "blend": blend,
            "exact_multivector": exact_multivector,
            "model": model,
            "rerank": rerank,
        },
    )
    fitted = settings.fused_by if settings.fused_by.endswith(".json") else None
    check_apart(output, config, words, policy, reviewed, campaigns, fitted, query_examples, *models.values())
    place = placed(runtime, precision, device, batch_tokens)
    if bank is not None:  # its model is loaded as the bank was built
        spec: ModelSpec | None = ModelSpec(models.get("model"), place)
    elif "model" in models:
        own = {"max_length": max_length, "deobfuscate": bool(deobfuscate)}
        own |= instructed(query_instruction, query_task, query_examples)
        spec = ModelSpec(models["model"], {**place, **own})
    else:
        spec = None
    id_key = settings.id_key or "id"
    after = deciding(policy, strict, id_key, campaigns, flood_limit, reviewed)
    with bars() as progress, on_ray(ray, workers, shards) as cluster:
        summary = recall_file(
            queries,
            output,
            settings,
            seeds=seeds,
            bank=bank,
            model=spec,
            reranker=ModelSpec(models["rerank"], place) if "rerank" in models else None,
            analyzer=analysis(deobfuscate, stem=stem, simplify=simplify, words=_lines(words)),
            after=after,
            workers=cluster,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    what = f"recalled for {summary.records} records from {summary.seeds} seeds"
    report(what if after is None else f"{what}; {decided(summary)}", summary, output)


def _lines(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(line.strip() for line in Path(path).read_text("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error}); expected one word per line") from None


def _weights(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {route.strip(): float(weight) for route, weight in pairs}
    except ValueError:
        raise UsageError(f"--weights {text!r} does not fit; expected ROUTE=NUMBER,..., e.g. bm25=1,dense=0.5") from None
