"""The open bank in a server: what a bank on disk offers to searches, and to the commands over banks."""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

from ecom_rag._version import __version__
from ecom_rag.errors import BankChangedError, BankError, EcomRagError
from ecom_rag.files.records import Record, cleaned
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank.changes import Change, check_not_empty, check_one, check_share, note_of
from ecom_rag.seeds.bank.checks import sizes_of
from ecom_rag.seeds.bank.documents import ids_of, rows_of
from ecom_rag.seeds.bank.encoding import Encoding
from ecom_rag.seeds.bank.model import Model, model_from
from ecom_rag.seeds.bank.reading import Replay
from ecom_rag.seeds.bank.settings import from_meta
from ecom_rag.seeds.remote.engine import Engine, Rows, Sides
from ecom_rag.seeds.remote.terms import drift, sides_of
from ecom_rag.seeds.remote.view import Plan, View
from ecom_rag.values import copied

logger = logging.getLogger(__name__)


class RemoteBank:
    """An open bank: one of its handles may write at a time, any number may search, from anywhere.

    ``opening.open_bank`` opens one, ``opening.build`` makes one. What it is asked is as with ``SeedBank``; what it
    gives back is the same to the last bit.

    Args:
        engine: Its place in a server.
        encoder: Encoder of the bank's model, for ``upsert``; by default it is loaded when it is first needed.

    Attributes:
        path: The address, without a password.
        engine: As given.
        settings: What the bank was made with, beside the model.
        routes: Names of the routes.
        id_key: Key of the metadata that holds a document's id.
        label_key: Key of the metadata that holds a document's label.
        model: The model that its vectors are from; ``None`` where no route needs one.
        name: Tells this bank from all others.
        sides: What the routes over texts make of them.
    """

    def __init__(self, engine: Engine, *, encoder: Encoder | None = None) -> None:
        self.path, self.engine = str(engine.address), engine
        with engine.reading() as held:
            meta = held.meta()
        self.settings = from_meta(meta)
        self.routes = self.settings.routes
        self.id_key = self.settings.id_key
        self.label_key: str = self.settings.label_key
        self.model: Model | None = model_from(meta["model"])
        self.name: str = meta["bank"]
        self._sizes: dict[str, int] = meta["sizes"]
        self.sides = sides_of(self.routes, self.settings.analyzer)
        self._encoding = Encoding(self.model, self.path, self.settings.outputs)
        self._local = threading.local()
        if encoder is not None:
            self.use(encoder)

    @property
    def encoder(self) -> Encoder:
        """See ``SeedBank.encoder``."""
        return self._encoding.encoder()

    def use(self, encoder: Encoder) -> None:
        """See ``SeedBank.use``."""
        self._encoding.use(encoder)

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """See ``SeedBank.query_encoder``."""
        return self._encoding.for_queries(encoder)

    def upsert(
        self,
        records: Iterable[Record],
        *,
        embeddings: Embeddings | None = None,
        fingerprint: str | None = None,
        note: Any = None,
        expected_sequence: int | None = None,
    ) -> Change:
        """See ``SeedBank.upsert``: once it is returned, the server has acknowledged the change.

        Args:
            records: Documents.
            embeddings: Of the records, where they are known already.
            fingerprint: Of the model that gave them.
            note: Kept with the change, as JSON.
            expected_sequence: The sequence that the bank must be at; by default any.

        Raises:
            RecordError: As there, or a document that the server does not hold.
            BankError: As there, or a server that is gone.
            EmbeddingError: Embeddings that do not fit.
        """
        self.engine.check_open()
        batch = list(cleaned(records))
        note = note_of(note)
        rows, kept, notes = rows_of(batch, self.id_key)
        if not rows:
            return Change(self.sequence, notes=notes)
        vectors = self._encoding.embed(rows, kept, len(batch), embeddings, fingerprint)
        with self.engine.writing() as held:
            self._check(held, expected_sequence)
            known = held.meta()["sizes"]
            if (sizes := sizes_of(known, vectors, self.settings.outputs, self.path)) != known:
                held.note("sizes", sizes)
            replaced = held.append(rows, vectors, self._kept_sides, self.routes)
            if note is not None:
                held.note("note", note)
        return Change(held.state.sequence, len(rows), replaced, notes)

    def delete(
        self,
        ids: Iterable[Any] | None = None,
        *,
        filter: Any = None,
        allow_most: bool = False,
        expected_sequence: int | None = None,
    ) -> Change:
        """See ``SeedBank.delete``."""
        check_one(ids, filter)
        wanted = None if ids is None else ids_of(ids)
        if wanted is None:
            check_not_empty(filter)
        notes: list[str] = []
        with self.engine.writing() as held:
            self._check(held, expected_sequence)
            if wanted is not None:
                removed = held.remove(wanted, self._kept_sides, self.routes)
            else:
                found = held.filtered(filter)
                check_share(found, held.state.live, self.path, allow_most=allow_most)
                removed, notes = held.remove(found, self._kept_sides, self.routes), found.notes
        return Change(held.state.sequence, removed=removed, notes=notes)

    @property
    def sequence(self) -> int:
        """Number of the last change."""
        with self.engine.reading() as held:
            return held.state.sequence

    @property
    def note(self) -> Any:
        """What the last ``upsert`` with a note has kept; ``None`` where none has."""
        with self.engine.reading() as held:
            return held.meta().get("note")

    def __repr__(self) -> str:
        model = "" if self.model is None else f", model={self.model.path!r}"
        return f"RemoteBank({self.path!r}, routes={'+'.join(self.routes)}{model})"

    def __len__(self) -> int:
        """Documents."""
        with self.engine.reading() as held:
            return held.state.live

    def count(self, filter: Any = None) -> int:
        """See ``SeedBank.count``."""
        with self.engine.reading() as held:
            found = held.filtered(filter)
        self._warn(found.notes)
        return found.count

    def filter_notes(self, filter: Any) -> list[str]:
        """See ``SeedBank.filter_notes``."""
        with self.view() as view:
            return view.held.filtered(filter).notes

    def documents(self, filter: Any = None) -> Iterator[Record]:
        """See ``SeedBank.documents``."""
        with self.engine.reading() as held:
            found = held.filtered(filter)
            self._warn(found.notes)
            for record in held.documents(found):
                self.engine.check_open()
                yield record

    def replay(self, *, after: int = 0, limit: int = 1000) -> Replay:
        """See ``SeedBank.replay``."""
        with self.view() as view:
            rows = view.held.page(after, limit)
            embeddings = view.stored(np.array([row for row, _ in rows], np.int64))
        return Replay(
            self.name, view.sequence, [record for _, record in rows], embeddings, rows[-1][0] + 1 if rows else after
        )

    def get(self, ids: Iterable[Any]) -> list[Record | None]:
        """See ``SeedBank.get``."""
        wanted = ids_of(ids)
        with self.engine.reading() as held:
            found = held.documents_of(wanted)
        return [copied(found.get(id_)) for id_ in wanted]

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """The bank as of its last change, for one search or one block of searches; within a view, that one."""
        held: View | None = getattr(self._local, "held", None)
        if held is not None:
            yield held
            return
        with self.engine.reading() as rows:
            if not self._sizes:  # known from the first document on
                self._sizes.update(rows.meta()["sizes"])
            plan = Plan(self.name, self.routes, self._sizes, self.sides, self.settings.analyzer)
            self._local.held = View(rows, self.engine, plan, check_terms=lambda: self._check_terms(rows))
            try:
                yield self._local.held
            finally:
                self._local.held = None

    def refresh(self) -> None:
        """Make the terms of all texts anew: by this version's analysis, with the present mean length.

        Raises:
            BankError: Another process keeps writing.
        """
        self.engine.index_anew(self.sides, self._made)

    def maintain(self) -> list[str]:
        """Give room back, and make the terms anew, where that is due.

        Returns:
            A note where it failed; it is tried again the next time.
        """
        try:
            self.engine.tidy()
            with self.engine.reading() as held:
                due = any(drift(held.state, side) > self.engine.most_drift for side in self.sides.values())
            if due:
                self.refresh()
        except EcomRagError as error:
            return [f"the change is written, but making the terms anew failed ({error}); it is tried again later"]
        return []

    def close(self) -> None:
        """Close its connections: from then on every question and change is a ``BankError``."""
        self.engine.close()

    def __enter__(self) -> Self:
        self.engine.check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _made(self) -> dict[str, str]:
        """What the terms in the tables depend on."""
        return {"ecom_rag": __version__, "analyzer": self.settings.analyzer.fingerprint()}

    @property
    def _kept_sides(self) -> Sides:
        """The routes over texts that a change keeps up to date; a build ends with them."""
        return {} if self.engine.unfinished else self.sides

    def _warn(self, notes: Iterable[str]) -> None:
        for line in notes:
            logger.warning("%s: %s", self.path, line)

    def _check(self, held: Rows, expected: int | None) -> None:
        if self._kept_sides:
            self._check_terms(held)
        if expected not in (None, held.state.sequence):
            raise BankChangedError(
                f"{self.path}: is at sequence {held.state.sequence}; the change expected {expected}, so nothing was"
                " written; look at the bank again and repeat the change"
            )

    def _check_terms(self, held: Rows) -> None:
        made = held.meta().get("made") or {}
        if made != self._made:
            raise BankError(
                f"{self.path}: its terms were made by ecom_rag {made.get('ecom_rag', '(unknown)')}, this is"
                f" {__version__}; make them anew with ecom-rag bank refresh"
            )
