"""Every end of a command in one line and an exit code, never a traceback.

The codes are 0 for done, 2 for an error, 3 for an alarm (the run ended well, and found what it watches for) and 130 for
an interruption.

``ECOM_RAG_TRACEBACK=1`` prints the traceback too.
"""

import ast
import difflib
import os
import re
import sqlite3
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from ecom_rag.cli.console import flush, reader_gone, repair_streams, silence, tell
from ecom_rag.cli.wording import worded
from ecom_rag.errors import EcomRagError, is_resumable
from ecom_rag.files.publish import ReaderGoneError

# typer carries its own copy of click, whose error classes it does not export by name.
_ClickError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

# How typer words a value that is none of an option's choices.
_CHOICE = re.compile(r"(?:Value error, )?(?P<value>['\"].*['\"]) is not one of (?P<choices>'.*')\.?", re.DOTALL)

ALARM = 3
_FAILED = 2
_INTERRUPTED = 130
# What libraries say of a full disk or memory, in errors of their own classes.
_KNOWN = (
    ("No space left on device", "the disk is full; make room, then run again"),
    ("PytorchStreamWriter failed writing", "a checkpoint could not be written; is the disk full? make room"),
    ("Disk quota exceeded", "the disk quota is used up; make room, then run again"),
    ("can't allocate memory", "the memory is full; give smaller --batch-tokens or a smaller input"),
)


def guarded(command: Callable[[], Any]) -> int:
    """Call a command and tell how it ended.

    Args:
        command: Does the work.

    Returns:
        The exit code.
    """
    repair_streams()
    try:
        command()
        flush()
    except typer.Exit as ended:
        return _flushed(ended.exit_code)
    except BaseException as error:
        return _ended(error)
    return 0


def _flushed(code: int) -> int:
    try:
        flush()
    except (BrokenPipeError, EcomRagError) as error:
        return _ended(error)
    return code


def _ended(error: BaseException) -> int:
    """Tell of an error in one line; the exit code."""
    if os.environ.get("ECOM_RAG_TRACEBACK") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, ReaderGoneError) or (isinstance(error, BrokenPipeError) and reader_gone()):
        silence(1)  # the reader of our pipe, e.g. head, has seen enough
        return 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else _FAILED
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        tell(f"interrupted{_how_to_go_on(error)}")
        code = _INTERRUPTED
    elif isinstance(error, _ClickError):
        code = _misused(error)
    else:
        tell(_sentence(error))
        code = _FAILED
    try:
        flush()
    except (OSError, EcomRagError):
        silence(1)
    return code


def _misused(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        try:
            error.show()
        except OSError:
            silence(2)
        return _FAILED
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ecom-rag"
    told = _unknown_choice(error) or error.format_message().replace("Value error, ", "").rstrip(".")
    tell(f"{told}; see {path} --help")
    return _FAILED


def _unknown_choice(error: Any) -> str | None:
    """The sentence for a value that is none of an option's choices; ``None`` for other errors."""
    found = _CHOICE.fullmatch(getattr(error, "message", ""))
    if found is None or error.param is None:
        return None
    value, choices = ast.literal_eval(found["value"]), ast.literal_eval(f"[{found['choices']}]")
    source = getattr(error.ctx and error.ctx.get_parameter_source(error.param.name), "name", "")
    name = error.param.envvar if source == "ENVIRONMENT" else max(error.param.opts, key=len)
    expected = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    near = difflib.get_close_matches(value, choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{name} {value!r} is unknown; expected {expected}{hint}"


def _sentence(error: BaseException) -> str:
    """What happened and what to do."""
    if isinstance(error, EcomRagError):
        return worded(str(error))
    if isinstance(error, OSError):
        remedy = "run again with --resume" if is_resumable(error) else "run again"
        return f"{_place(error)}{error.strerror or error}; mend that, then {remedy}"
    if isinstance(error, MemoryError):
        return "the memory is full; give a smaller input, or smaller --batch-tokens where the command has them"
    if isinstance(error, RecursionError):
        return "something in the input is nested too deep; flatten it to fewer than 200 levels"
    if isinstance(error, sqlite3.Error):
        return f"the bank's database: {error}; check the disk and the permissions"
    if isinstance(error, UnicodeError):
        return f"text that is not what its encoding promises ({error}); convert it to UTF-8"
    for said, sentence in _KNOWN:
        if said in str(error):
            return sentence
    return (
        f"internal error: {type(error).__name__}: {error!s:.500}; this is a bug of ecom_rag, please report it with the"
        " traceback that ECOM_RAG_TRACEBACK=1 prints"
    )


def _place(error: OSError) -> str:
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    return f"{os.fsdecode(names[0])}: " if names else ""


def _how_to_go_on(error: BaseException) -> str:
    if not is_resumable(error):
        return ""
    if any(argument == "-" or argument.endswith("=-") for argument in sys.argv[1:]):  # standard output has no --resume
        return "; the same command with --resume goes on from here if standard input brings the same records again"
    return "; the same command with --resume goes on from here"
