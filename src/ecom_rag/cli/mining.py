"""mine, teach."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from ecom_rag.cli.options import (
    BatchTokens,
    Device,
    Precision,
    PrecisionOption,
    PromptInstruction,
    PromptTemplate,
    QueryInstruction,
    QueryTask,
    Resume,
    Runtime,
    RuntimeName,
    Template,
    Verbose,
    bars,
    check_apart,
    instructed,
    placed,
    prepare,
    report,
)
from ecom_rag.errors import UsageError

Jsonl = Annotated[str, typer.Option("--output", "-o", help="File to write: .jsonl or .jsonl.gz.", show_default=False)]


class Route(StrEnum):
    """What ranks the corpus."""

    dense = "dense"
    sparse = "sparse"
    multivector = "multivector"
    bm25 = "bm25"


class Pick(StrEnum):
    """Which of the candidates that are left are taken."""

    random = "random"
    top = "top"


class Teacher(StrEnum):
    """What kind of model scores."""

    reranker = "reranker"
    embedder = "embedder"


def mine(
    queries: Annotated[
        str,
        typer.Argument(help="JSON lines with query and pos, labelled records, or a BEIR folder.", show_default=False),
    ],
    output: Jsonl,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", "--corpus", help="File of records that negatives come from.", show_default="those of QUERIES"
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Encoder: local folder, hub id, or 'starter'.")] = None,
    route: Annotated[Route, typer.Option(help="Route that ranks the corpus; bm25 needs no model.")] = Route.dense,
    run: Annotated[
        str | None, typer.Option(help="Results of score, recall or rerank to take candidates from, without a search.")
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", "-n", help="Negatives per query.")] = 7,
    ranks: Annotated[str, typer.Option("--range", help="Ranks that negatives come from.")] = "10-100",
    margin: Annotated[
        float | None, typer.Option(help="Minimum distance of a negative's score below the lowest positive's.")
    ] = None,
    percentage: Annotated[
        float | None, typer.Option(help="Maximum score of a negative, as a share of the lowest positive's, e.g. 0.95.")
    ] = None,
    reranker: Annotated[str | None, typer.Option(help="Cross-encoder that finds false negatives.")] = None,
    reranker_threshold: Annotated[
        float | None, typer.Option(help="Maximum relevance of a negative by the reranker, 0 to 1, e.g. 0.5.")
    ] = None,
    reranker_margin: Annotated[
        float | None,
        typer.Option(help="Minimum distance of a negative's relevance below the lowest positive's, e.g. 0.1."),
    ] = None,
    pick: Annotated[Pick, typer.Option(help="Which remaining candidates: random, or top (hardest).")] = Pick.random,
    label: Annotated[str, typer.Option(help="Metadata key of the label; a.b for a nested one.")] = "label",
    positives: Annotated[int, typer.Option(help="With labelled records: positives per query, texts of its label.")] = 4,
    split: Annotated[str, typer.Option(help="Split of the BEIR folder.")] = "train",
    min_grade: Annotated[int, typer.Option(help="With a BEIR folder: lowest grade of a positive.")] = 1,
    judged_only: Annotated[
        bool,
        typer.Option("--judged-only", help="With a BEIR folder: negatives only from documents judged in the split."),
    ] = False,
    grades: Annotated[
        bool, typer.Option("--grades", help="With a BEIR folder: grades as pos_scores, 0 as neg_scores, for loss kl.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the choices.")] = 42,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Mine hard negatives for training, in FlagEmbedding's JSON lines.

    Known positives, texts of the query's own label and copies of either are never negatives; --margin,
    --percentage and --reranker keep out texts that are probably relevant though nobody judged them.

    \b
    Examples:
      ecom-rag mine train.jsonl --seeds seeds.jsonl --model BAAI/bge-m3 --percentage 0.95 --output mined.jsonl
      ecom-rag mine listings.jsonl --model starter --label policy --range 1-50 --output mined.jsonl
      ecom-rag mine beir --run recalled.jsonl --reranker ./bge-reranker --reranker-threshold 0.5 -o mined.jsonl
    """
    prepare(verbose)
    from ecom_rag.mining import Rules, mine_file
    from ecom_rag.mining.sources import Source, kind_of
    from ecom_rag.models.spec import ModelSpec

    check_apart(output, model, reranker)
    place = placed(runtime, precision, device, batch_tokens)
    first, last = _ranks(ranks)
    rules = Rules(negatives, first, last, margin, percentage, pick, seed, reranker_threshold, reranker_margin)
    source = Source(queries, kind_of(queries), split, min_grade, label, positives, seed, judged_only, grades)
    with bars() as progress:
        summary = mine_file(
            source,
            output,
            rules,
            seeds=seeds,
            run=run,
            route=route,
            model=ModelSpec(model, place) if model is not None else None,
            reranker=ModelSpec(reranker, place) if reranker is not None else None,
            resume=resume,
            progress=progress,
        )
    counts = summary.counts
    told = f"mined {counts['negatives']} negatives for {counts['written']} of {summary.records} queries"
    report(told, summary, output)


def teach(
    train: Annotated[
        str,
        typer.Argument(help="JSON lines with query, pos and neg to score.", metavar="TRAIN.jsonl", show_default=False),
    ],
    model: Annotated[str, typer.Option(help="Teacher model: local folder or hub id.", show_default=False)],
    output: Jsonl,
    teacher: Annotated[Teacher, typer.Option(help="Kind of the teacher model.")] = Teacher.reranker,
    mode: Annotated[
        str, typer.Option(help="Embedder output: dense, sparse, multivector, hybrid; auto: hybrid for a bge-m3.")
    ] = "auto",
    normalize: Annotated[bool, typer.Option("--normalize", help="Reranker scores in 0..1 instead of logits.")] = False,
    max_length: Annotated[int, typer.Option(help="Maximum tokens per pair; with an embedder, per text.")] = 512,
    query_instruction: QueryInstruction = None,
    query_task: QueryTask = None,
    template: PromptTemplate = Template.auto,
    instruction: PromptInstruction = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Fill pos_scores and neg_scores with a teacher's scores, for distillation.

    \b
    Examples:
      ecom-rag teach mined.jsonl --model BAAI/bge-reranker-v2-m3 --output taught.jsonl
      ecom-rag teach mined.jsonl --model BAAI/bge-m3 --teacher embedder --output taught.jsonl
      ecom-rag teach mined.jsonl --model Qwen/Qwen3-Reranker-0.6B --instruction "Find ..." --output taught.jsonl
    """
    prepare(verbose)
    from ecom_rag.mining.teaching import teach_file
    from ecom_rag.models.spec import ModelSpec

    check_apart(output, model)
    embedder = teacher is Teacher.embedder
    own: dict[str, Any] = {"template": template, "instruction": instruction}
    if embedder:
        own = instructed(query_instruction, query_task, None)
    spec = ModelSpec(model, {**placed(runtime, precision, device, batch_tokens), "max_length": max_length, **own})
    with bars() as progress:
        summary = teach_file(
            train,
            output,
            spec,
            embedder=embedder,
            mode=mode,
            normalize=normalize,
            resume=resume,
            progress=progress,
        )
    report(f"scored {summary.counts['pairs']} pairs of {summary.records} queries", summary, output)


def _ranks(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.strip().isdecimal() and last.strip().isdecimal()):
        raise UsageError(f"--range {text!r} is not understood; expected two ranks, e.g. 10-100")
    return int(first), int(last)
