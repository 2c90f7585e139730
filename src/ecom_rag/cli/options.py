"""Options and outputs that the commands share."""

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from ecom_rag.cli.console import Log, tell
from ecom_rag.errors import UsageError


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


class OnBadLine(StrEnum):
    """What a bad input line does."""

    fail = "fail"
    skip = "skip"


Output = Annotated[str, typer.Option("--output", "-o", help=".jsonl, .jsonl.gz, .json or .parquet; - is stdout.")]
Model = Annotated[str, typer.Option(help="Local folder, hub id, or 'starter' (small, English, needs no hub).")]
Runtime = Annotated[RuntimeName, typer.Option(help="auto: CUDA if there is one, else what is fastest on this CPU.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="auto: fp16 on a GPU, bf16 on a CPU with AMX, else fp32; int8 (CPU) is faster and moves scores."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BatchTokens = Annotated[int | None, typer.Option(help="Padded tokens a batch.", show_default="by device", min=1)]
ExcludeSelf = Annotated[
    bool | None,
    typer.Option(
        "--exclude-self",
        help="Leave a query out of its own results: a seed of its id or, where ids are missing, of its text.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")]
BadLine = Annotated[OnBadLine, typer.Option(help="skip: write refused lines to OUT.rejected.jsonl and go on.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was chosen and why.")]


def prepare(verbose: bool) -> None:
    """Our own log on stderr, other libraries' chatter off."""
    import warnings

    logging.basicConfig(level=logging.ERROR, handlers=[Log()])
    logging.getLogger("ecom_rag").setLevel(logging.INFO if verbose else logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    warnings.simplefilter("ignore")


def command_line(context: typer.Context, *, without: Collection[str]) -> str:
    """The command line of a run as a shell takes it, but for some options."""
    words = context.command_path.split()
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        source = getattr(context.get_parameter_source(name), "name", "")
        if name in without or source != "COMMANDLINE":
            continue
        option = max(parameter.secondary_opts if value is False else parameter.opts, key=len, default="")
        words += [option] if parameter.param_type_name == "option" else []
        words += [] if isinstance(value, bool) else map(str, value if isinstance(value, list) else [value])
    return shlex.join(words)


def check_apart(output: str, *read: str | None) -> None:
    """Raise ``UsageError`` if an output would take the place of a file of a model, or of another file that is read."""
    from ecom_rag.files import jobs

    jobs.check_not_read(output, read)


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
    for note in dict.fromkeys(held):
        tell(f"note: {note}")


def numbers(text: str) -> list[float]:
    """Comma-separated numbers of ``--weights``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r} are not numbers; expected three, e.g. 1,0.3,1") from None


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int | None], None] | None]:
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


def report(what: str, summary: Any, output: str) -> None:
    """The summary line at the end of a run."""
    done = summary.records - summary.resumed
    rate = f"{done / summary.seconds:.0f}/s" if summary.seconds > 0 else "-"
    resumed = f", {summary.resumed} of them before the interruption" if summary.resumed else ""
    target = "stdout" if output == "-" else output
    tell(f"{what}{resumed} in {summary.seconds:.1f} s ({rate}) -> {target}")
    for note in summary.notes:
        tell(f"note: {note}")
