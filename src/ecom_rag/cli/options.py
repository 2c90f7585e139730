"""Options and outputs that the commands share."""

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from ecom_rag.cli.console import Log, shows_progress, tell, tell_notes
from ecom_rag.errors import UsageError
from ecom_rag.files.progress import Progress


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
    int8 = "int8"


class Template(StrEnum):
    """In which prompt a language model reads a pair."""

    auto = "auto"
    bge = "bge"
    qwen3 = "qwen3"


class OnBadLine(StrEnum):
    """What a bad input line does."""

    fail = "fail"
    skip = "skip"


Queries = Annotated[
    str,
    typer.Argument(
        help="Query records {text, metadata}: .jsonl, .csv, .tsv, .json, .parquet; - is stdin.", show_default=False
    ),
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", help="Output: .jsonl, .csv, .tsv (also with .gz), .json, .parquet; - is stdout."),
]
Filter = Annotated[
    str | None,
    typer.Option(
        help="Search only seeds whose metadata match, e.g. 'label = \"fraud\" and price < 9'.", show_default="none"
    ),
]
IdKey = Annotated[
    str | None, typer.Option(help="Metadata key of the ids of queries and seeds.", show_default="id, or the bank's")
]
Runtime = Annotated[RuntimeName, typer.Option(help="Runtime; auto: torch on a GPU, the faster one on a CPU.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="Precision; auto: fp16 on GPUs, bf16 on CPUs that are faster in it, else fp32; int8 (CPU) shifts scores."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N; auto is cuda where a GPU is visible.")]
BatchTokens = Annotated[int | None, typer.Option(help="Maximum tokens per batch.", show_default="by device", min=1)]
ExcludeSelf = Annotated[
    bool | None,
    typer.Option(
        "--exclude-self",
        help="Leave out seeds that are the query itself: its id or, where ids are missing, its text.",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="File of seeds to search, records {text, metadata}; or use --bank.", show_default=False),
]
Bank = Annotated[
    str | None,
    typer.Option(
        help="Seed bank to search: folder, or {postgresql,milvus}://HOST/DATABASE?bank=NAME; or use --seeds.",
        show_default=False,
    ),
]
QueryInstruction = Annotated[
    str | None,
    typer.Option(
        help="Instruction put before each query, or around it where it holds {text}; '' for none.",
        show_default="the checkpoint's",
    ),
]
QueryTask = Annotated[
    str | None,
    typer.Option(
        help="Task of a model tuned on instructions: a description, or a name such as governance (see ecom-rag"
        " models).",
        show_default="the checkpoint's",
    ),
]
QueryExamples = Annotated[
    str | None,
    typer.Option(
        help="JSON lines {query, response} that show bge-en-icl the task, put before each query.", show_default="none"
    ),
]
PromptTemplate = Annotated[Template, typer.Option(help="Prompt of a language model; auto: by its architecture.")]
PromptInstruction = Annotated[
    str | None,
    typer.Option(help="What the prompt of a language model asks of query and seed.", show_default="the model's"),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Maximum tokens per text.", show_default="the checkpoint's, at most 512")
]
Pooling = Annotated[
    str | None, typer.Option(help="Pooling of the token vectors: cls, mean or last.", show_default="the checkpoint's")
]
TruncateDim = Annotated[int | None, typer.Option(help="Number of leading dimensions to keep (Matryoshka models).")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted run of the same command.")]
BadLine = Annotated[OnBadLine, typer.Option(help="On a bad line: fail, or skip it into OUT.rejected.jsonl.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print what was chosen and why.")]


def instructed(instruction: str | None, task: str | None, examples: str | None) -> dict[str, Any]:
    """The options of an encoder that say what stands around a query; reads the file of examples."""
    shown: list[Any] = []
    if examples is not None:
        from ecom_rag.files.records import objects
        from ecom_rag.models.instructions import examples_of

        shown = list(examples_of([example for _, example in objects(examples)], examples))
    return {"query_instruction": instruction, "query_task": task, "query_examples": shown}


def placed(runtime: str, precision: str, device: str, batch_tokens: int | None) -> dict[str, Any]:
    """Where and how a model runs, as arguments of ``from_pretrained``."""
    return {"runtime": runtime, "precision": precision, "device": device, "batch_tokens": batch_tokens}


def prepare(verbose: bool) -> None:
    """Our own log on stderr, other libraries' chatter off."""
    import warnings

    logging.basicConfig(level=logging.ERROR, handlers=[Log()])
    logging.getLogger("ecom_rag").setLevel(logging.INFO if verbose else logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if shows_progress() else "1")
    warnings.simplefilter("ignore")


def command_line(context: typer.Context, *, without: Collection[str]) -> str:
    """The command line of a run as a shell takes it, but for some options."""
    words = context.command_path.split()
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        source = getattr(context.get_parameter_source(name), "name", "")
        if name in without or name not in context.params or source != "COMMANDLINE":
            continue
        option = max(parameter.secondary_opts if value is False else parameter.opts, key=len, default="")
        words += [option] if parameter.param_type_name == "option" else []
        words += [] if isinstance(value, bool) else map(str, value if isinstance(value, list) else [value])
    return shlex.join(words)


def check_apart(output: str, *read: str | None) -> None:
    """Raise ``UsageError`` if an output would take the place of a file of a model, or of another file that is read."""
    from ecom_rag.files import jobs

    jobs.check_not_read(output, read)


def check_outputs(paths: Iterable[str | None], read: Iterable[str | None]) -> None:
    """Raise ``UsageError`` if an output would take the place of a file that is read, or of another output."""
    from ecom_rag.files import publish

    targets = [publish.target_of(path) for path in paths if path is not None and path != "-"]
    places = [os.path.realpath(target.path) for target in targets if not target.stream]
    read = list(read)
    for target in targets:
        if places.count(os.path.realpath(target.path)) > 1:
            raise UsageError(f"{target.name}: is named for two outputs; give each its own")
        publish.check_not_read(target, read)


@contextlib.contextmanager
def names_told_last() -> Iterator[None]:
    """What a folder's name decided is a note after a run that ended well; an error stays one line alone."""
    held: list[str] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record.getMessage())
        return False

    decided = logging.getLogger("ecom_rag.models.names")
    decided.addFilter(hold)
    try:
        yield
    finally:
        decided.removeFilter(hold)
    tell_notes(dict.fromkeys(held))


def names(text: str | None) -> tuple[str, ...]:
    """Comma-separated names of an option, none where it is not given."""
    return () if text is None else tuple(part.strip() for part in text.split(","))


def numbers(text: str, option: str = "--weights") -> list[float]:
    """Three comma-separated numbers of an option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text!r} are not numbers; expected three, e.g. 1,0.3,1") from None


def whole_numbers(text: str, option: str) -> list[int]:
    """Comma-separated whole numbers of an option."""
    parts = names(text)
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"{option} {text!r} are not whole numbers; expected e.g. 24,40")
    return [int(part) for part in parts]


@contextlib.contextmanager
def bars() -> Iterator[Progress | None]:
    """Progress bars on stderr where somebody watches: one at a time, each with the clock of its own stage.

    A stage that comes back goes on from its count and its time.
    """
    if not shows_progress():
        yield None
        return
    from tqdm import tqdm

    bar: Any = None
    shown = ""
    before: dict[str, tuple[int, float]] = {}  # how many and how many seconds, of each stage that has a bar

    def close() -> None:
        if bar is not None:
            before[shown] = bar.n, bar.format_dict["elapsed"]
            bar.close()

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal bar, shown
        if bar is None or stage != shown:
            close()
            count, seconds = before.get(stage, (0, 0.0))
            bar = tqdm(desc=stage, total=total, unit="", file=sys.stderr, dynamic_ncols=True)
            bar.n = bar.last_print_n = count
            bar.start_t -= seconds
            shown = stage
        bar.update(done)

    try:
        yield progress
    finally:
        close()


def report(what: str, summary: Any, output: str) -> None:
    """The summary line at the end of a run."""
    done = summary.records - summary.resumed
    rate = f"{done / summary.seconds:.0f}/s" if summary.seconds > 0 else "-"
    resumed = f", {summary.resumed} of them before the interruption" if summary.resumed else ""
    target = "stdout" if output == "-" else output
    tell(f"{what}{resumed} in {summary.seconds:.1f} s ({rate}) -> {target}")
    tell_notes(summary.notes)
