"""bank list, get, export: the documents of a bank, as records."""

from itertools import islice
from typing import Annotated

import typer

from ecom_rag.cli.console import tell
from ecom_rag.cli.options import Output, Verbose, prepare
from ecom_rag.errors import UsageError
from ecom_rag.seeds.address import shown

_IDS = 20  # named in a message

Bank = Annotated[
    str,
    typer.Argument(
        help="Folder of the bank, or {postgresql,milvus}://HOST/DATABASE?bank=NAME.",
        metavar="BANK",
        show_default=False,
    ),
]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Only documents that match, e.g. 'label = \"fraud\" and price < 9'.")
]


def list_documents(
    bank: Bank,
    output: Output = "-",
    filter: Filter = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of documents.", min=1)] = None,
    verbose: Verbose = False,
) -> None:
    """Print the documents of a bank as JSON lines, in the order they were written.

    \b
    Examples:
      ecom-rag bank list bank --limit 10
      ecom-rag bank list bank --filter 'label = "fraud"' | jq -r .text
    """
    prepare(verbose)
    count = _write(bank, output, filter, limit)
    if output != "-":
        tell(f"listed {count} documents of {shown(bank)} -> {output}")


def get(
    bank: Bank,
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.", metavar="ID", show_default=False)],
    verbose: Verbose = False,
) -> None:
    """Print documents by id as JSON lines, in the order of the ids.

    Ids that do not exist are named on stderr; where none exists, the exit code is 2.

    \b
    Examples:
      ecom-rag bank get bank S017 S018
      ecom-rag bank get bank S017 | jq .metadata
    """
    prepare(verbose)
    from ecom_rag.files.writing import write
    from ecom_rag.seeds.opening import open_bank

    with open_bank(bank) as opened:
        found = opened.get(ids)
    missing = [id_ for id_, record in zip(ids, found, strict=True) if record is None]
    named = ", ".join(missing[:_IDS]) + (f", ... ({len(missing)} ids)" if len(missing) > _IDS else "")
    if len(missing) == len(ids):
        raise UsageError(
            f"{shown(bank)}: holds no document with the id {named}; ecom-rag bank list shows what it holds"
        )
    write("-", (record for record in found if record is not None))
    if missing:
        tell(f"note: {shown(bank)} holds no document with the id {named}")


def export(
    bank: Bank,
    output: Output,
    filter: Filter = None,
    verbose: Verbose = False,
) -> None:
    """Write a bank's documents to a file, from which bank build can rebuild it.

    To rebuild the bank, give bank build the model and the keys that bank info prints.

    \b
    Examples:
      ecom-rag bank export bank --output seeds.jsonl.gz
      ecom-rag bank export bank --filter 'not label = "outdated"' --output current.parquet
    """
    prepare(verbose)
    count = _write(bank, output, filter, None)
    tell(f"exported {count} documents of {shown(bank)} -> {'stdout' if output == '-' else output}")


def _write(bank: str, output: str, filter: str | None, limit: int | None) -> int:
    from ecom_rag.files.writing import write
    from ecom_rag.seeds.opening import open_bank

    with open_bank(bank) as opened:
        return write(output, islice(opened.documents(filter), limit))
