"""A bank copied into another kind of bank: its documents and vectors written again, in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ecom_rag.errors import BankError, ResumeError, UsageError
from ecom_rag.seeds.bank.reading import Replay
from ecom_rag.seeds.opening import AnyBank, check_target, filling, open_bank

_BLOCK = 1024  # documents written at once; with those of a token each, vectors of this many fit into memory


@dataclass
class Migrated:
    """What was copied.

    Args:
        documents: All of them.
        resumed: Those that an interrupted run had copied.
        sequence: Of the source.
        notes: Things worth a user's eye, one line each.
    """

    documents: int = 0
    resumed: int = 0
    sequence: int = 0
    notes: list[str] = field(default_factory=list)


def migrate(
    source: str,
    target: str,
    *,
    routes: Sequence[str] | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Migrated:
    """Copy a bank. Nothing is encoded: the vectors are those of the source.

    Args:
        source: Folder or address of a bank, which stays as it is; nobody may change it meanwhile.
        target: Folder or address of the new one, which appears under its name when it is complete.
        routes: Some of the source's; by default all.
        resume: Continue an interrupted run, where there is one.
        progress: Called with the number of documents of each block that is written.

    Raises:
        BankError: There is no source, the target exists, or the source was changed meanwhile.
        UsageError: A route that the source does not have or the target cannot have, or an empty source.
        ResumeError: The interrupted run copied something else.
    """
    check_target(target)
    migrated = Migrated()
    with open_bank(source) as origin:
        chosen = tuple(origin.routes if routes is None else routes)
        missing = [route for route in chosen if route not in origin.routes]
        if missing:
            raise UsageError(f"{origin.path}: has no route {', '.join(missing)}; it has {', '.join(origin.routes)}")
        settings = replace(origin.settings, routes=chosen)
        model = origin.model if settings.outputs else None
        with filling(target, settings, model, resume=resume, notes=migrated.notes) as bank:
            _copy(origin, bank, migrated, progress)
    return migrated


def _copy(origin: AnyBank, bank: AnyBank, migrated: Migrated, progress: Callable[[int], None] | None) -> None:
    """Write the blocks that are not there yet, and with each, in the same transaction, how far that is."""
    note = bank.note
    block = origin.replay(after=note["after"] if note and "after" in note else 0, limit=_BLOCK)
    state = {"source": block.name, "sequence": block.sequence}
    if note and {key: note.get(key) for key in state} != state:
        raise ResumeError(
            f"{bank.path}: the interrupted run made something else than a copy of {origin.path} at sequence"
            f" {block.sequence}; copy again without `resume`"
        )
    migrated.resumed = migrated.documents = note["records"] if note else 0
    migrated.sequence = block.sequence
    while block.records:
        if (block.name, block.sequence) != (state["source"], state["sequence"]):
            raise BankError(f"{origin.path}: was changed while it was copied; copy it again, without `resume`")
        migrated.documents += len(block.records)
        _write(bank, block, {**state, "after": block.after, "records": migrated.documents})
        if progress is not None:
            progress(len(block.records))
        block = origin.replay(after=block.after, limit=_BLOCK)
    if not migrated.documents:
        raise UsageError(f"{origin.path}: holds no seeds, so there is nothing to copy")


def _write(bank: AnyBank, block: Replay, note: Any) -> None:
    fingerprint = None if bank.model is None else bank.model.fingerprint
    bank.upsert(block.records, embeddings=block.embeddings, fingerprint=fingerprint, note=note)
