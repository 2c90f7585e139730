"""The command line: parse, call, print. All work is done in ``pipeline``; torch is not imported before it is needed."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

import ecom_rag
from ecom_rag.errors import EcomRagError, UsageError

# typer carries its own copy of click, whose error classes it does not export by name.
_ClickError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_INTERRUPTED = 130

app = typer.Typer(
    name="ecom-rag",
    help="Governance retrieval for e-commerce: score listings against a bank of judged seed texts, and rerank them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


class Mode(StrEnum):
    """Which of the encoder's outputs score."""

    dense = "dense"
    sparse = "sparse"
    multivector = "multivector"
    hybrid = "hybrid"


class RuntimeName(StrEnum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


class Precision(StrEnum):
    """How exactly the network computes."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class OnBadLine(StrEnum):
    """What a bad input line does."""

    fail = "fail"
    skip = "skip"


Output = Annotated[str, typer.Option("--output", "-o", help=".jsonl, .jsonl.gz, .json or .parquet; - is stdout.")]
Model = Annotated[str, typer.Option(help="Local folder, hub id, or 'starter' (small, English, needs no hub).")]
Runtime = Annotated[RuntimeName, typer.Option(help="auto: CUDA if there is one, else OpenVINO.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: bf16 on a CPU that has it, fp16 on a GPU, else fp32.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BatchTokens = Annotated[int | None, typer.Option(help="Padded tokens a batch.", show_default="by device", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")]
BadLine = Annotated[OnBadLine, typer.Option(help="skip: write refused lines to OUT.rejected.jsonl and go on.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was chosen and why.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"ecom-rag {ecom_rag.__version__}")
        raise typer.Exit


@app.command()
def score(
    queries: Annotated[str, typer.Argument(help="Records {text, metadata}; - is stdin.", show_default=False)],
    seeds: Annotated[str, typer.Option(help="The seed bank: records {text, metadata}.", show_default=False)],
    model: Model,
    output: Output,
    mode: Annotated[Mode, typer.Option(help="sparse, multivector and hybrid need a bge-m3 checkpoint.")] = Mode.dense,
    weights: Annotated[str, typer.Option(help="Of dense, sparse, multivector under --mode hybrid.")] = "1,1,1",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Seeds a query.")] = 10,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    query_instruction: Annotated[
        str | None,
        typer.Option(help="Put before queries; '' for none.", show_default="the checkpoint's or its family's"),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="cls, mean or last.", show_default="the checkpoint's")] = None,
    truncate_dim: Annotated[int | None, typer.Option(help="Matryoshka: keep the first dimensions.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a text.", show_default="the checkpoint's, at most 512")
    ] = None,
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
      zcat new.jsonl.gz | ecom-rag score - --seeds seeds.jsonl --model BAAI/bge-base-zh-v1.5 --output - | head
    """
    _prepare(verbose)

    def load() -> Any:
        from ecom_rag.models import Encoder

        return Encoder.from_pretrained(
            model,
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=batch_tokens,
            max_length=max_length,
            pooling=pooling,
            query_instruction=query_instruction,
            truncate_dim=truncate_dim,
        )

    from ecom_rag.pipeline import score_file

    with _bars() as progress:
        summary = score_file(
            queries,
            seeds,
            output,
            load,
            mode=mode,
            weights=_numbers(weights),
            top_k=top_k,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    _report(f"scored {summary.records} records against {summary.seeds} seeds", summary, output)


@app.command()
def rerank(
    results: Annotated[str, typer.Argument(help="Results of score or recall; - is stdin.", show_default=False)],
    model: Annotated[str, typer.Option(help="Local folder or hub id of a cross-encoder.", show_default=False)],
    output: Output,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", help="Keep this many.", show_default="all")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Relevance in 0..1 instead of logits.")] = False,
    max_length: Annotated[int, typer.Option(help="Tokens a pair; of the query at most 3/4 of it.")] = 512,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
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
      ecom-rag rerank recalled.jsonl.gz --model ./bge-reranker-base --normalize --top-k 5 --output reranked.parquet
    """
    _prepare(verbose)

    def load() -> Any:
        from ecom_rag.models import CrossEncoder

        return CrossEncoder.from_pretrained(
            model,
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=batch_tokens,
            max_length=max_length,
        )

    from ecom_rag.pipeline import rerank_file

    with _bars() as progress:
        summary = rerank_file(
            results,
            output,
            load,
            top_k=top_k,
            normalize=normalize,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    _report(f"reranked {summary.records} records", summary, output)


@app.command()
def demo(
    folder: Annotated[str, typer.Option(help="Where the sample files and the result go.")] = "demo_output",
    show_all: Annotated[bool, typer.Option("--all", help="Print every listing, Chinese ones too.")] = False,
    verbose: Verbose = False,
) -> None:
    """Score the packaged sample listings against the packaged seed bank and show what was found.

    \b
    Example:
      ecom-rag demo --folder demo_output
    """
    _prepare(verbose)
    from ecom_rag.demo import run

    run(folder, show_all=show_all)


def main() -> None:
    """Entry point: errors in one line, exit 2; an interruption exits 130."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer has swallowed a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except _ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        _fail(f"{error.format_message().rstrip('.')}; see {_command_path(error)} --help")
    except (KeyboardInterrupt, typer.Abort):
        print("ecom-rag: interrupted; the same command with --resume goes on from here", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except EcomRagError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of our pipe, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}; mend that, then run again with --resume")


def _command_path(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "ecom-rag"


def _fail(message: str) -> None:
    print(f"ecom-rag: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _prepare(verbose: bool) -> None:
    """Our own log on stderr, other libraries' chatter off."""
    import warnings

    logging.basicConfig(format="ecom-rag: %(message)s", level=logging.ERROR, stream=sys.stderr)
    logging.getLogger("ecom_rag").setLevel(logging.INFO if verbose else logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    warnings.simplefilter("ignore")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r} are not numbers; expected three, e.g. 1,0.3,1") from None


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Progress bars on stderr, one a stage, where it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in bars:
            bars[stage] = tqdm(desc=stage, total=total, unit="", file=sys.stderr, dynamic_ncols=True)
        bars[stage].update(done)

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


def _report(what: str, summary: Any, output: str) -> None:
    done = summary.records - summary.resumed
    rate = f"{done / summary.seconds:.0f}/s" if summary.seconds > 0 else "-"
    resumed = f", {summary.resumed} of them before the interruption" if summary.resumed else ""
    target = "stdout" if output == "-" else output
    print(f"ecom-rag: {what}{resumed} in {summary.seconds:.1f} s ({rate}) -> {target}", file=sys.stderr)
    for note in summary.notes:
        print(f"ecom-rag: note: {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
