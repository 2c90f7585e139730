"""score, rerank, demo."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from ecom_rag.cli.cluster import Ray, Shards, Workers, on_ray
from ecom_rag.cli.console import tell
from ecom_rag.cli.options import (
    BadLine,
    Bank,
    BatchTokens,
    Device,
    ExcludeSelf,
    Filter,
    IdKey,
    MaxLength,
    Mode,
    OnBadLine,
    Output,
    Pooling,
    Precision,
    PrecisionOption,
    PromptInstruction,
    PromptTemplate,
    Queries,
    QueryExamples,
    QueryInstruction,
    QueryTask,
    Resume,
    Runtime,
    RuntimeName,
    Seeds,
    Template,
    TruncateDim,
    Verbose,
    bars,
    check_apart,
    instructed,
    numbers,
    placed,
    prepare,
    report,
    whole_numbers,
)
from ecom_rag.cli.reading import Deobfuscate


class When(StrEnum):
    """Which records are reranked."""

    always = "always"
    open = "open"


def score(
    queries: Queries,
    output: Output,
    seeds: Seeds = None,
    bank: Bank = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Encoder: local folder, hub id, or 'starter' (small, 100 languages, needs no hub).",
            show_default="the bank's",
        ),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Scoring output; all but dense need a bge-m3 checkpoint.")] = Mode.dense,
    weights: Annotated[str, typer.Option(help="Weights of dense, sparse, multivector under --mode hybrid.")] = "1,1,1",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Results per query.")] = 10,
    filter: Filter = None,
    exclude_self: ExcludeSelf = None,
    id_key: IdKey = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    query_instruction: QueryInstruction = None,
    query_task: QueryTask = None,
    query_examples: QueryExamples = None,
    pooling: Pooling = None,
    truncate_dim: TruncateDim = None,
    max_length: MaxLength = None,
    deobfuscate: Deobfuscate = None,
    ray: Ray = None,
    workers: Workers = None,
    shards: Shards = None,
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Find the most similar seeds of each query, with scores and metadata.

    Adds topk_sim (descending), topk_seed and topk_metadata to each record.

    \b
    Examples:
      ecom-rag score listings.jsonl --seeds seeds.jsonl --model starter --output scored.jsonl
      ecom-rag score new.parquet --seeds seeds.jsonl --model ./bge-m3 --mode hybrid --weights 1,0.3,1 -o out.jsonl.gz
      ecom-rag score listings.jsonl --bank bank --filter 'label = "fraud"' --output scored.jsonl
      zcat new.jsonl.gz | ecom-rag score - --seeds seeds.jsonl --model BAAI/bge-base-zh-v1.5 --output - | head
    """
    prepare(verbose)
    check_apart(output, model, query_examples)

    from ecom_rag.models.spec import ModelSpec
    from ecom_rag.pipeline import score_file

    options: dict[str, Any] = placed(runtime, precision, device, batch_tokens)
    if bank is None:  # a bank's model is loaded as the bank was built
        options |= {
            "max_length": max_length,
            "pooling": pooling,
            **instructed(query_instruction, query_task, query_examples),
            "truncate_dim": truncate_dim,
            "deobfuscate": bool(deobfuscate),
        }
    spec = ModelSpec(model, options) if model is not None or bank is not None else None
    with bars() as progress, on_ray(ray, workers, shards) as cluster:
        summary = score_file(
            queries,
            output,
            seeds=seeds,
            bank=bank,
            model=spec,
            mode=mode,
            weights=numbers(weights),
            top_k=top_k,
            filter=filter,
            exclude_self=bool(exclude_self),
            id_key=id_key,
            workers=cluster,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    report(f"scored {summary.records} records against {summary.seeds} seeds", summary, output)


def rerank(
    results: Annotated[str, typer.Argument(help="File of results of score or recall; - is stdin.", show_default=False)],
    model: Annotated[str, typer.Option(help="Cross-encoder: local folder, hub id, or 'starter'.", show_default=False)],
    output: Output,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", help="Results to keep per query.", show_default="all")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Write relevance in 0..1 instead of logits.")] = False,
    blend: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the relevance in the order; the rest is the earlier score's.")
    ] = 1.0,
    when: Annotated[
        When, typer.Option(help="Which records: always all; open: those of which a person must look (decide).")
    ] = When.always,
    reuse: Annotated[
        str | None,
        typer.Option(help="File that keeps scores from run to run, made if missing.", show_default="none"),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Maximum tokens per pair; the query gets at most 3/4 of them.")] = 512,
    template: PromptTemplate = Template.auto,
    instruction: PromptInstruction = None,
    exit_layer: Annotated[
        int | None,
        typer.Option(help="Layer of a layerwise reranker after which its score is read.", show_default="the last"),
    ] = None,
    compress_ratio: Annotated[
        int | None,
        typer.Option(help="Tokens of a seed that a lightweight reranker merges: 1, 2, 4 or 8.", show_default="1"),
    ] = None,
    compress_layers: Annotated[
        str | None, typer.Option(help="Layers before which it does, e.g. 24,40.", show_default="8")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    ray: Ray = None,
    workers: Workers = None,
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Re-sort the candidates of each result by a cross-encoder's relevance.

    topk_sim, topk_seed, topk_metadata and topk_evidence move together; the earlier score and rank of each candidate are
    kept in topk_evidence.

    \b
    Examples:
      ecom-rag rerank scored.jsonl --model BAAI/bge-reranker-v2-m3 --output reranked.jsonl
      ecom-rag rerank scored.jsonl --model starter --blend 0.3 --output reranked.jsonl
      ecom-rag rerank recalled.jsonl.gz --model ./bge-reranker-base --normalize --top-k 5 --output reranked.parquet
      ecom-rag rerank decided.jsonl --model ./bge-reranker-v2-m3 --when open --reuse scores.db --output reranked.jsonl
      ecom-rag rerank recalled.jsonl --model ./bge-reranker-v2-minicpm-layerwise --exit-layer 28 --output reranked.jsonl
    """
    prepare(verbose)
    check_apart(output, model, reuse)

    from ecom_rag.models.spec import ModelSpec
    from ecom_rag.pipeline import rerank_file

    options = {
        **placed(runtime, precision, device, batch_tokens),
        "max_length": max_length,
        "template": template,
        "instruction": instruction,
        "exit_layer": exit_layer,
        "compress_ratio": compress_ratio,
        "compress_layers": None if compress_layers is None else whole_numbers(compress_layers, "--compress-layers"),
    }
    with bars() as progress, on_ray(ray, workers) as cluster:
        summary = rerank_file(
            results,
            output,
            ModelSpec(model, options),
            top_k=top_k,
            normalize=normalize,
            blend=blend,
            when=when,
            reuse=reuse,
            workers=cluster,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    report(_reranked(summary), summary, output)


def _reranked(summary: Any) -> str:
    """What was reranked, and what that was spared."""
    counts, total = summary.counts, summary.records
    part = f"{counts['open']} of {total}" if counts["open"] < total else str(total)
    pairs = counts["known"] + counts["computed"]
    return f"reranked {part} records" + (f", {counts['known']} of {pairs} pairs known from before" if pairs else "")


def demo(
    folder: Annotated[str, typer.Option(help="Folder for the sample files and the results.")] = "demo_output",
    show_all: Annotated[bool, typer.Option("--all", help="Print every listing.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the sample bank over HTTP, with listings to review in a browser.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --serve; 0 for a free one.", min=0, max=65535)] = 8000,
    verbose: Verbose = False,
) -> None:
    """Decide the packaged sample listings, say why and what is promised, and write a page.

    \b
    Examples:
      ecom-rag demo --folder demo_output
      ecom-rag demo --serve
    """
    prepare(verbose)
    if serve:
        from ecom_rag.cli.serve import installed, logged

        with installed():
            from ecom_rag.demo.service import run_service
        with logged(verbose):
            run_service(folder, port=port, told=tell)
        tell("stopped")
        return
    from ecom_rag.demo import run

    run(folder, show_all=show_all)
