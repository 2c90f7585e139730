"""bank build, add, delete, info; the others are in ``documents`` and ``moving``."""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ecom_rag.cli import documents, moving
from ecom_rag.cli.command import Command
from ecom_rag.cli.console import tell, tell_notes, write_bytes
from ecom_rag.cli.documents import Bank
from ecom_rag.cli.options import (
    BadLine,
    BatchTokens,
    Device,
    MaxLength,
    OnBadLine,
    Pooling,
    Precision,
    PrecisionOption,
    QueryExamples,
    QueryInstruction,
    QueryTask,
    Resume,
    Runtime,
    RuntimeName,
    TruncateDim,
    Verbose,
    bars,
    instructed,
    prepare,
)
from ecom_rag.cli.reading import Deobfuscate, analysis
from ecom_rag.errors import UsageError
from ecom_rag.seeds.address import shown
from ecom_rag.text.printing import printable

_LABELS = 20  # that info shows

app = typer.Typer(
    name="bank",
    help="Keep a seed bank on disk or in a server: build it once, change it any time, search it with recall --bank.",
    no_args_is_help=True,
)


@app.command(cls=Command)
def build(
    bank: Bank,
    seeds: Annotated[str, typer.Option(help="File of records {text, metadata}; - is stdin.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Encoder for dense, sparse and multivector: local folder, hub id or 'starter'.")
    ] = None,
    routes: Annotated[
        str, typer.Option(help="Comma-separated routes to index, some of bm25,dense,sparse,multivector,variant.")
    ] = "bm25,dense",
    id_key: Annotated[str, typer.Option(help="Metadata key that holds a document's id.")] = "id",
    label_key: Annotated[str, typer.Option(help="Metadata key whose labels bank info counts.")] = "label",
    index_key: Annotated[
        list[str] | None, typer.Option(help="Metadata key to index for fast filters, e.g. seller.level; repeatable.")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    pooling: Pooling = None,
    truncate_dim: TruncateDim = None,
    max_length: MaxLength = None,
    query_instruction: QueryInstruction = None,
    query_task: QueryTask = None,
    query_examples: QueryExamples = None,
    deobfuscate: Deobfuscate = None,
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Build a bank from a file of seeds. It appears under its name only when it is complete.

    \b
    Examples:
      ecom-rag bank build bank --seeds seeds.jsonl --model BAAI/bge-m3 --routes bm25,dense,sparse
      ecom-rag bank build bank --seeds seeds.jsonl --routes bm25 --index-key label --index-key seller.level
    """
    prepare(verbose)
    from ecom_rag.cli.incoming import Source, say
    from ecom_rag.seeds import opening
    from ecom_rag.seeds.bank import BankSettings

    names = tuple(name.strip() for name in routes.split(","))
    settings = BankSettings(names, id_key, label_key, tuple(index_key or ()), analysis(deobfuscate))
    needed = settings.outputs
    if needed and model is None:
        raise UsageError(f"the routes {', '.join(needed)} need a model; give --model MODEL, or other --routes")
    opening.check_target(bank)
    started = time.monotonic()
    source = Source(seeds, bank, id_key, on_bad_line)
    encoder: Any = None
    if needed:
        from ecom_rag.models import Encoder

        encoder = Encoder.from_pretrained(
            str(model),
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=batch_tokens,
            max_length=max_length,
            pooling=pooling,
            truncate_dim=truncate_dim,
            deobfuscate=bool(deobfuscate),
            **instructed(query_instruction, query_task, query_examples),
        )
    with bars() as progress:
        built = opening.build(
            bank,
            source.records(),
            settings,
            encoder=encoder,
            model=model,
            resume=resume,
            progress=None if progress is None else lambda done: progress("building", done, None),
        )
    say(f"built {shown(bank)} of {built.records} records", started, built, source)


@app.command(cls=Command)
def add(
    bank: Bank,
    file: Annotated[str, typer.Argument(help="File of records {text, metadata}; - is stdin.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Present folder or hub id of the bank's model.", show_default="as built")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Add records to a bank; a record whose id exists replaces the old document.

    Each block of 4,096 records is on disk before the next is read. After a kill, run the command again.

    \b
    Examples:
      ecom-rag bank add bank more.jsonl
      zcat more.jsonl.gz | ecom-rag bank add bank -
    """
    prepare(verbose)
    from ecom_rag.cli.incoming import Source, say
    from ecom_rag.seeds.bank import filling
    from ecom_rag.seeds.opening import open_bank

    started = time.monotonic()
    with open_bank(bank) as opened:
        source = Source(file, bank, opened.id_key, on_bad_line)
        if opened.model is not None:
            opened.use(
                opened.model.load(
                    path=model, runtime=runtime, precision=precision, device=device, batch_tokens=batch_tokens
                )
            )
        with bars() as progress:
            step = None if progress is None else lambda done: progress("adding", done, None)
            built = filling.add(opened, source.records(), progress=step)
    say(f"added {built.records} records to {shown(bank)}", started, built, source)


@app.command(cls=Command)
def delete(
    bank: Bank,
    id: Annotated[list[str] | None, typer.Option("--id", help="Id of a document to remove; repeatable.")] = None,
    filter: Annotated[
        str | None,
        typer.Option("--filter", help="Remove documents that match, e.g. 'label = \"spam\" and year < 2020'."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many would be removed; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove even if the filter matches most of the bank.")] = False,
    verbose: Verbose = False,
) -> None:
    """Remove documents by id or by a filter over their metadata.

    A filter that matches more than half of the documents, and more than 10, needs --yes.

    \b
    Examples:
      ecom-rag bank delete bank --id S017 --id S018
      ecom-rag bank delete bank --filter 'label = "outdated" and not exists(keep)' --dry-run
      ecom-rag bank delete bank --filter 'label = "outdated" and not exists(keep)'
    """
    prepare(verbose)
    from ecom_rag.seeds.opening import open_bank

    if bool(id) == (filter is not None):
        raise UsageError("delete takes --id or --filter; give one of them")
    with open_bank(bank) as opened:
        if dry_run:
            found = opened.get(list(dict.fromkeys(id or [])))
            there = len(found) - found.count(None) if id else opened.count(filter)
            tell(f"would remove {there} of {len(opened)} documents from {shown(bank)}")
            return
        change = opened.delete(id or None, filter=filter, allow_most=yes)
        left = len(opened)
    missing = len(set(id)) - change.removed if id else 0
    absent = f"; ids that do not exist: {missing}" if missing else ""
    tell(f"removed {change.removed} documents from {shown(bank)}, {left} are left{absent}")
    tell_notes(change.notes)


@app.command(cls=Command)
def info(
    bank: Bank,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    verbose: Verbose = False,
) -> None:
    """Print what a bank holds: documents, labels, routes, model, bytes on disk.

    \b
    Examples:
      ecom-rag bank info bank
      ecom-rag bank info bank --json | jq .labels
    """
    prepare(verbose)
    from ecom_rag.seeds import opening

    with opening.open_bank(bank) as opened:
        stats = opening.stats(opened)
    if as_json:
        write_bytes(f"{json.dumps(stats, ensure_ascii=False)}\n".encode())
        return
    model = stats["model"]
    counts = list(stats["labels"].items())
    labels = ", ".join(f"{label} {count}" for label, count in counts[:_LABELS]) or "none"
    if len(counts) > _LABELS:
        labels += f", ... ({len(counts)} labels)"
    lines = {
        "documents": f"{stats['documents']} ({stats['removed_rows']} removed rows not yet dropped)",
        "changes": stats["sequence"],
        "routes": ", ".join(stats["routes"]),
        "model": f"{model['path']} ({model['fingerprint']})" if model else "none is needed",
        "id key": stats["id_key"],
        "index keys": ", ".join(stats["index_keys"]) or "none",
        stats["label_key"]: labels,
        **({"on disk": f"{stats['bytes'] / 1e6:.1f} MB"} if "bytes" in stats else {}),
        **_of_server(stats),
    }
    for name, value in lines.items():
        typer.echo(f"{printable(name):>12}  {printable(value)}")


def _of_server(stats: Mapping[str, Any]) -> dict[str, str]:
    """Lines on the server of a bank that is in one; none for a bank on disk."""
    if "engine" not in stats:
        return {}
    off = "" if stats.get("fsync", "on") == "on" else "; fsync is off: a crash may lose changes that were acknowledged"
    lines = {"server": stats["engine"] + off, "results": stats["exactness"]}
    changed = ", ".join(f"{route} {ratio:g}" for route, ratio in stats["drift"].items())
    return lines | ({"drift": f"{changed} (1 after bank refresh)"} if changed else {})


for name, command in (
    ("list", documents.list_documents),
    ("get", documents.get),
    ("export", documents.export),
    ("snapshot", moving.snapshot),
    ("restore", moving.restore),
    ("migrate", moving.migrate),
    ("refresh", moving.refresh),
):
    app.command(name, cls=Command)(command)
