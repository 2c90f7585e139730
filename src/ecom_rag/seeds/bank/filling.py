"""Records into an open bank of any kind: a block at a time, and with each how far that is."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ecom_rag.arguments import flag, path_or_none
from ecom_rag.errors import ResumeError, UsageError
from ecom_rag.files import jobs, records
from ecom_rag.files.digest import Digest
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank.changes import Change
from ecom_rag.seeds.bank.model import model_for
from ecom_rag.seeds.bank.settings import BankSettings, settings_of

BLOCK_RECORDS = 4096
_BLOCK_CHARS = 2_000_000
Progress = Callable[[int], None] | None


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


class Fillable(Protocol):
    """An open bank of any kind, as far as it is filled."""

    @property
    def path(self) -> Any:
        """Where it is, for messages."""

    @property
    def settings(self) -> BankSettings:
        """What it was made with."""

    @property
    def note(self) -> Any:
        """What the last ``upsert`` with a note has kept."""

    @property
    def encoder(self) -> Encoder:
        """The encoder of its model."""

    def use(self, encoder: Encoder) -> None:
        """Take an encoder that is loaded already."""

    def upsert(
        self,
        records: Iterable[Record],
        *,
        embeddings: Embeddings | None = None,
        fingerprint: str | None = None,
        note: Any = None,
    ) -> Change:
        """Write documents, all or none."""

    def maintain(self) -> list[str]:
        """Do what is due after changes; a note where that failed."""


def build(
    building: Callable[..., AbstractContextManager[Fillable]],
    place: Any,
    items: Iterable[Record],
    settings: BankSettings | None,
    *,
    encoder: Encoder | None,
    model: Any,
    resume: bool,
    progress: Progress,
) -> Built:
    """Make a bank of records, of any kind.

    Args:
        building: What gives the bank to fill, and its name when it is filled.
        place: Of the new bank.
        items: Any iterable of records, ``metadata`` may be left out; with ``resume``, those of the interrupted build.
        settings: Routes, keys and analyzer of the bank; by default ``BankSettings()``.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found, if it may be loaded from there again; by default its folder.
        resume: Continue an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Returns:
        What was written.

    Raises:
        EcomRagError: As ``bank.build``.
    """
    settings, notes = settings_of(settings), list[str]()
    remembered = model_for(settings.outputs, encoder, path_or_none(model, "model"))
    with building(place, settings, remembered, resume=flag(resume, "resume"), notes=notes) as bank:
        if encoder is not None:
            bank.use(encoder)
        built = fill(bank, items, progress)
        if not built.records:
            raise UsageError(
                f"{bank.path}: the input held no records, so there is nothing to build of; for an empty bank in Python"
                " use `create`"
            )
    built.notes = notes + built.notes
    return built


def add(bank: Fillable, items: Iterable[Record], *, progress: Progress = None) -> Built:
    """Upsert a stream of records, a block at a time; after a kill the blocks before are there.

    Args:
        bank: Open for writing.
        items: Any iterable of records.
        progress: Called with the number of records of each block that is written.

    Raises:
        EcomRagError: As ``SeedBank.upsert``; earlier blocks stay.
    """
    built = Built()
    _write(bank, ((block, None) for block in _blocks(items)), built, progress)
    built.notes += bank.maintain()
    return built


def check_same(bank: Fillable, settings: BankSettings) -> None:
    """Raise ``ResumeError`` where an interrupted build had other settings."""
    before, now = bank.settings.shown(), settings.shown()
    changed = [f"{key}: {before[key]}, now {now[key]}" for key in now if before[key] != now[key]]
    if changed:
        raise ResumeError(
            f"{bank.path}: the interrupted build had other settings ({'; '.join(changed)});"
            " give the same ones, or build again without `resume`"
        )


def fill(bank: Fillable, items: Iterable[Record], progress: Progress) -> Built:
    """Write the blocks that are not there yet, and with each, in the same transaction, how far that is."""
    built = Built()
    done = bank.note or {"blocks": 0, "records": 0, "digest": ""}
    if "blocks" not in done:
        raise ResumeError(f"{bank.path}: the interrupted run was a copy of a bank; build again without `resume`")
    _write(bank, _beyond(_blocks(items), done, built, progress, bank.path), built, progress)
    return built


def _beyond(
    blocks: Iterator[list[Record]], done: dict[str, Any], built: Built, progress: Progress, place: Any
) -> Iterator[tuple[list[Record], dict[str, Any]]]:
    """The blocks behind those of an interrupted build, each with a note of how far it is."""
    whole = Digest()
    records = number = 0
    for number, block in enumerate(blocks, start=1):
        for item in block:
            whole.record(item)
        records += len(block)
        if number > done["blocks"]:
            yield block, {"blocks": number, "records": records, "digest": whole.value}
            continue
        if number == done["blocks"] and done["digest"] != whole.value:
            break
        built.resumed += len(block)
        built.records += len(block)
        if progress is not None:
            progress(len(block))
    if number < done["blocks"] or (number == done["blocks"] and number and done["digest"] != whole.value):
        raise ResumeError(
            f"{place}: the interrupted build had read {done['records']} records, and this input does"
            " not begin with the same; give the same input, or build again without `resume`"
        )


def _write(bank: Fillable, blocks: Iterable[tuple[list[Record], Any]], built: Built, progress: Progress) -> None:
    """Write blocks and their notes, each while the next one is read and encoded."""

    def count(block: list[Record], change: Change) -> None:
        built.records += len(block)
        built.added += change.added
        built.replaced += change.removed
        built.notes += change.notes
        if progress is not None:
            progress(len(block))

    with ThreadPoolExecutor(1, thread_name_prefix="ecom_rag-bank") as writer:  # its end waits for what is written
        busy: tuple[list[Record], Future[Change]] | None = None
        for block, note in blocks:
            vectors = _encoded(bank, block)
            if busy is not None:
                count(busy[0], busy[1].result())
            busy = block, writer.submit(partial(bank.upsert, block, note=note, **vectors))
        if busy is not None:
            count(busy[0], busy[1].result())


def _encoded(bank: Fillable, block: list[Record]) -> dict[str, Any]:
    """The embeddings of a block as ``upsert`` takes them; nothing where no route needs them."""
    outputs = bank.settings.outputs
    if not outputs:
        return {}
    found = bank.encoder.encode([record["text"] for record in block], outputs=outputs)
    return {"embeddings": found, "fingerprint": bank.encoder.fingerprint}


def _blocks(items: Iterable[Record]) -> Iterator[list[Record]]:
    return jobs.blocks_of(records.cleaned(items), jobs.Cut(BLOCK_RECORDS, _BLOCK_CHARS))
