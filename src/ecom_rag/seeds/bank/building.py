"""New banks: empty ones, and ones built of records, which appear under their name when they are complete."""

import contextlib
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ecom_rag import errors
from ecom_rag.arguments import PathLike, path_or_none
from ecom_rag.errors import BankError
from ecom_rag.files import disk, workfolders
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.seeds.address import folder_of
from ecom_rag.seeds.bank import filling
from ecom_rag.seeds.bank.bank import SeedBank
from ecom_rag.seeds.bank.filling import Built, check_same
from ecom_rag.seeds.bank.model import Model, model_for
from ecom_rag.seeds.bank.settings import BankSettings, settings_of, to_meta
from ecom_rag.seeds.bank.store import FILE, Store

logger = logging.getLogger(__name__)


def create(
    path: PathLike,
    settings: BankSettings | None = None,
    *,
    encoder: Encoder | None = None,
    model: PathLike | None = None,
) -> SeedBank:
    """Make an empty bank.

    Args:
        path: A folder that does not exist, or is empty.
        settings: Routes, keys and analyzer of the bank; by default ``BankSettings()``.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found, if it may be loaded from there again; by default its folder.

    Returns:
        The open bank.

    Raises:
        UsageError: An argument of the wrong kind, or a route that needs an encoder where there is none.
        ModelError: The encoder cannot give what a route needs.
        BankError: ``path`` already exists.
    """
    settings = settings_of(settings)
    make(Path(folder_of(path)), settings, model_for(settings.outputs, encoder, path_or_none(model, "model")))
    return SeedBank.open(path, encoder=encoder)


def make(folder: Path, settings: BankSettings, model: Model | None) -> None:
    """Make the record of an empty bank.

    Args:
        folder: Does not exist, or is empty.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.

    Raises:
        BankError: The folder is not empty.
    """
    if folder.exists() and not (folder.is_dir() and {item.name for item in folder.iterdir()} <= {workfolders.LOCK}):
        raise BankError(f"{folder}: already exists; choose another folder or remove this one")
    meta = {"bank": uuid.uuid4().hex, "model": asdict(model) if model else None, "sizes": {}, **to_meta(settings)}
    Store.create(folder, meta, index_keys=map(parse_key, settings.index_keys)).close()


def build(
    path: PathLike,
    items: Iterable[Record],
    settings: BankSettings | None = None,
    *,
    encoder: Encoder | None = None,
    model: PathLike | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank of records in ``PATH.partial`` and give it its name at the end; ``SeedBank.open`` opens it then.

    Args:
        path: Folder of the new bank; must not exist.
        items: Any iterable of records, ``metadata`` may be left out; with ``resume``, those of the interrupted build.
        settings: Routes, keys and analyzer of the bank; by default ``BankSettings()``.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found, if it may be loaded from there again; by default its folder.
        resume: Continue an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Returns:
        What was written.

    Raises:
        BankError: ``path`` already exists, or another run is building it.
        RecordError: Something that is not a record, or holds what JSON cannot hold; says which and why.
        ResumeError: The interrupted build had other settings or other records.
        UsageError: There are no records, an argument of the wrong kind, or a route that needs an encoder.
        ModelError: The encoder cannot give what a route needs.
    """
    return filling.build(
        building, path, items, settings, encoder=encoder, model=model, resume=resume, progress=progress
    )


@contextlib.contextmanager
def building(
    path: PathLike, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> Iterator[SeedBank]:
    """A bank to fill, in ``PATH.partial``; it gets its name when the block ends.

    Args:
        path: Folder of the new bank; must not exist.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        resume: Continue an interrupted one of the same settings, where there is one.
        notes: Gets a line where an interrupted one is discarded.

    Raises:
        BankError: ``path`` already exists, or another run is building it.
        ResumeError: The interrupted one had other settings.
    """
    target = Path(folder_of(path))
    partial = workfolders.partial(target)
    check_target(target)
    with _alone(partial):
        if not (resume and (partial / FILE).exists()):
            notes += _discarded(partial)
            make(partial, settings, model)
        with SeedBank.open(partial, maintain=False) as bank:
            check_same(bank, settings)
            with bank.streaming():
                yield bank
            bank.store.checkpoint()
        _publish(partial, target)


def check_target(path: PathLike) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Raises:
        BankError: It already exists.
        UsageError: No folder to put it in.
    """
    workfolders.check_new(Path(path), error=BankError, remedy="add to a bank with ecom-rag bank add, ")


def _publish(partial: Path, target: Path) -> None:
    """Give a finished bank its name."""
    check_target(target)  # something may have come to be there meanwhile
    disk.sync_folder(partial)
    partial.rename(target)
    (target / workfolders.LOCK).unlink()  # before, another build could have begun in the folder
    disk.sync_folder(target)
    disk.sync_folder(target.parent)


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
    if not (partial / FILE).exists():
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
    note = f"{finished} finished records of an interrupted build were discarded; `resume` would have continued it"
    logger.warning("note: %s", note)
    return [note]
