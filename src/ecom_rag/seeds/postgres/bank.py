"""The open bank in PostgreSQL: what a bank on disk offers to searches, and to the commands over banks."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

from ecom_rag._version import __version__
from ecom_rag.arguments import number, path_of
from ecom_rag.errors import BankChangedError, BankError
from ecom_rag.files.records import Record, cleaned
from ecom_rag.files.values import copied
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.changes import Change, check_not_empty, check_one, check_share, note_of
from ecom_rag.seeds.bank.checks import sizes_of
from ecom_rag.seeds.bank.documents import ids_of, rows_of
from ecom_rag.seeds.bank.encoding import Encoding
from ecom_rag.seeds.bank.model import Model, model_from
from ecom_rag.seeds.bank.reading import Replay
from ecom_rag.seeds.bank.settings import from_meta
from ecom_rag.seeds.postgres import changes, schema, table, upkeep
from ecom_rag.seeds.postgres.store import State, Store
from ecom_rag.seeds.postgres.terms import sides_of
from ecom_rag.seeds.postgres.view import Plan, View


class PostgresBank:
    """An open bank: one of its handles may write at a time, any number may search, from anywhere.

    ``PostgresBank.open`` opens one; the functions ``create`` and ``build`` make one. What it is asked is as with
    ``SeedBank``; what it is given back is the same to the last bit.

    Attributes:
        path: The address, without a password.
        store: Its connections.
        settings: What the bank was made with, beside the model.
        routes: Names of the routes.
        id_key: Key of the metadata that holds a document's id.
        label_key: Key of the metadata that holds a document's label.
        model: The model that its vectors are from; ``None`` where no route needs one.
        name: Tells this bank from all others.
        sides: What the routes over texts make of them.
    """

    def __init__(self, store: Store, *, encoder: Encoder | None = None, unfinished: bool = False) -> None:
        self.path, self.store = str(store.address), store
        with store.reading() as (db, _):
            meta = schema.read_meta(db)
        self.settings = from_meta(meta)
        self.routes = self.settings.routes
        self.id_key = self.settings.id_key
        self.label_key: str = self.settings.label_key
        self.model: Model | None = model_from(meta["model"])
        self.name: str = meta["bank"]
        self._sizes: dict[str, int] = meta["sizes"]
        self.sides = sides_of(self.routes, self.settings.analyzer)
        self._unfinished = unfinished
        self._encoding = Encoding(self.model, self.path, self.settings.outputs)
        self._local = threading.local()
        if encoder is not None:
            self.use(encoder)

    @classmethod
    def open(cls, url: str, *, encoder: Encoder | None = None, timeout: float = 10.0) -> Self:
        """Open a bank.

        Args:
            url: ``postgresql://user@host:port/database?bank=NAME``.
            encoder: Encoder of the bank's model, for ``upsert``; by default it is loaded when it is first needed.
            timeout: Seconds to wait for another writer.

        Raises:
            BankError: No server, no bank, or an encoder that is not of the bank's model.
            UsageError: An argument of the wrong kind, or psycopg is not installed.
        """
        timeout = number(timeout, "timeout", low=0, expected="seconds from 0 on")
        return cls(Store(Address.of(path_of(url, "url")), timeout=timeout), encoder=encoder)

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
        """See ``SeedBank.upsert``: once it is returned, the change is on the server's disk.

        Args:
            records: Documents.
            embeddings: Of the records, where they are known already.
            fingerprint: Of the model that gave them.
            note: Kept with the change, as JSON.
            expected_sequence: The sequence that the bank must be at; by default any.

        Raises:
            RecordError: As there, or a text of more than 16,000 different terms, which pgvector does not hold.
            BankError: As there, or a server that is gone.
            EmbeddingError: Embeddings that do not fit.
        """
        self.store.check_open()
        batch = list(cleaned(records))
        note = note_of(note)
        rows, kept, notes = rows_of(batch, self.id_key)
        if not rows:
            return Change(self.sequence, notes=notes)
        vectors = self._encoding.embed(rows, kept, len(batch), embeddings, fingerprint)
        with self.store.writing() as (db, state):
            self._check(db, state, expected_sequence)
            known = schema.read_meta(db)["sizes"]
            if (sizes := sizes_of(known, vectors, self.settings.outputs, self.path)) != known:
                schema.write_meta(db, "sizes", sizes)
            replaced = changes.append(db, state, rows, vectors, self._kept_sides, self.routes)
            if note is not None:
                schema.write_meta(db, "note", note)
        return Change(state.sequence, len(rows), replaced, notes)

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
        with self.store.writing() as (db, state):
            self._check(db, state, expected_sequence)
            if wanted is not None:
                where, parameters = "sha256(id) = ANY(%s)", [table.digests(wanted)]
            else:
                found = table.filtered(db, state, filter)
                check_share(found, state.live, self.path, allow_most=allow_most)
                where, parameters, notes = found.where, found.parameters, found.notes
            removed = changes.remove(db, state, where, parameters, self._kept_sides, self.routes)
        return Change(state.sequence, removed=removed, notes=notes)

    @property
    def sequence(self) -> int:
        """Number of the last change."""
        with self.store.reading() as (_, state):
            return state.sequence

    @property
    def note(self) -> Any:
        """What the last ``upsert`` with a note has kept; ``None`` where none has."""
        with self.store.reading() as (db, _):
            return schema.read_meta(db).get("note")

    def __repr__(self) -> str:
        model = "" if self.model is None else f", model={self.model.path!r}"
        return f"PostgresBank({self.path!r}, routes={'+'.join(self.routes)}{model})"

    def __len__(self) -> int:
        """Documents."""
        with self.store.reading() as (_, state):
            return state.live

    def count(self, filter: Any = None) -> int:
        """See ``SeedBank.count``."""
        with self.store.reading() as (db, state):
            found = table.filtered(db, state, filter)
        self.store.warn(found.notes)
        return found.count

    def filter_notes(self, filter: Any) -> list[str]:
        """See ``SeedBank.filter_notes``."""
        with self.view() as view:
            return table.filtered(*view.transaction, filter).notes

    def documents(self, filter: Any = None) -> Iterator[Record]:
        """See ``SeedBank.documents``."""
        with self.store.reading() as (db, state):
            found = table.filtered(db, state, filter)
            self.store.warn(found.notes)
            for record in table.documents(db, found.where, found.parameters):
                self.store.check_open()
                yield record

    def replay(self, *, after: int = 0, limit: int = 1000) -> Replay:
        """See ``SeedBank.replay``."""
        with self.view() as view:
            rows = table.page(view.transaction[0], after, limit)
            embeddings = view.stored(np.array([row for row, _ in rows], np.int64))
        return Replay(
            self.name, view.sequence, [record for _, record in rows], embeddings, rows[-1][0] + 1 if rows else after
        )

    def get(self, ids: Iterable[Any]) -> list[Record | None]:
        """See ``SeedBank.get``."""
        wanted = ids_of(ids)
        with self.store.reading() as (db, _):
            found = table.documents_of(db, wanted)
        return [copied(found.get(id_)) for id_ in wanted]

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """The bank as of its last change, for one search or one block of searches; within a view, that one."""
        held: View | None = getattr(self._local, "held", None)
        if held is not None:
            yield held
            return
        with self.store.reading() as (db, state):
            if not self._sizes:  # known from the first document on
                self._sizes.update(schema.read_meta(db)["sizes"])
            plan = Plan(self.name, self.routes, self._sizes, self.sides, self.settings.analyzer)
            self._local.held = View(db, state, self.store, plan, check_terms=lambda: self._check_terms(db))
            try:
                yield self._local.held
            finally:
                self._local.held = None

    def refresh(self) -> None:
        """Make the terms of all texts anew: by this version's analysis, with the present mean length.

        Raises:
            BankError: Another process keeps writing.
        """
        upkeep.index_anew(self.store, self.sides.values(), self._made)

    def maintain(self) -> list[str]:
        """Make the terms anew where that is due.

        Returns:
            A note where it failed; it is tried again the next time.
        """
        return upkeep.look_after(self.store, self.sides.values(), self._made)

    def close(self) -> None:
        """Close its connections: from then on every question and change is a ``BankError``."""
        self.store.close()

    def __enter__(self) -> Self:
        self.store.check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _made(self) -> dict[str, str]:
        """What the terms in the tables depend on."""
        return {"ecom_rag": __version__, "analyzer": self.settings.analyzer.fingerprint()}

    @property
    def _kept_sides(self) -> changes.Sides:
        """The routes over texts that a change keeps up to date; a build ends with them."""
        return {} if self._unfinished else self.sides

    def _check(self, db: Any, state: State, expected: int | None) -> None:
        if self._kept_sides:
            self._check_terms(db)
        if expected not in (None, state.sequence):
            raise BankChangedError(
                f"{self.path}: is at sequence {state.sequence}; the change expected {expected}, so nothing was written;"
                " look at the bank again and repeat the change"
            )

    def _check_terms(self, db: Any) -> None:
        made = schema.read_meta(db).get("made") or {}
        if made != self._made:
            raise BankError(
                f"{self.path}: its terms were made by ecom_rag {made.get('ecom_rag', '(unknown)')}, this is"
                f" {__version__}; make them anew with ecom-rag bank refresh"
            )
