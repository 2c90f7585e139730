"""bank snapshot, restore and migrate: copies of banks, also into servers; refresh, for a bank there."""

import time
from typing import Annotated

import typer

from ecom_rag.cli.console import tell, tell_notes
from ecom_rag.cli.documents import Bank
from ecom_rag.cli.options import Resume, Verbose, bars, prepare
from ecom_rag.errors import UsageError
from ecom_rag.seeds.address import is_address, shown


def snapshot(
    bank: Bank,
    out: Annotated[str, typer.Argument(help="Folder of the new snapshot; must not exist.", show_default=False)],
    verbose: Verbose = False,
) -> None:
    """Copy the current state of a bank, which may be searched and changed meanwhile.

    \b
    Example:
      ecom-rag bank snapshot bank backup-monday
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import SeedBank, copies

    with SeedBank.open(bank) as opened:
        note = copies.snapshot(opened, out)
    tell(f"copied {note['documents']} documents as of change {note['sequence']} -> {out}")


def restore(
    snapshot: Annotated[str, typer.Argument(help="Snapshot folder made by bank snapshot.", show_default=False)],
    bank: Bank,
    verbose: Verbose = False,
) -> None:
    """Restore a bank from a snapshot, after checking that it is undamaged.

    \b
    Example:
      ecom-rag bank restore backup-monday bank
    """
    prepare(verbose)
    from ecom_rag.seeds.bank import copies

    note = copies.restore(snapshot, bank)
    tell(f"restored {note['documents']} documents -> {bank}")


def migrate(
    source: Annotated[str, typer.Argument(help="Bank to copy: folder or address.", show_default=False)],
    target: Annotated[str, typer.Argument(help="New bank: folder or address.", show_default=False)],
    routes: Annotated[
        str | None, typer.Option(help="Comma-separated routes to copy, some of the bank's.", show_default="all")
    ] = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Copy a bank into PostgreSQL or Milvus, or from there to disk. Nothing is encoded again; results stay the same.

    Do not change the source meanwhile. The new bank appears under its name only when it is complete.

    \b
    Examples:
      ecom-rag bank migrate bank 'postgresql://ecom@db.example/seeds?bank=prohibited'
      ecom-rag bank migrate 'postgresql://ecom@db.example/seeds?bank=prohibited' bank-again
      ecom-rag bank migrate bank 'milvus://milvus.example:19530/default?bank=prohibited' --routes bm25,dense
    """
    prepare(verbose)
    from ecom_rag.seeds.migrating import migrate as copy

    started = time.monotonic()
    names = None if routes is None else [route.strip() for route in routes.split(",")]
    with bars() as progress:
        step = None if progress is None else lambda done: progress("copying", done, None)
        done = copy(source, target, routes=names, resume=resume, progress=step)
    before = f", {done.resumed} of them before the interruption" if done.resumed else ""
    what = f"copied {done.documents} documents{before} as of change {done.sequence}"
    tell(f"{what} -> {shown(target)} in {time.monotonic() - started:.1f} s")
    tell_notes(done.notes)


def refresh(bank: Bank, verbose: Verbose = False) -> None:
    """Make the terms of a bank in a server anew: after an update of ecom-rag, or when bank info shows much drift.

    Results stay the same. Searches go on meanwhile, changes wait. In Milvus the rows go into a new collection.

    \b
    Example:
      ecom-rag bank refresh 'postgresql://ecom@db.example/seeds?bank=prohibited'
    """
    prepare(verbose)
    from ecom_rag.seeds.opening import open_remote

    if not is_address(bank):
        raise UsageError(f"{bank}: is a bank on disk, which keeps its indexes fresh by itself")
    started = time.monotonic()
    with open_remote(bank) as opened:
        opened.refresh()
        count = len(opened)
    tell(f"made the terms of {count} documents of {shown(bank)} anew in {time.monotonic() - started:.1f} s")
