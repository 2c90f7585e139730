"""models."""

import json
from typing import Annotated

import typer

from ecom_rag.cli.options import Verbose, prepare
from ecom_rag.text.printing import printable


def models(
    model: Annotated[
        str | None,
        typer.Argument(help="Describe this checkpoint instead: a local folder, or 'starter'.", show_default="none"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per family, task or checkpoint instead of text.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """List the models whose pooling and instructions are known, or say how one checkpoint is read.

    Other checkpoints work too, if their own files name the pooling. No weights are read.

    \b
    Examples:
      ecom-rag models
      ecom-rag models ./Qwen3-Embedding-0.6B
      ecom-rag models --json | jq -r 'select(.licence == "MIT").models'
    """
    prepare(verbose)
    from ecom_rag.models import listing
    from ecom_rag.models.instructions import TASKS

    if model is not None:
        _print([("", [listing.described(model)])], as_json=as_json)
        return
    tasks: list[listing.Row] = [{"task": name, "description": text} for name, text in TASKS.items()]
    parts = [("Encoders", listing.encoders()), ("Rerankers", listing.rerankers()), ("Tasks", tasks)]
    _print(parts, as_json=as_json)


def _print(parts: list[tuple[str, list[dict[str, str | int]]]], *, as_json: bool) -> None:
    """Each row as a block, named by its first value where there are several."""
    for title, rows in parts:
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row, ensure_ascii=False))
            continue
        if title:
            typer.echo(f"{title}\n")
        for row in rows:
            shown = {name.replace("_", " "): _shown(value) for name, value in row.items() if value != ""}
            if title:
                typer.echo(printable(shown.pop(next(iter(shown)))))
            for name, value in shown.items():
                typer.echo(printable(f"  {name + ':':<21}{value}"))
            typer.echo("")


def _shown(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value.replace("\n", "\\n")
