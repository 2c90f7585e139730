"""keys add, list, revoke: the API keys of the service."""

import json
from typing import Annotated

import typer

from ecom_rag.cli.command import Command
from ecom_rag.cli.console import tell
from ecom_rag.cli.options import Verbose, names, prepare
from ecom_rag.text.printing import printable

app = typer.Typer(
    name="keys",
    help="Make and revoke the API keys of the service. A running service follows the file within a second.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="Name of the key, e.g. of the program that uses it.", show_default=False)]
File = Annotated[str, typer.Option(help="File of keys; it holds SHA-256 digests, never a key.")]


@app.command(cls=Command)
def add(
    name: Name,
    scopes: Annotated[
        str, typer.Option(help="Comma-separated rights, some of read,write,review,admin.", show_default=False)
    ],
    file: File = "keys.json",
    expires: Annotated[
        str | None,
        typer.Option(help="Date (UTC) from which the key is refused, e.g. 2027-01-01.", show_default="never"),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Make a key and print it once; the file keeps only its digest.

    Rights: read for embeddings, rerank, recall and decide; write for seeds; review for the review page; admin for all.

    \b
    Examples:
      ecom-rag keys add search --scopes read
      ecom-rag keys add nightly --scopes read,write --file keys.json --expires 2027-01-01
    """
    prepare(verbose)
    from ecom_rag.serving import keys

    token = keys.add(file, name, names(scopes), expires=expires)
    typer.echo(token)
    tell(f"added the key {name} to {file}; it is shown only this once, so store it now")


@app.command("list", cls=Command)
def list_keys(
    file: File = "keys.json",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per key instead of a table.")] = False,
    verbose: Verbose = False,
) -> None:
    """Print names, rights and dates of the keys in a file.

    \b
    Examples:
      ecom-rag keys list
      ecom-rag keys list --file keys.json --json | jq -r .name
    """
    prepare(verbose)
    import time

    from ecom_rag.serving import keys

    now = time.time()
    found = keys.read(file)
    for key in found:
        shown = {part: value for part, value in keys.described(key).items() if part != "sha256"}
        if as_json:
            typer.echo(json.dumps({**shown, "expired": not key.valid(now)}))
            continue
        until = "never expires" if key.expires is None else f"expires {key.expires:%Y-%m-%d %H:%M} UTC"
        until = until if key.valid(now) else f"expired {key.expires:%Y-%m-%d %H:%M} UTC"
        typer.echo(printable(f"{key.name:<24} {','.join(key.scopes):<24} created {key.created:%Y-%m-%d}, {until}"))
    if not found:
        tell(f"note: {file} holds no keys")


@app.command(cls=Command)
def revoke(name: Name, file: File = "keys.json", verbose: Verbose = False) -> None:
    """Remove a key; a running service refuses it within a second.

    \b
    Example:
      ecom-rag keys revoke nightly --file keys.json
    """
    prepare(verbose)
    from ecom_rag.serving import keys

    keys.revoke(file, name)
    tell(f"revoked the key {name} in {file}")
