"""serve."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from ecom_rag.cli.console import tell
from ecom_rag.cli.options import (
    BatchTokens,
    Device,
    Precision,
    PrecisionOption,
    Runtime,
    RuntimeName,
    Verbose,
    placed,
    prepare,
)
from ecom_rag.errors import UsageError
from ecom_rag.seeds.address import folder_of


def serve(
    context: typer.Context,
    bank: Annotated[
        list[str] | None,
        typer.Option(help="Bank to serve: a folder, or NAME=FOLDER; repeatable.", show_default="none"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Encoder behind /v1/embeddings: folder, hub id or 'starter'.", show_default="the bank's"),
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="Reranker: folder, hub id or 'starter'.", show_default="none")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policy to decide by: a file, or BANK=FILE; repeatable.", show_default="none"),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Folder that keeps decisions and reviews; made when missing.", show_default="none"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 for a free one.", show_default="8000", min=0, max=65535)
    ] = None,
    keys: Annotated[
        str | None, typer.Option(help="File of API keys, made by ecom-rag keys add.", show_default="none")
    ] = None,
    settings_file: Annotated[
        str | None,
        typer.Option("--config", help="TOML file of settings and limits; the command line wins.", show_default="none"),
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    verbose: Verbose = False,
) -> None:
    """Serve embeddings, reranking, recall and decisions over HTTP, with a page to review what was not decided.

    Endpoints for programs are described at /docs; people review at /review. Without --keys everybody who reaches the
    address may do everything, so only addresses of this machine are allowed then. One process uses all cores; SIGTERM
    lets running requests finish.

    \b
    Examples:
      ecom-rag serve --bank bank
      ecom-rag serve --bank bank --rerank starter --policy policy.json --state state
      ecom-rag serve --bank goods=goods_bank --bank claims=claims_bank --host 0.0.0.0 --keys keys.json
      ecom-rag serve --model ./bge-m3 --rerank ./bge-reranker-v2-m3 --port 8080
    """
    prepare(verbose)
    with installed():
        from ecom_rag.serving.run import serve as run
    from ecom_rag.serving.settings import read_serve

    banks = None if bank is None else _named(bank, "--bank")
    options = {
        "banks": banks,
        "model": model,
        "rerank": rerank,
        "policies": None if policy is None else _policies(policy, banks or read_serve(settings_file, {}).banks),
        "state": state,
        "host": host,
        "port": port,
        "keys": keys,
        "placement": _said(context, placed(runtime, precision, device, batch_tokens)),
    }
    settings = read_serve(settings_file, options)
    if not settings.banks and settings.model is None and settings.rerank is None:
        raise UsageError("there is nothing to serve; name a --bank, a --model or a --rerank")
    tell("loading models and banks")

    def ready(address: str) -> None:
        review = f", review: {address}/review" if settings.policies else ""
        tell(f"serving on {address} (endpoints: {address}/docs{review}); Ctrl+C stops")

    with logged(verbose):
        run(settings, ready=ready)
    tell("stopped")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Say which package is missing where the service cannot be imported.

    Raises:
        UsageError: The extra of the service is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the service needs the package {error.name}, which is not installed; pip install 'ecom-rag[serve]'"
        ) from None


def logged(verbose: bool) -> AbstractContextManager[None]:
    """The log of the service on standard error, for the length of a block; with a line for each request or without."""
    from ecom_rag.serving.http import logs

    return logs.installed(sys.stderr, level=logging.INFO if verbose else logging.WARNING)


def _said(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Those options that the command line or the environment says; a default must not win over the file."""
    return {name: value for name, value in options.items() if _source(context, name) != "DEFAULT"}


def _source(context: typer.Context, name: str) -> str:
    return str(getattr(context.get_parameter_source(name), "name", ""))


def _named(given: list[str], option: str) -> dict[str, str]:
    """``NAME=FOLDER``, or a folder by its own name."""
    found: dict[str, str] = {}
    for one in given:
        name, sign, path = folder_of(one).partition("=")
        if not sign:
            name, path = Path(one).resolve().name, one
        folder_of(path)
        if name in found:
            raise UsageError(f"{option} names {name!r} twice; give each bank a name of its own, NAME=FOLDER")
        found[name] = path
    return found


def _policies(given: list[str], banks: Mapping[str, str]) -> dict[str, str]:
    """``BANK=FILE``, or a file where there is one bank."""
    found: dict[str, str] = {}
    for one in given:
        name, sign, path = one.partition("=")
        if not sign:
            if len(banks) != 1:
                raise UsageError(f"--policy {one}: which of the {len(banks)} banks is it for? Give BANK=FILE")
            name, path = next(iter(banks)), one
        found[name] = path
    return found
