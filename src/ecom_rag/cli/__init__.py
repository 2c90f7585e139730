"""The command line: parse, call, print. All work is done in the library; torch is not imported before it is needed.

A module holds the commands of one subject; this one puts them together. How a command ends is in ``guard``.
"""

import os
import sys
from typing import Annotated

import typer

from ecom_rag._version import __version__
from ecom_rag.cli import (
    audit,
    bank,
    decide,
    evaluate,
    everyday,
    journal,
    keys,
    merge,
    mining,
    models,
    recall,
    scan,
    serve,
    train,
    watching,
)
from ecom_rag.cli.command import Command
from ecom_rag.cli.guard import guarded

app = typer.Typer(
    name="ecom-rag",
    help="Governance retrieval for e-commerce: score listings against a bank of judged seed texts, and rerank them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"ecom-rag {__version__}")
        raise typer.Exit


for command in (
    everyday.score,
    everyday.rerank,
    recall.recall,
    decide.calibrate,
    decide.decide,
    audit.audit,
    scan.scan,
    evaluate.evaluate,
    mining.mine,
    mining.teach,
    merge.merge,
    models.models,
    watching.choose,
    watching.monitor,
    serve.serve,
    everyday.demo,
):
    app.command(cls=Command)(command)
app.add_typer(train.app)
app.add_typer(bank.app)
app.add_typer(keys.app)
app.add_typer(journal.app)


def main() -> None:
    """Entry point: errors in one line, exit 2; an alarm of monitor exits 3, an interruption 130."""
    sys.exit(guarded(_call))


def _call() -> None:
    """The command that the arguments name; typer's own way would end it with exit 1 where a pipe is closed."""
    command = typer.main.get_command(app)
    if os.environ.get("_ECOM_RAG_COMPLETE"):  # a shell asks what may follow
        command.main(prog_name="ecom-rag")
    with command.make_context("ecom-rag", sys.argv[1:]) as context:
        command.invoke(context)
