"""Write ``commands.md``, the reference of all commands, from their own ``--help``; a test holds it to them."""

from pathlib import Path
from typing import Any

import typer

TARGET = Path(__file__).parent / "commands.md"
_WIDTH = 100
_HEAD = """# Commands

Every command, as `--help` prints it. This page is written by `python docs/reference.py`; change the help texts in
`src/ecom_rag/cli/` instead.
"""


def reference() -> str:
    """The page: a heading and the help of each command, groups before their commands."""
    from ecom_rag.cli import app

    parts = [_HEAD]
    for words, command in _walk("ecom-rag", typer.main.get_command(app)):
        level = "##" if words.count(" ") < 2 else "###"
        context = command.make_context(words, [], resilient_parsing=True, terminal_width=_WIDTH)
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"{level} {words}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _walk(words: str, command: Any) -> list[tuple[str, Any]]:
    below = sorted(getattr(command, "commands", {}).items())
    return [(words, command), *(found for name, own in below for found in _walk(f"{words} {name}", own))]


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
