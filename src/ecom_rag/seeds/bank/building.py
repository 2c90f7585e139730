"""Many records into a bank, each block acknowledged; a new bank appears under its name when it is complete."""

import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecom_rag import errors
from ecom_rag.arguments import PathLike, flag, names_of, path_of
from ecom_rag.errors import BankError, ResumeError, UsageError
from ecom_rag.files import disk, jobs, records, workfolders
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.seeds.bank import store
from ecom_rag.seeds.bank.bank import SeedBank
from ecom_rag.text.analysis import Analyzer

logger = logging.getLogger(__name__)
_BLOCK_RECORDS = 4096
_BLOCK_CHARS = 2_000_000


@dataclass
class Built:
    """What was written.

    Args:
        records: Records read, those of an interrupted run included.
        added: Documents written.
        replaced: Documents that took another's place.
        resumed: Records that an interrupted run had written.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    added: int = 0
    replaced: int = 0
    resumed: int = 0
    notes: list[str] = field(default_factory=list)


def add(bank: SeedBank, items: Iterable[Record], *, progress: Callable[[int], None] | None = None) -> Built:
    """Upsert a stream of records, a block at a time; after a kill the blocks before are there.

    Args:
        bank: Open for writing.
        items: Any iterable of records.
        progress: Called with the number of records of each block that is written.

    Raises:
        EcomRagError: As ``SeedBank.upsert``; earlier blocks stay.
    """
    built = Built()
    for block in _blocks(items):
        _write(bank, block, built)
        if progress is not None:
            progress(len(block))
    return built


def build(
    path: PathLike,
    items: Iterable[Record],
    *,
    encoder: Encoder | None = None,
    model: PathLike | None = None,
    routes: Sequence[str] = ("bm25", "dense"),
    id_key: str = "id",
    label_key: str = "label",
    index_keys: Sequence[str] = (),
    analyzer: Analyzer | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank of records in ``PATH.partial`` and give it its name at the end.

    Args:
        path: The bank's folder; does not exist yet.
        items: Any iterable of records, ``metadata`` may be left out; with ``resume`` the same as before.
        encoder: As of ``SeedBank.create``, like the next six.
        model: See there.
        routes: See there.
        id_key: See there.
        label_key: See there.
        index_keys: See there.
        analyzer: See there.
        resume: Go on with an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Returns:
        What was written.

    Raises:
        BankError: The bank is there already, or another run is building it.
        ResumeError: The interrupted build had other settings or other records.
        UsageError: There are no records.
    """
    target = Path(path_of(path, "path"))
    routes, index_keys, resume = names_of(routes, "routes"), names_of(index_keys, "index_keys"), flag(resume, "resume")
    partial = workfolders.partial(target)
    check_target(target)
    asked = {
        "routes": list(routes),
        "id_key": id_key,
        "label_key": label_key,
        "index_keys": sorted(index_keys),
        "analyzer": (analyzer or Analyzer()).fingerprint(),
    }
    notes: list[str] = []
    with _alone(partial):
        if not (resume and (partial / store.FILE).exists()):
            notes = _discarded(partial)
            SeedBank.create(
                partial,
                encoder=encoder,
                model=model,
                routes=routes,
                id_key=id_key,
                label_key=label_key,
                index_keys=index_keys,
                analyzer=analyzer,
            ).close()
        with SeedBank.open(partial, encoder=encoder, maintain=False) as bank:
            changed = [
                f"{key}: {bank.settings[key]}, now {value}"
                for key, value in asked.items()
                if bank.settings[key] != value
            ]
            if changed:
                raise ResumeError(
                    f"{partial}: the interrupted build had other settings ({'; '.join(changed)});"
                    " give the same ones, or build again without --resume"
                )
            built = _fill(bank, items, progress)
            if not built.records:
                raise UsageError(
                    f"{target}: the input held no records, so there is nothing to build of; for an empty"
                    " bank in Python use SeedBank.create"
                )
            bank.save_indexes()
            bank.checkpoint()
        check_target(target)  # something may have come to be there meanwhile
        disk.sync_folder(partial)
        partial.rename(target)
        (target / workfolders.LOCK).unlink()  # before, another build could have begun in the folder
        disk.sync_folder(target)
        disk.sync_folder(target.parent)
    built.notes = notes + built.notes
    return built


def check_target(path: PathLike) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Raises:
        BankError: There is something already.
        UsageError: No folder to put it in.
    """
    workfolders.check_new(Path(path), error=BankError, remedy="add to a bank with ecom-rag bank add, ")


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Hold an unfinished bank; what failed before it had anything to keep leaves nothing behind."""
    with workfolders.held(partial, "bank", error=BankError):
        try:
            yield
        except BaseException as error:
            if _finished(partial) == 0:
                workfolders.discard(partial)
            elif partial.exists():
                errors.mark_resumable(error)
            if isinstance(error, sqlite3.Error):
                raise BankError(f"{partial}: {error}; check the disk and the permissions") from None
            raise


def _finished(partial: Path) -> int | None:
    """How many records an interrupted build wrote; ``None`` where that cannot be told."""
    if not (partial / store.FILE).exists():
        return 0
    try:
        with SeedBank.open(partial, maintain=False) as bank:
            return int((bank.note or {"records": 0})["records"])
    except (BankError, sqlite3.Error):  # damaged, or the disk is full
        return None


def _discarded(partial: Path) -> list[str]:
    """Empty the folder of an interrupted build; a note of what that was."""
    finished = _finished(partial)
    workfolders.empty(partial)
    if not finished:
        return []
    note = f"{finished} finished records of an interrupted build were discarded; --resume would have continued it"
    logger.warning("note: %s", note)
    return [note]


def _fill(bank: SeedBank, items: Iterable[Record], progress: Callable[[int], None] | None) -> Built:
    """Write the blocks that are not there yet, and with each, in the same transaction, how far that is."""
    built = Built()
    done = bank.note or {"blocks": 0, "records": 0, "digest": ""}
    whole = hashlib.blake2b(digest_size=16)
    number = 0
    for number, block in enumerate(_blocks(items), start=1):
        for item in block:
            whole.update(records.dumps(item))
        if number <= done["blocks"]:
            built.resumed += len(block)
            built.records += len(block)
            if number == done["blocks"] and done["digest"] != whole.hexdigest():
                break
        else:
            so_far = {"blocks": number, "records": built.records + len(block), "digest": whole.hexdigest()}
            _write(bank, block, built, so_far)
        if progress is not None:
            progress(len(block))
    if number < done["blocks"] or (number == done["blocks"] and number and done["digest"] != whole.hexdigest()):
        raise ResumeError(
            f"{bank.path}: the interrupted build had read {done['records']} records, and this input does"
            " not begin with the same; give the same input, or build again without --resume"
        )
    return built


def _write(bank: SeedBank, block: list[Record], built: Built, note: Any = None) -> None:
    change = bank.upsert(block, note=note)
    built.records += len(block)
    built.added += change.added
    built.replaced += change.removed
    built.notes += change.notes


def _blocks(items: Iterable[Record]) -> Iterator[list[Record]]:
    return jobs.blocks_of(records.cleaned(items), jobs.Cut(_BLOCK_RECORDS, _BLOCK_CHARS))
