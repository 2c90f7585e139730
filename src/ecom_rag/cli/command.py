"""What all commands share: ``--quiet``, values from the environment, and the refusal of options without effect."""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ecom_rag.cli import wording
from ecom_rag.cli.console import silenced
from ecom_rag.cli.idle import AMBIENT, TABLES
from ecom_rag.cli.idle_values import MORE
from ecom_rag.cli.options import names_told_last
from ecom_rag.errors import UsageError
from ecom_rag.idle import missing, refuse_idle

_VARIABLES = {
    "runtime": "ECOM_RAG_RUNTIME",
    "precision": "ECOM_RAG_PRECISION",
    "encoder_precision": "ECOM_RAG_PRECISION",
    "device": "ECOM_RAG_DEVICE",
    "batch_tokens": "ECOM_RAG_BATCH_TOKENS",
}
# Where the model is the encoder or the reranker that searches. Not of bank add, whose bank names its own; nor of
# evaluate, which a model makes search; nor of teach, train and merge, whose models are what is worked on.
_MODELS = {
    ("score", "model"): "ECOM_RAG_MODEL",
    ("recall", "model"): "ECOM_RAG_MODEL",
    ("mine", "model"): "ECOM_RAG_MODEL",
    ("build", "model"): "ECOM_RAG_MODEL",
    ("recall", "rerank"): "ECOM_RAG_RERANK",
    ("rerank", "model"): "ECOM_RAG_RERANK",
    ("calibrate", "model"): "ECOM_RAG_MODEL",
    ("audit", "model"): "ECOM_RAG_MODEL",
    ("serve", "model"): "ECOM_RAG_MODEL",
    ("serve", "rerank"): "ECOM_RAG_RERANK",
    ("serve", "bank"): "ECOM_RAG_BANK",
    ("serve", "policy"): "ECOM_RAG_POLICY",
    ("serve", "state"): "ECOM_RAG_STATE",
    ("serve", "host"): "ECOM_RAG_HOST",
    ("serve", "port"): "ECOM_RAG_PORT",
    ("serve", "keys"): "ECOM_RAG_KEYS",
}
_NOT_OURS = {("calibrate", "precision"), ("audit", "precision")}  # what is promised, not how an encoder computes
_STREAMS = ("score", "recall", "rerank", "decide", "scan")  # files of any length, a block of records at a time
_template = typer.Typer(add_completion=False)


@_template.command()
def _shared(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress bars, summary or notes; errors are still printed.")
    ] = False,
) -> None:
    """Options of every command."""


[_QUIET] = typer.main.get_command(_template).params


class Command(TyperCommand):
    """A command that may be quiet and refuses options without effect before it runs."""

    def __init__(self, name: str | None, *, params: Sequence[Any] | None = None, **settings: Any) -> None:
        super().__init__(name, params=[*(params or ()), _QUIET], **settings)
        for parameter in self.params:
            own = str(parameter.name)
            if (name, own) not in _NOT_OURS:
                parameter.envvar = _MODELS.get((str(name), own)) or _VARIABLES.get(own)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override,unused-ignore]
        """Check the options, then run.

        Raises:
            UsageError: An option that would change nothing, or two that contradict each other.
        """
        check(ctx)
        quiet = ctx.params.pop("quiet")
        if quiet and ctx.params.get("verbose"):
            raise UsageError("--verbose and --quiet contradict each other; leave one of them out")
        with silenced(quiet), names_told_last(), _collected_rarely(self.name in _STREAMS):
            return super().invoke(ctx)


@contextlib.contextmanager
def _collected_rarely(rarely: bool) -> Iterator[None]:
    """Look for cycles as rarely as ``jobs.COLLECTED`` says, which took a third of the time of ``decide``."""
    before = gc.get_threshold()
    if rarely:
        from ecom_rag.files.jobs import COLLECTED

        gc.set_threshold(*COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def check(context: typer.Context) -> None:
    """Refuse the options of a command line that would change nothing, and forget such values of the environment.

    Nobody gave the latter for this very command. What ``--config`` says goes before them too.

    Raises:
        UsageError: There is one.
    """
    name = _name(context)
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    given = [key for key in parameters if _source(context, key) == "COMMANDLINE"]
    values, config = dict(context.params), {}
    wording.remember(context.command.params)
    if values.get("config") is not None:
        from ecom_rag.pipeline.settings import read_toml

        config = {key: value for key, value in read_toml(values["config"]).items() if key not in given}
        values |= config
        wording.remember(context.command.params, values["config"], config)
    more = MORE.get(name)
    if more is not None:
        found = more(values)
        if found is None:  # what is wrong there the command itself tells better
            return
        values |= found
    for key in parameters:
        if _source(context, key) == "ENVIRONMENT":
            table = AMBIENT.get(name, TABLES[name])
            if key in config or missing(key, values, table) is not None:
                context.params[key] = parameters[key].get_default(context)

    def spelled(key: str) -> str:
        if key in config:
            return f"{context.params['config']}: {key}"
        parameter = parameters[key]
        off = values[key] is False and parameter.secondary_opts
        return str(max(off or parameter.opts, key=len))

    refuse_idle([*given, *config], values, TABLES[name], spelled=spelled)


def _name(context: typer.Context) -> str:
    """The command without the program's own name, e.g. ``bank build``."""
    names: list[str] = []
    at: Any = context
    while at.parent is not None:
        names.insert(0, at.info_name)
        at = at.parent
    return " ".join(names)


def _source(context: typer.Context, key: str) -> str:
    """Where the value of an option comes from: ``COMMANDLINE``, ``ENVIRONMENT`` or ``DEFAULT``."""
    return str(getattr(context.get_parameter_source(key), "name", ""))
