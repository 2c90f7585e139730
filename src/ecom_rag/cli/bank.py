"""bank build, add, delete, info, snapshot, restore."""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ecom_rag.cli.command import Command
from ecom_rag.cli.console import tell, write_bytes
from ecom_rag.cli.options import (
    BadLine,
    BatchTokens,
    Device,
    OnBadLine,
    Precision,
    PrecisionOption,
    Resume,
    Runtime,
    RuntimeName,
    Verbose,
    bars,
    prepare,
)
from ecom_rag.errors import UsageError
from ecom_rag.text.printing import printable

_LABELS = 20  # that info shows

Bank = Annotated[str, typer.Argument(help="Folder of the bank.", metavar="BANK", show_default=False)]

app = typer.Typer(
    name="bank",
    help="Keep a seed bank on disk: build it once, change it at any time, search it with recall --bank.",
    no_args_is_help=True,
)


@app.command(cls=Command)
def build(
    bank: Bank,
    seeds: Annotated[str, typer.Option(help="Records {text, metadata}; - is stdin.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Of dense, sparse, multivector: local folder, hub id, or 'starter'.")
    ] = None,
    routes: Annotated[str, typer.Option(help="Of bm25, dense, sparse, multivector, variant.")] = "bm25,dense",
    id_key: Annotated[str, typer.Option(help="Key of the metadata that holds a document's id.")] = "id",
    label_key: Annotated[str, typer.Option(help="Key of the metadata that info counts.")] = "label",
    index_key: Annotated[
        list[str] | None, typer.Option(help="Key that filters are made fast for, e.g. seller.level; may be repeated.")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    pooling: Annotated[str | None, typer.Option(help="cls, mean or last.", show_default="the checkpoint's")] = None,
    truncate_dim: Annotated[int | None, typer.Option(help="Matryoshka: keep the first dimensions.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a text.", show_default="the checkpoint's, at most 512")
    ] = None,
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Make a bank of a file of seeds. It appears under its name when it is complete.

    \b
    Examples:
      ecom-rag bank build bank --seeds seeds.jsonl --model BAAI/bge-m3 --routes bm25,dense,sparse
      ecom-rag bank build bank --seeds seeds.jsonl --routes bm25 --index-key label --index-key seller.level
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import building
    from ecom_rag.seeds.bank.checks import check_names

    names = tuple(name.strip() for name in routes.split(","))
    needed = check_names(names)
    if needed and model is None:
        raise UsageError(f"the routes {', '.join(needed)} need a model; give --model MODEL, or other --routes")
    building.check_target(bank)
    started = time.monotonic()
    source = _Source(seeds, bank, id_key, on_bad_line)
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
        )
    with bars() as progress:
        built = building.build(
            bank,
            source.records(),
            encoder=encoder,
            model=model,
            routes=names,
            id_key=id_key,
            label_key=label_key,
            index_keys=index_key or (),
            resume=resume,
            progress=None if progress is None else lambda done: progress("building", done, None),
        )
    _say(f"built {bank} of {built.records} records", started, built, source)


@app.command(cls=Command)
def add(
    bank: Bank,
    file: Annotated[str, typer.Argument(help="Records {text, metadata}; - is stdin.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Where the bank's model is now.", show_default="where it was")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Add records to a bank; one whose id is there takes the place of the old one.

    Every block of 4,096 records is on the disk before the next is read: after a kill, run the command again.

    \b
    Examples:
      ecom-rag bank add bank more.jsonl
      zcat more.jsonl.gz | ecom-rag bank add bank -
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import SeedBank, building

    started = time.monotonic()
    with SeedBank.open(bank) as opened:
        source = _Source(file, bank, opened.id_key, on_bad_line)
        if opened.model is not None:
            opened.use(
                opened.model.load(
                    path=model, runtime=runtime, precision=precision, device=device, batch_tokens=batch_tokens
                )
            )
        with bars() as progress:
            step = None if progress is None else lambda done: progress("adding", done, None)
            built = building.add(opened, source.records(), progress=step)
    _say(f"added {built.records} records to {bank}", started, built, source)


@app.command(cls=Command)
def delete(
    bank: Bank,
    id: Annotated[list[str] | None, typer.Option("--id", help="Document; may be repeated.")] = None,
    filter: Annotated[
        str | None, typer.Option("--filter", help="What matches, e.g. 'label = \"spam\" and year < 2020'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove even what is most of the bank.")] = False,
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
    from ecom_rag.seeds.bank import SeedBank

    if bool(id) == (filter is not None):
        raise UsageError("delete takes --id or --filter; give one of them")
    with SeedBank.open(bank) as opened:
        if dry_run:
            found = opened.get(list(dict.fromkeys(id or [])))
            there = len(found) - found.count(None) if id else opened.count(filter)
            tell(f"would remove {there} of {len(opened)} documents from {bank}")
            return
        change = opened.delete(id or None, filter=filter, allow_most=yes)
        left = len(opened)
    missing = len(set(id)) - change.removed if id else 0
    absent = f"; {missing} of the ids were not there" if missing else ""
    tell(f"removed {change.removed} documents from {bank}, {left} are left{absent}")
    for note in change.notes:
        tell(f"note: {note}")


@app.command(cls=Command)
def info(
    bank: Bank,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what a bank holds: documents, labels, routes, model, bytes on disk.

    \b
    Examples:
      ecom-rag bank info bank
      ecom-rag bank info bank --json | jq .labels
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import SeedBank

    with SeedBank.open(bank) as opened:
        stats = opened.stats()
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
        "on disk": f"{stats['bytes'] / 1e6:.1f} MB",
    }
    for name, value in lines.items():
        typer.echo(f"{printable(name):>12}  {printable(value)}")


@app.command(cls=Command)
def snapshot(
    bank: Bank,
    out: Annotated[str, typer.Argument(help="Folder to make.", show_default=False)],
    verbose: Verbose = False,
) -> None:
    """Copy one state of a bank, while it may be searched and changed.

    \b
    Example:
      ecom-rag bank snapshot bank backup-monday
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import SeedBank

    with SeedBank.open(bank) as opened:
        note = opened.snapshot(out)
    tell(f"copied {note['documents']} documents as of change {note['sequence']} -> {out}")


@app.command(cls=Command)
def restore(
    snapshot: Annotated[str, typer.Argument(help="What bank snapshot made.", show_default=False)],
    bank: Bank,
    verbose: Verbose = False,
) -> None:
    """Make a bank of a snapshot, after checking that it is undamaged.

    \b
    Example:
      ecom-rag bank restore backup-monday bank
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import copies

    note = copies.restore(snapshot, bank)
    tell(f"restored {note['documents']} documents -> {bank}")


class _Source:
    """A file of records on its way into a bank, and the lines that were refused."""

    def __init__(self, path: str, bank: str, id_key: str, on_bad_line: str) -> None:
        from ecom_rag.files import records

        if path != "-" and not Path(path).is_file():
            raise UsageError(f"{path}: no such file; check the path, or pass - to read standard input")
        records.file_format(path)
        self.path = path
        self.report = records.ReadReport()
        self.notes: list[str] = []
        self._beside = bank.rstrip("/")
        self._id_key = id_key
        self._on_bad_line = str(on_bad_line)

    def records(self) -> Any:
        """The records; what is refused on the way is written down at the end, be it an early one."""
        from ecom_rag.files import publish, records

        with tempfile.TemporaryDirectory(prefix="ecom-rag-") as folder:
            refused = Path(folder) / "refused"
            with refused.open("wb") as sink:
                try:
                    for record in records.read(
                        self.path, on_bad_line=self._on_bad_line, check=self._check, report=self.report
                    ):
                        self._drain(sink)
                        yield record
                finally:
                    self._drain(sink)
                    sink.flush()
                    self.notes = publish.rejects_notes(refused, self._beside)

    def _check(self, record: Any) -> None:
        from ecom_rag.files.identity import id_of

        id_of(record["metadata"], self._id_key)

    def _drain(self, sink: Any) -> None:
        from ecom_rag.files import records

        sink.writelines(map(records.dumps, self.report.rejections))
        self.report.rejections.clear()


def _say(what: str, started: float, built: Any, source: _Source) -> None:
    seconds = time.monotonic() - started
    resumed = f", {built.resumed} of them before the interruption" if built.resumed else ""
    replaced = f", {built.replaced} took another's place" if built.replaced else ""
    tell(f"{what}{resumed}{replaced} in {seconds:.1f} s")
    for note in [*built.notes, *source.notes]:
        tell(f"note: {note}")
    if source.report.surrogates_replaced:
        tell(f"note: {source.report.surrogates_replaced} records held lone surrogates, replaced by U+FFFD")
    if built.records == 0:
        why = "all lines of the input were refused" if source.report.rejected else "the input held no records"
        tell(f"note: {why}: the bank is as it was")
