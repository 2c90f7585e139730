"""The journal as the rest of the service sees it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from ecom_rag.arguments import PathLike, number, one_of, path_of, text_of, whole
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record
from ecom_rag.serving.journal import agreement, chain, exports, items, leases, lists, people
from ecom_rag.serving.journal.agreement import Agreement
from ecom_rag.serving.journal.chain import Entry, Head
from ecom_rag.serving.journal.guarding import Guarding
from ecom_rag.serving.journal.items import Decision
from ecom_rag.serving.journal.leases import Item
from ecom_rag.serving.journal.lists import Counts, Page
from ecom_rag.serving.journal.people import Act
from ecom_rag.serving.journal.store import Store


class Journal:
    """An open journal; any thread may use it, and any number of processes the same file.

    Every change is one transaction, on the disk when the call returns. A call that raises has changed nothing, in the
    file or in the flood guard.

    Args:
        store: The file.
        guarding: The flood guard's memory.
        second_looks: Share of items with a verdict that get a second look, 0 to 1.
    """

    def __init__(self, store: Store, guarding: Guarding, second_looks: float) -> None:
        self.path = store.path
        self._store, self._guarding, self._share = store, guarding, second_looks
        self._changing = partial(store.writing, guarding.finish)

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        flood_limit: int = 10,
        flood_capacity: int = 1_000_000,
        second_looks: float = 0.05,
        timeout: float = 10.0,
    ) -> Self:
        """Open a journal, or make an empty one.

        Args:
            path: The file.
            flood_limit: Automatic decisions in one campaign before a person must look.
            flood_capacity: Campaigns that the flood guard counts, as of ``FloodGuard``.
            second_looks: Share of items with a verdict that get a second look.
            timeout: Seconds to wait for another process that writes.

        Raises:
            UsageError: An argument is out of range, or the file is no journal, damaged, or of a newer version.
            OSError: The disk is full.
        """
        share = number(second_looks, "second_looks", low=0, high=1, expected="a number from 0 to 1")
        guarding = Guarding(limit=flood_limit, capacity=whole(flood_capacity, "flood_capacity"))
        return cls(Store(Path(path_of(path, "path")), timeout=timeout), guarding, share)

    def close(self) -> None:
        """Let go of the file, after the change that is under way; a second time does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def record(self, decided: Sequence[Record], *, bank: str, sequence: int, actor: str) -> list[str]:
        """Write decisions, all or none.

        Args:
            decided: Records as ``Decider.decide_checked`` gives them.
            bank: Name of the bank.
            sequence: State of the bank.
            actor: Whose request it was.

        Returns:
            An id for each, which cannot be guessed.

        Raises:
            UsageError: A record without a decision. A full disk is an ``OSError``.
        """
        items.check_decided(decided)
        with self._changing() as db:
            return items.record(db, decided, bank=bank, sequence=sequence, actor=people.actor_of(actor))

    def admit_and_record(self, decided: Sequence[Record], *, bank: str, sequence: int, actor: str) -> list[str]:
        """As ``record``, after the flood guard has named the campaigns and sent floods to review.

        Args:
            decided: As there; their ``decision`` is changed once it is written, as ``Deciding`` changes it.
            bank: As there.
            sequence: As there.
            actor: As there.

        Raises:
            UsageError: As there. A full disk is an ``OSError``.
        """
        items.check_decided(decided)
        admitted = [{**one, "decision": dict(one["decision"])} for one in decided]
        with self._changing() as db:
            self._guarding.admit(db, admitted, chain.head(db).sequence + 1)
            ids = items.record(db, admitted, bank=bank, sequence=sequence, actor=people.actor_of(actor))
        for one, now in zip(decided, admitted, strict=True):
            one["decision"].update(now["decision"])
        return ids

    def verdict(
        self,
        decision_id: str,
        *,
        actor: str,
        label: Any = None,
        innocent: bool = False,
        note: str = "",
        lease: str | None = None,
    ) -> int:
        """Say what a text is; the flood guard takes it as a look at its campaign.

        An earlier verdict gives way. Where the person was given the item for a second look, both verdicts are kept.

        Args:
            decision_id: The decision; an automatic one too.
            actor: The person.
            label: The label; ``None`` with ``innocent`` stands for the label ``INNOCENT``.
            innocent: Whether nothing is wrong with the text.
            note: Why.
            lease: Of the item that the person was given; without it an answer that comes late replaces another one.

        Returns:
            How many waiting texts of the same flood were decided with this label and are therefore settled.

        Raises:
            UsageError: Neither a label nor innocent.
            UnknownDecision: No such decision.
            LeaseLost: Another person has the item, or has answered it since the lease ended.
        """
        body = {
            "label": people.label_of(label, innocent=innocent),
            "innocent": bool(innocent),
            "note": text_of(note, "note"),
        }
        with self._changing() as db:
            act = Act(decision_id, people.actor_of(actor), lease)
            return people.verdict(db, self._guarding, act, body, self._share)[1]

    def skip(self, decision_id: str, *, actor: str, lease: str | None = None) -> None:
        """Leave an item for others; this person gets it again after all that was not skipped. Raises as ``verdict``."""
        with self._changing() as db:
            people.skip(db, Act(decision_id, people.actor_of(actor), lease))

    def escalate(self, decision_id: str, *, actor: str, note: str = "", lease: str | None = None) -> None:
        """Move an item to the queue ``escalated``. Raises as ``verdict``."""
        with self._changing() as db:
            people.escalate(db, Act(decision_id, people.actor_of(actor), lease), text_of(note, "note"), self._share)

    def note(self, decision_id: str, *, actor: str, note: str) -> None:
        """Write a remark on a decision. Raises ``UnknownDecision``."""
        with self._changing() as db:
            people.remark(db, Act(decision_id, people.actor_of(actor)), "note", {"note": text_of(note, "note")})

    def seed_added(self, decision_id: str, *, actor: str, bank: str, seed_id: str) -> None:
        """Note that the text was added to a bank as a seed. Raises ``UnknownDecision``."""
        with self._changing() as db:
            body = {"bank": text_of(bank, "bank"), "seed_id": text_of(seed_id, "seed_id")}
            people.remark(db, Act(decision_id, people.actor_of(actor)), "seed_added", body)

    def undo(self, actor: str) -> Entry:
        """Take back the last thing that a person did and has not taken back, of the last 20; an undo stays.

        Returns:
            The entry that no longer stands; a seed that it tells of is still in its bank.

        Raises:
            NothingToUndo: There is none.
        """
        with self._changing() as db:
            return people.undo(db, self._guarding, people.actor_of(actor), self._share)

    def next(
        self, actor: str, *, queue: str = "review", filter: Any = None, lease_seconds: float = 600.0
    ) -> Item | None:
        """Give a person the next item; until the lease ends nobody else gets a text of its campaign.

        Items for a second look come first, then the most urgent, see ``waiting``, then those that the person skipped.

        Args:
            actor: The person.
            queue: ``review`` or ``escalated``.
            filter: An expression over the metadata and the decision (``decision.reason = "flood"``; a metadata key
                ``decision`` gives way to it). It looks at the text that stands for its campaign.
            lease_seconds: How long the item is the person's.

        Returns:
            The item; ``None`` where nothing waits for this person.

        Raises:
            UsageError: An argument is out of range, or the filter is none.
        """
        one_of(queue, "queue", ("review", "escalated"))
        seconds = number(lease_seconds, "lease_seconds", low=0, high=86_400, expected="0 to 86,400 seconds")
        wanted = leases.Wanted(people.actor_of(actor), queue, filter, seconds)
        return leases.next_item(self._store.reading, self._changing, wanted)

    def held(self, actor: str) -> list[tuple[str, str]]:
        """Decision id and lease of the items that a person has open, the earliest first."""
        with self._changing() as db:
            return leases.held(db, people.actor_of(actor))

    def release(self, decision_id: str, *, actor: str, lease: str | None = None) -> None:
        """Give an item back unseen. Raises as ``verdict``."""
        with self._changing() as db:
            row = items.find(db, decision_id)
            leases.check_lease(db, row, people.actor_of(actor), lease)
            leases.end_lease(db, row)

    def waiting(self, filter: Any = None, *, limit: int = 50, cursor: str | None = None) -> Page:
        """The queue as it is, in its order: one text per campaign, leased and skipped ones too.

        Args:
            filter: As of ``next``.
            limit: Most items, 1 to 1,000.
            cursor: Of the page before.

        Raises:
            UsageError: An argument is out of range, or the filter is none.
        """
        with self._store.reading() as db:
            return lists.list_waiting(db, filter, limit, cursor)

    def counts(self) -> Counts:
        """What waits, by policy, reason, label and age."""
        with self._store.reading() as db:
            return lists.count(db)

    def decisions(self, cursor: str | None = None, *, limit: int = 50, filter: Any = None) -> Page:
        """All decisions, the newest first. Arguments and errors are those of ``waiting``."""
        with self._store.reading() as db:
            return lists.list_decisions(db, filter, limit, cursor)

    def get(self, decision_id: str) -> Decision:
        """A decision with its history; not for somebody who is to take a second look. Raises ``UnknownDecision``."""
        with self._store.reading() as db:
            row = items.find(db, decision_id)
            [found] = items.decision_where(db, "i.entry = ?", [row.entry])
            return replace(found, history=items.history(db, row.id))

    def agreement(self) -> Agreement:
        """How far first and second verdicts agree."""
        with self._store.reading() as db:
            return agreement.agreement(db)

    def export(self, kind: str, *, label_key: str = "label", bank: str | None = None) -> Iterator[Record]:
        """Records with the verdicts that stand, for the other commands, see ``exports``.

        Args:
            kind: ``verdicts``, ``training`` or ``decided``.
            label_key: Metadata key of the label, that of the policy.
            bank: Of decisions over this bank only; by default of all.

        Yields:
            Records in the order of the verdicts, as of the moment when the first is read.

        Raises:
            UsageError: An argument is out of range.
        """
        one_of(kind, "kind", exports.KINDS)
        return self._exported(kind, parse_key(label_key, what="label_key"), bank)

    def head(self) -> Head:
        """The last entry; a copy that is kept elsewhere proves later that the file was not rewritten."""
        with self._store.reading() as db:
            return chain.head(db)

    def verify(self, known: Head | None = None) -> Head:
        """Walk the chain of entries, and hold decisions and verdicts against it; ``chain`` says what this finds.

        Args:
            known: A ``head`` that was kept elsewhere.

        Raises:
            JournalDamaged: Names the first entry that is not what was written.
        """
        with self._store.reading() as db:
            found = chain.check(db, str(self.path), known)
            items.check(db, str(self.path))
            return found

    def _exported(self, kind: str, label_key: tuple[str, ...], bank: str | None) -> Iterator[Record]:
        with self._store.reading() as db:
            yield from exports.exported(db, kind, label_key, bank)
