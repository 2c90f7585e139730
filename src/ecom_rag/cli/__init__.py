"""The command line: parse, call, print. All work is done in the library; torch is not imported before it is needed.

A module holds the commands of one subject; this one puts them together and turns errors into one line and an exit code.
"""

import os
import sys
from typing import Annotated, Any

import typer

import ecom_rag
from ecom_rag.cli import bank, evaluate, everyday, merge, mining, recall, train
from ecom_rag.cli.options import names_told_last
from ecom_rag.errors import EcomRagError

# typer carries its own copy of click, whose error classes it does not export by name.
_ClickError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_INTERRUPTED = 130
_RESUMABLE = frozenset(("score", "rerank", "recall", "mine", "teach", "train", "build"))

app = typer.Typer(
    name="ecom-rag",
    help="Governance retrieval for e-commerce: score listings against a bank of judged seed texts, and rerank them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"ecom-rag {ecom_rag.__version__}")
        raise typer.Exit


for command in (
    everyday.score,
    everyday.rerank,
    recall.recall,
    evaluate.evaluate,
    mining.mine,
    mining.teach,
    merge.merge,
    everyday.demo,
):
    app.command()(command)
app.add_typer(train.app)
app.add_typer(bank.app)


def main() -> None:
    """Entry point: errors in one line, exit 2; an interruption exits 130."""
    try:
        with names_told_last():
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
        remedy = "; the same command with --resume goes on from here" if _resumable() else ""
        print(f"ecom-rag: interrupted{remedy}", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except EcomRagError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of our pipe, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "mend that, then run again" + (" with --resume" if _resumable() else "")
        _fail(f"{place}{error.strerror or error}; {remedy}")


def _resumable() -> bool:
    """Whether the command that was called knows ``--resume``."""
    return not _RESUMABLE.isdisjoint(sys.argv[1:3])


def _command_path(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "ecom-rag"


def _fail(message: str) -> None:
    print(f"ecom-rag: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
