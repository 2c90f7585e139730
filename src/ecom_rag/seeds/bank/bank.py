"""The open seed bank: documents that outlive the process, and the indexes that search them."""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ecom_rag.arguments import PathLike, flag, number
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record, cleaned
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.address import folder_of
from ecom_rag.seeds.bank import changes, reading, upkeep
from ecom_rag.seeds.bank.changes import Change, Terms
from ecom_rag.seeds.bank.derived import Pause, Plan
from ecom_rag.seeds.bank.documents import rows_of
from ecom_rag.seeds.bank.encoding import Encoding
from ecom_rag.seeds.bank.live import LiveIndexes
from ecom_rag.seeds.bank.model import Model, model_from
from ecom_rag.seeds.bank.reading import Replay, SeedPage
from ecom_rag.seeds.bank.requests import Request
from ecom_rag.seeds.bank.settings import from_meta
from ecom_rag.seeds.bank.store import Store, read_meta
from ecom_rag.seeds.bank.streamed import StreamedIndexes
from ecom_rag.seeds.bank.view import View


class SeedBank:
    """An open bank: one of its handles may write at a time, any number may search, in threads and in processes.

    ``SeedBank.open`` opens one; the functions ``create``, ``build`` and ``restore`` make one. A process that was forked
    opens its own. Whatever it is asked, a bank that is closed or cannot be read raises a ``BankError``. A ``filter`` is
    an expression or its dict form, ``None`` matches all documents; what is none raises a ``UsageError``.

    Attributes:
        path: The folder.
        store: The system of record.
        settings: What the bank was made with, beside the model.
        routes: Names of the indexes.
        id_key: Key of the metadata that holds a document's id.
        model: The model that its vectors are from; ``None`` where no route needs one.
        indexed: Paths of the metadata that SQLite has an index for.
        plan: What its indexes depend on.
    """

    def __init__(self, store: Store, *, encoder: Encoder | None = None, maintain: bool = True) -> None:
        self.path, self.store = store.folder, store
        self._maintain = maintain
        with store.reading() as (db, _):
            meta = read_meta(db)
        self.settings = from_meta(meta)
        self.routes = self.settings.routes
        self.id_key = self.settings.id_key
        self.label_key: str = self.settings.label_key
        self.model: Model | None = model_from(meta["model"])
        self.indexed = frozenset(map(parse_key, self.settings.index_keys))
        self.plan = Plan(meta["bank"], self.routes, self.settings.analyzer, meta["sizes"])
        self._live = LiveIndexes(store, self.plan, self.indexed)
        self._encoding = Encoding(self.model, self.path, self.settings.outputs)
        self._streamed: StreamedIndexes | None = None
        if encoder is not None:
            self.use(encoder)

    @classmethod
    def open(
        cls, path: PathLike, *, encoder: Encoder | None = None, timeout: float = 10.0, maintain: bool = True
    ) -> Self:
        """Open a bank.

        Args:
            path: Folder of the bank.
            encoder: Encoder of the bank's model, for ``upsert``; by default it is loaded when it is first needed.
            timeout: Seconds to wait for another writer.
            maintain: After a change, compact and save the indexes where it is due.

        Raises:
            BankError: No bank, a damaged one, or an encoder that is not of the bank's model.
            UsageError: An argument of the wrong kind.
        """
        folder, maintain = Path(folder_of(path)), flag(maintain, "maintain")
        timeout = number(timeout, "timeout", low=0, expected="seconds from 0 on")
        return cls(Store(folder, timeout=timeout), encoder=encoder, maintain=maintain)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the bank's model, loaded when it is first needed.

        Raises:
            BankError: No route needs one, or what is found there now is another model.
        """
        return self._encoding.encoder()

    def use(self, encoder: Encoder) -> None:
        """Take an encoder that is loaded already.

        Args:
            encoder: Of the bank's model.

        Raises:
            BankError: It is not of the bank's model.
            UsageError: It is not an encoder.
        """
        self._encoding.use(encoder)

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """The encoder for queries: the one given, else the bank's own, loaded when it is first needed.

        Args:
            encoder: Of the bank's model.

        Raises:
            BankError: It is not of the bank's model.
        """
        return self._encoding.for_queries(encoder)

    def upsert(
        self,
        records: Iterable[Record],
        *,
        embeddings: Embeddings | None = None,
        fingerprint: str | None = None,
        note: Any = None,
        expected_sequence: int | None = None,
        request: Request | None = None,
    ) -> Change:
        """Write documents, all or none; one whose id exists takes the place of the old one, as the newest row.

        Args:
            records: Documents; any iterable, ``metadata`` may be left out. One without an id is its own content.
            embeddings: Of the records, where they are known already.
            fingerprint: Of the model that gave them.
            note: Kept with the change, as JSON, e.g. how far an import has come; ``bank.note`` is the last one.
            expected_sequence: The sequence that the bank must be at; by default any.
            request: Key and digest of the request, so that a repeated one writes nothing and is answered as before.

        Returns:
            What was done. Once it is returned, it is on the disk, and the next search sees it.

        Raises:
            RecordError: Something that is not a record, or holds what JSON cannot hold; nothing is written.
            BankError: Another model's embeddings, or another process that keeps writing.
            BankChangedError: The bank is at another sequence than expected.
            RepeatedKeyError: Another request has used the key.
            EmbeddingError: Embeddings that do not fit.
        """
        self.store.check_open()
        batch = list(cleaned(records))
        note = changes.note_of(note)
        rows, kept, notes = rows_of(batch, self.id_key)
        terms = Terms(expected_sequence, request)
        if not rows and terms == Terms():
            return Change(self.sequence, notes=notes)
        if (before := terms.answered(self.store)) is not None:
            return before
        vectors = self._encoding.embed(rows, kept, len(batch), embeddings, fingerprint) if rows else Embeddings()
        outputs = self.settings.outputs
        change = changes.write(self.store, rows, vectors, outputs=outputs, note=note, notes=notes, terms=terms)
        return replace(change, notes=change.notes + self._look_after())

    def delete(
        self,
        ids: Iterable[Any] | None = None,
        *,
        filter: Any = None,
        allow_most: bool = False,
        expected_sequence: int | None = None,
        request: Request | None = None,
    ) -> Change:
        """Remove documents, by id or by what a filter matches; ids that do not exist are ignored.

        Args:
            ids: Any iterable of strings and integers; or
            filter: An expression or its dict form.
            allow_most: Let a filter remove more than half of the documents, where these are more than 10: a mistyped
                ``!=`` matches nearly all of them.
            expected_sequence: The sequence that the bank must be at; by default any.
            request: Key and digest of the request, so that a repeated one writes nothing and is answered as before.

        Returns:
            What was done, with a note where nothing meets the filter or a key of it is unknown.

        Raises:
            UsageError: Neither or both are given, not a filter, an empty one, or one that matches too much.
            BankError: Another process keeps writing.
            BankChangedError: The bank is at another sequence than expected.
            RepeatedKeyError: Another request has used the key.
        """
        terms = Terms(expected_sequence, request)
        change = changes.remove(self.store, ids, filter, allow_most=allow_most, indexed=self.indexed, terms=terms)
        return replace(change, notes=change.notes + self._look_after())

    def would_delete(self, ids: Iterable[Any] | None = None, *, filter: Any = None) -> Change:
        """What ``delete`` would do now; nothing is written.

        Args:
            ids: Any iterable of strings and integers; or
            filter: An expression or its dict form.

        Raises:
            UsageError: Neither or both are given, not a filter, or something that cannot be an id.
            BankError: The bank is closed.
        """
        return changes.would_remove(self.store, ids, filter, indexed=self.indexed)

    def answered(self, request: Request) -> Change | None:
        """The answer that a request was given before; ``None`` for a new one.

        Args:
            request: Key and digest of it.

        Raises:
            RepeatedKeyError: Another request has used the key.
            BankError: The bank is closed.
        """
        return Terms(request=request).answered(self.store)

    @property
    def sequence(self) -> int:
        """Number of the last change."""
        return reading.sequence(self.store)

    @property
    def note(self) -> Any:
        """What the last ``upsert`` with a note has kept; ``None`` where none has."""
        return reading.note(self.store)

    def __repr__(self) -> str:
        model = "" if self.model is None else f", model={self.model.path!r}"
        return f"SeedBank({str(self.path)!r}, {reading.shown(self.store)}, routes={'+'.join(self.routes)}{model})"

    def __len__(self) -> int:
        """Documents."""
        return reading.live(self.store)

    def count(self, filter: Any = None) -> int:
        """Documents that a filter matches; a warning is logged where that is none, or a key of it is unknown.

        Args:
            filter: An expression or its dict form; by default all documents.

        Raises:
            UsageError: Not a filter.
            BankError: The bank is closed.
        """
        return reading.count(self.store, filter, self.indexed)

    def filter_notes(self, filter: Any) -> list[str]:
        """A line each for: no document meets the filter; no document has one of its keys. In a view, of its state.

        Args:
            filter: An expression or its dict form; ``None`` for none.

        Raises:
            UsageError: Not a filter.
            BankError: The bank is closed.
        """
        return reading.notes(self._live, filter, self.indexed)

    def documents(self, filter: Any = None) -> Iterator[Record]:
        """The documents that a filter matches, as of one change: new records in row order, read as they are asked for.

        A warning is logged where no document meets the filter, or a key of it is unknown.

        Args:
            filter: An expression or its dict form; by default all documents.

        Raises:
            UsageError: Not a filter.
            BankError: The bank is closed, also while documents are still being read.
        """
        return reading.documents(self.store, filter, self.indexed)

    def page(self, filter: Any = None, *, after: int = 0, limit: int = 100) -> SeedPage:
        """Some of the documents that a filter matches, in row order.

        Args:
            filter: An expression or its dict form; by default all documents.
            after: Where the page before ended; 0 for the first.
            limit: Documents per page.

        Raises:
            UsageError: Not a filter, or a number out of range.
            BankError: The bank is closed.
        """
        return reading.page(self.store, filter, self.indexed, after=after, limit=limit)

    def replay(self, *, after: int = 0, limit: int = 1000) -> Replay:
        """Some documents with their embeddings, to be written into another bank.

        Args:
            after: Where those before ended; 0 for the first.
            limit: Documents at most.

        Raises:
            BankError: The bank is closed.
        """
        return reading.replay(self.store, self.plan, after=after, limit=limit)

    def get(self, ids: Iterable[Any]) -> list[Record | None]:
        """One document per id, in their order; ``None`` where there is none.

        Args:
            ids: Any iterable of strings and integers.

        Raises:
            UsageError: Something that cannot be an id.
            BankError: The bank is closed.
        """
        return reading.get(self.store, ids)

    def view(self) -> AbstractContextManager[View]:
        """The bank as of its last change, for one search or one block of searches.

        While it is held, neither changes nor other views wait for it. Within a view of the same thread it is that one.
        A view that is still held when the bank is closed raises a ``BankError`` when it is asked after that.
        """
        return self._live.view()

    def pin(self, *, pause: Pause | None = None) -> View:
        """A view of the last change that stays until its ``end()`` is called; any thread may use it.

        Args:
            pause: Called between slices of the work that brings the indexes there, for a thread in the background; by
                default it is done at once.

        Raises:
            BankError: The bank is closed.
        """
        return self._live.pin(pause=pause)

    def using(self, pinned: View) -> AbstractContextManager[None]:
        """Let ``view()`` give what ``pin`` gave, in this thread and for the length of a ``with`` block.

        Args:
            pinned: A view of this bank that has not ended.

        Raises:
            BankError: The bank is closed.
        """
        return self._live.using(pinned)

    def refresh(self) -> int:
        """Bring the indexes up to the last change, as every search does; returns the sequence that searches now see."""
        with self.view() as view:
            return view.sequence

    def save_indexes(self, *, pause: Pause | None = None) -> None:
        """Write the indexes beside the record, so that the next one to open the bank need not build them.

        Args:
            pause: Called between slices of the work, for a thread in the background; by default it is done at once.

        Raises:
            BankError: The bank is closed.
        """
        self._live.save(pause=pause)

    def compact(self) -> int:
        """Drop removed rows from the file and from the indexes; returns how many there were."""
        return upkeep.compact(self.store, self._live)

    def close(self) -> None:
        """Close the record: from then on every question and change is a ``BankError``. A second time does nothing."""
        self.store.close()

    def __enter__(self) -> Self:
        self.store.check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def maintain(self, *, pause: Pause | None = None) -> list[str]:
        """Compact the bank or save its indexes where that is due, as every change does unless told otherwise.

        Args:
            pause: Called between slices of the work, for a thread in the background; by default it is done at once.

        Returns:
            A note where it failed, also where the pause has ended it; it is tried again the next time.
        """
        return upkeep.look_after(self.store, self._live, pause=pause)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Write the indexes while the bank is filled, in a ``with`` block that searches nothing; its end saves them."""
        self._streamed = StreamedIndexes(self.store, self.plan)
        try:
            yield
            self._streamed.finish()
        finally:
            self._streamed = None

    def _look_after(self) -> list[str]:
        if self._streamed is not None:
            self._streamed.follow()
        return self.maintain() if self._maintain else []
