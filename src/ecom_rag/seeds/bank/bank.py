"""The seed bank: documents that outlive the process, and the indexes that search them."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ecom_rag import arguments
from ecom_rag.arguments import PathLike, flag, names_of, number, path_of, text_of
from ecom_rag.errors import BankError, EcomRagError, EmbeddingError, UsageError
from ecom_rag.files import disk
from ecom_rag.files.keys import parse_key, written
from ecom_rag.files.records import Record, cleaned
from ecom_rag.files.values import copied, plain, type_name
from ecom_rag.filters.parse import parse
from ecom_rag.filters.sql import conditions, indexable
from ecom_rag.filters.tree import And
from ecom_rag.filters.unmet import SAMPLE, filter_notes
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.routes import ENCODED_ROUTES, INDEXED
from ecom_rag.seeds.bank import derived as indexes
from ecom_rag.seeds.bank import store
from ecom_rag.seeds.bank.checks import size_of
from ecom_rag.seeds.bank.derived import Plan
from ecom_rag.seeds.bank.documents import ids_of, record_of, rows_of
from ecom_rag.seeds.bank.live import LiveIndexes
from ecom_rag.seeds.bank.model import Model, model_from
from ecom_rag.seeds.bank.store import Store
from ecom_rag.seeds.bank.view import View
from ecom_rag.seeds.source import check_routes, fitting
from ecom_rag.text.analysis import Analyzer

logger = logging.getLogger(__name__)

_MANY = 20_000  # rows that are worth a compaction or new saved indexes, where they are also
_SHARE = 0.25  # this share of all rows
_FEW = 10  # documents that a filter may remove whatever their share


@dataclass(frozen=True, slots=True)
class Change:
    """What an acknowledged change did.

    Args:
        sequence: Number of the change; the bank's last one where nothing was changed.
        added: Documents written.
        removed: Documents that are gone, those that were replaced by an upsert included.
        notes: Things worth a user's eye, one line each.
    """

    sequence: int
    added: int = 0
    removed: int = 0
    notes: list[str] = field(default_factory=list)


class SeedBank:
    """An open bank: one of its handles may write at a time, any number may search, in threads and in processes.

    Make one with ``SeedBank.create`` or ``SeedBank.build``, open it with ``SeedBank.open``. A process that was forked
    opens its own.

    Attributes:
        path: The folder.
        routes: Names of the indexes.
        model: The model that its vectors are from; ``None`` where no route needs one.
        id_key: Key of the metadata that says which document a record is.
    """

    def __init__(self, record: Store, *, encoder: Encoder | None = None, maintain: bool = True) -> None:
        self.path = record.folder
        self._store = record
        self._maintain = maintain
        with record.reading() as (db, _):
            meta = store.read_meta(db)
        self.routes: tuple[str, ...] = tuple(meta["routes"])
        self.model: Model | None = model_from(meta["model"])
        self.id_key: str = meta["id_key"] if meta.get("id_key_is_path") else written(meta["id_key"])  # older: a name
        self._label_key: str = meta["label_key"]
        self._index_keys: list[str] = meta["index_keys"]
        self._indexed = frozenset(map(parse_key, self._index_keys))
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in meta["analyzer"].items()
        }
        self._analyzer = Analyzer(**options)
        self._live = LiveIndexes(record, Plan(meta["bank"], self.routes, self._analyzer, meta["sizes"]), self._indexed)
        self._loading = threading.Lock()
        self._encoder: Encoder | None = None
        if encoder is not None:
            self.use(encoder)

    @classmethod
    def create(
        cls,
        path: PathLike,
        *,
        routes: Sequence[str] = ("bm25", "dense"),
        encoder: Encoder | None = None,
        model: PathLike | None = None,
        id_key: str = "id",
        label_key: str = "label",
        index_keys: Sequence[str] = (),
        analyzer: Analyzer | None = None,
    ) -> Self:
        """Make an empty bank.

        Args:
            path: A folder that is not there yet, or is empty.
            routes: Indexes to keep, of ``retrieval.routes.INDEXED``.
            encoder: Needed where a route searches embeddings.
            model: Where the encoder was found, if it may be loaded from there again; by default its folder.
            id_key: Key of the metadata, written as in a filter, that holds a document's id.
            label_key: Key of the metadata, written as in a filter, whose labels ``stats`` counts.
            index_keys: Keys, written as in a filter, for which filters are made fast.
            analyzer: How texts become terms.

        Raises:
            UsageError: No route, an unknown one, or a key that cannot be indexed.
            ModelError: The encoder cannot give what a route needs.
            BankError: There is something already.
        """
        folder = Path(path_of(path, "path"))
        routes, index_keys = names_of(routes, "routes"), names_of(index_keys, "index_keys")
        id_key, model = text_of(id_key, "id_key"), arguments.path_or_none(model, "model")
        if not isinstance(analyzer, Analyzer | None):
            raise UsageError(f"analyzer is of type {type_name(analyzer)}; expected Analyzer(...)")
        if folder.exists() and not (folder.is_dir() and {item.name for item in folder.iterdir()} <= {"lock"}):
            raise BankError(f"{folder}: is there already; name a folder that is not, or remove it")
        check_routes(routes, encoder, INDEXED)
        for name, one in (("id_key", id_key), ("label_key", label_key)):
            parse_key(one, what=name)
        keys = [parse_key(key) for key in index_keys]
        for key, parts in zip(index_keys, keys, strict=True):
            if not indexable(parts):
                raise UsageError(
                    f"index key {key!r} holds quotes, backslashes or control characters; filters find it,"
                    " but it cannot be indexed"
                )
        encoded = encoder is not None and any(route in ENCODED_ROUTES for route in routes)
        meta = {
            "bank": uuid.uuid4().hex,
            "routes": list(routes),
            "model": asdict(Model.of(encoder, model)) if encoder is not None and encoded else None,
            "id_key": id_key,
            "id_key_is_path": True,
            "label_key": label_key,
            "index_keys": list(index_keys),
            "analyzer": asdict(analyzer or Analyzer()),
            "sizes": {},
        }
        return cls(Store.create(folder, meta, index_keys=keys), encoder=encoder)

    @classmethod
    def open(
        cls, path: PathLike, *, encoder: Encoder | None = None, timeout: float = 10.0, maintain: bool = True
    ) -> Self:
        """Open a bank.

        Args:
            path: Its folder.
            encoder: Of the bank's model, for ``upsert``; by default it is loaded when it is first needed.
            timeout: Seconds to wait for another writer.
            maintain: After a change, compact and save the indexes where it is due.

        Raises:
            BankError: No bank, a damaged one, or an encoder that is not of the bank's model.
            UsageError: An argument of the wrong kind.
        """
        folder, maintain = Path(path_of(path, "path")), flag(maintain, "maintain")
        timeout = number(timeout, "timeout", low=0, expected="seconds from 0 on")
        return cls(Store(folder, timeout=timeout), encoder=encoder, maintain=maintain)

    @classmethod
    def build(
        cls,
        path: PathLike,
        records: Iterable[Record],
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
    ) -> Self:
        """Make a bank of records, which appears under its name when it is complete; see ``building.build``.

        Args:
            path: A folder that does not exist yet.
            records: Any iterable of records; ``metadata`` may be left out. Read block by block.
            encoder: As of ``create``, like the next six.
            model: See there.
            routes: See there.
            id_key: See there.
            label_key: See there.
            index_keys: See there.
            analyzer: See there.
            resume: Continue an interrupted build of the same settings and records, where there is one.
            progress: Called with the number of records of each block that is done.

        Returns:
            The open bank.

        Raises:
            BankError: The bank exists already, or another run is building it.
            RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
            ResumeError: The interrupted build had other settings or other records.
            UsageError: An argument of the wrong kind, or a route that is unknown or needs an encoder.
            ModelError: The encoder cannot give what a route needs.
        """
        from ecom_rag.seeds.bank.building import build

        build(
            path,
            records,
            encoder=encoder,
            model=model,
            routes=routes,
            id_key=id_key,
            label_key=label_key,
            index_keys=index_keys,
            analyzer=analyzer,
            resume=resume,
            progress=progress,
        )
        return cls.open(path, encoder=encoder)

    @classmethod
    def restore(cls, snapshot: PathLike, path: PathLike) -> Self:
        """Make a bank of a snapshot and open it; see ``copies.restore``.

        Args:
            snapshot: Folder that ``snapshot`` made.
            path: The bank's folder; does not exist yet.

        Returns:
            The open bank.

        Raises:
            BankError: No snapshot, a damaged one, or ``path`` exists already.
        """
        from ecom_rag.seeds.bank.copies import restore

        restore(snapshot, path)
        return cls.open(path)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the bank's model, loaded when it is first needed.

        Raises:
            BankError: No route needs one, or what is found there now is another model.
        """
        with self._loading:
            if self._encoder is None:
                if self.model is None:
                    raise BankError(f"{self.path}: its routes ({', '.join(self.routes)}) need no model")
                loaded = self.model.load()
                self.model.check(loaded, self.path)
                self._encoder = loaded
            return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Take an encoder that is loaded already.

        Args:
            encoder: Of the bank's model.

        Raises:
            BankError: It is not of the bank's model.
            UsageError: It is no encoder.
        """
        arguments.model(encoder, "encoder", "check_outputs", "Encoder")
        if self.model is not None:
            self.model.check(encoder, self.path)
        self._encoder = encoder

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """The encoder for queries: the one given, else the bank's own, loaded when it is first needed.

        Args:
            encoder: Of the bank's model.

        Raises:
            BankError: It is not of the bank's model.
        """
        if self.model is None:
            return encoder
        if encoder is None:
            return self.encoder
        self.model.check(encoder, self.path)
        return encoder

    # --- changes ------------------------------------------------------------------------------------------------------

    def upsert(
        self,
        records: Iterable[Record],
        *,
        embeddings: Embeddings | None = None,
        fingerprint: str | None = None,
        note: Any = None,
    ) -> Change:
        """Write documents, all or none; one whose id is there takes the place of the old one, as the newest row.

        Args:
            records: Documents; any iterable, ``metadata`` may be left out. One without an id is its own content.
            embeddings: Of the records, where they are known already.
            fingerprint: Of the model that gave them.
            note: Kept with the change, as JSON, e.g. how far an import has come; ``bank.note`` is the last one.

        Returns:
            What was done. Once it is returned, it is on the disk, and the next search sees it.

        Raises:
            RecordError: Something that is no record, or holds what JSON cannot hold; nothing is written.
            BankError: The bank is closed, another model's embeddings, or another process that keeps writing.
            EmbeddingError: Embeddings that do not fit.
        """
        self._store.check_open()
        batch = list(cleaned(records))
        try:
            note = plain(note, "note")
        except ValueError as error:
            raise UsageError(str(error)) from None
        rows, kept, notes = rows_of(batch, self.id_key)
        if not rows:
            return Change(self.sequence, notes=notes)
        outputs = [route for route in self.routes if route in ENCODED_ROUTES]
        if outputs:
            if embeddings is None:
                embeddings = self.encoder.encode([row.text for row in rows], outputs=outputs)
            else:
                assert self.model is not None
                self.model.check_fingerprint(fingerprint, self.path)
                embeddings = fitting(embeddings, outputs, len(batch)).take(np.array(kept, np.int64))
            for number, row in enumerate(rows):
                row.blobs.update(indexes.blobs_of(embeddings, number))
        with self._store.writing() as (db, state):
            if embeddings is not None and outputs:
                self._check_sizes(db, embeddings, outputs)
            replaced = store.append(db, state, rows)
            if note is not None:
                store.write_meta(db, "note", note)
        return Change(state.sequence + 1, len(rows), replaced, notes + self._look_after())

    def delete(self, ids: Iterable[Any] | None = None, *, filter: Any = None, allow_most: bool = False) -> Change:
        """Remove documents, by id or by what a filter matches; ids that do not exist are ignored.

        Args:
            ids: Any iterable of strings and integers; or
            filter: An expression or its dict form.
            allow_most: Let a filter remove more than half of the documents, where these are more than 10: a mistyped
                ``!=`` matches nearly all of them.

        Returns:
            What was done, with a note where nothing meets the filter or a key of it is unknown.

        Raises:
            UsageError: Neither or both are given, not a filter, an empty one, or one that matches too much.
            BankError: The bank is closed, another process keeps writing.
        """
        if (ids is None) == (filter is None):
            raise UsageError("delete takes ids or a filter; give one of them")
        if ids is not None:
            wanted = ids_of(ids)
            with self._store.writing() as (db, state):
                removed = store.remove_ids(db, state, wanted)
            return Change(state.sequence + bool(removed), removed=removed, notes=self._look_after())
        if parse(filter) == And(()):
            raise UsageError("the filter is empty, so it matches every document; give a condition")
        where, parameters = self._where(filter)
        with self._store.writing() as (db, state):
            matched = store.count_where(db, where, parameters)
            notes = self._filter_notes(db, filter, matched, state.live)
            if not allow_most and matched > max(_FEW, state.live / 2):
                raise UsageError(
                    "; ".join(
                        [
                            f"{self.path}: the filter matches {matched} of {state.live} documents",
                            *notes,
                            "to remove them all the same, pass --yes (in Python allow_most=True)",
                        ]
                    )
                )
            removed = store.remove_where(db, state, where, parameters)
        return Change(state.sequence + bool(removed), removed=removed, notes=notes + self._look_after())

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Number of the last change."""
        with self._store.reading() as (_, state):
            return state.sequence

    @property
    def note(self) -> Any:
        """What the last ``upsert`` with a note has kept; ``None`` where none has."""
        with self._store.reading() as (db, _):
            return store.read_meta(db).get("note")

    @property
    def settings(self) -> dict[str, Any]:
        """What the bank was made with, beside the model."""
        return {
            "routes": list(self.routes),
            "id_key": self.id_key,
            "label_key": self._label_key,
            "index_keys": sorted(self._index_keys),
            "analyzer": self._analyzer.fingerprint(),
        }

    def __repr__(self) -> str:
        try:
            state = "closed" if self._store.closed else f"{len(self)} documents"
        except BankError:
            state = "cannot be read"
        model = "" if self.model is None else f", model={self.model.path!r}"
        return f"SeedBank({str(self.path)!r}, {state}, routes={'+'.join(self.routes)}{model})"

    def __len__(self) -> int:
        """Documents."""
        with self._store.reading() as (_, state):
            return state.live

    def count(self, filter: Any = None, *, warn: bool = True) -> int:
        """Documents that a filter matches; by default all.

        Args:
            filter: An expression or its dict form; by default all documents count.
            warn: Log a warning where none meets it, or no document has one of its keys.

        Raises:
            UsageError: Not a filter.
            BankError: The bank is closed.
        """
        if filter is None:
            return len(self)
        where, parameters = self._where(filter)
        with self._store.reading() as (db, state):
            matched = store.count_where(db, where, parameters)
            for note in self._filter_notes(db, filter, matched, state.live) if warn else ():
                logger.warning("%s: %s", self.path, note)
        return matched

    def filter_notes(self, filter: Any) -> list[str]:
        """A line each for: no document meets the filter; no document has one of its keys.

        Args:
            filter: An expression or its dict form; ``None`` for none.

        Raises:
            UsageError: Not a filter.
        """
        if filter is None:
            return []
        matched = self.count(filter, warn=False)
        with self._store.reading() as (db, state):
            return self._filter_notes(db, filter, matched, state.live)

    def get(self, ids: Iterable[Any]) -> list[Record | None]:
        """The documents of ids.

        Args:
            ids: Any iterable of strings and integers.

        Returns:
            One document per id, in their order; ``None`` where there is none.

        Raises:
            UsageError: Something that cannot be an id.
            BankError: The bank is closed.
        """
        wanted = ids_of(ids)
        query = "SELECT text, metadata, extra FROM documents WHERE id = ? AND removed IS NULL"
        found: dict[str, Record | None] = {}
        with self._store.reading() as (db, _):
            for id_ in wanted:
                row = db.execute(query, (id_,)).fetchone()
                found[id_] = None if row is None else record_of(*row)
        return [copied(found[id_]) for id_ in wanted]

    def stats(self) -> dict[str, Any]:
        """What ``ecom-rag bank info`` shows: size, labels, model, bytes on disk, sequence."""
        with self._store.reading() as (db, state):
            labels = store.label_counts(db, self._label_key)
        return {
            "path": str(self.path),
            "documents": state.live,
            "removed_rows": state.removed,
            "sequence": state.sequence,
            "model": asdict(self.model) if self.model else None,
            **self.settings,
            "labels": labels,
            "bytes": disk.bytes_below(self.path),
        }

    def view(self) -> AbstractContextManager[View]:
        """The bank as of its last change, for one search or one block of searches.

        While it is held, changes are acknowledged, but other views of this handle that need them wait; so hold it no
        longer than the search.

        Raises:
            BankError: The bank is closed; also when a view that is still held is asked after that.
        """
        return self._live.view()

    def refresh(self) -> int:
        """Bring the indexes up to the last change, of whichever process; every search does so by itself.

        Returns:
            The sequence that searches now see.
        """
        with self.view() as view:
            return view.sequence

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def save_indexes(self) -> None:
        """Write the indexes beside the record, so that the next one to open the bank need not build them."""
        self._live.save()

    def compact(self) -> int:
        """Drop removed rows from the file and from the indexes; returns how many there were."""
        with self._store.writing() as (db, state):
            gone = store.purge(db, state) if state.removed else 0
        if gone:
            self._store.give_space_back()
            self.save_indexes()
        return gone

    def snapshot(self, path: PathLike) -> dict[str, Any]:
        """Copy one state of the bank, while it is read and written; see ``copies.snapshot``.

        Args:
            path: Folder to make; appears under its name when it is complete.

        Returns:
            The ``sequence`` and ``documents`` of the copy, and the digest of its database.

        Raises:
            BankError: ``path`` exists already, or the bank is closed.
        """
        from ecom_rag.seeds.bank.copies import snapshot

        return snapshot(self, path)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database file."""
        self._store.checkpoint()

    def copy_record(self, target: Path) -> None:
        """Copy the database as of one change, though others write meanwhile; see ``snapshot`` for the whole bank.

        Args:
            target: File to write.

        Raises:
            BankError: The bank is closed.
        """
        self._store.copy(target)

    def close(self) -> None:
        """Close the record: from then on every question and change is a ``BankError``. A second time does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        self._store.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _look_after(self) -> list[str]:
        """Compact or save the indexes where enough has changed: work in proportion to the changes.

        Returns:
            A note where that failed: the change itself is on the disk.
        """
        if not self._maintain:
            return []
        try:
            with self._store.reading() as (_, state):
                pass
            many = max(_MANY, _SHARE * (state.live + state.removed))
            if state.removed > many:
                self.compact()
            elif self._live.rows_unsaved(state) > many:
                self.save_indexes()
        except (EcomRagError, OSError) as error:
            return [
                f"the change is written, but compacting or saving the indexes failed ({error}); it is tried again"
                " after the next change"
            ]
        return []

    def _where(self, filter: Any) -> tuple[str, list[Any]]:
        return conditions(parse(filter), indexed=self._indexed)

    def _filter_notes(self, db: Any, filter: Any, matched: int, live: int) -> list[str]:
        return filter_notes(
            filter,
            matched=matched,
            seeds=live,
            kinds_at=lambda path: store.kinds_at(db, path),
            sample=lambda: store.some_metadata(db, SAMPLE),
        )

    def _check_sizes(self, db: Any, embeddings: Embeddings, outputs: Sequence[str]) -> None:
        """Vectors of one dimension only; the first ones decide which."""
        known: dict[str, int] = store.read_meta(db)["sizes"]
        sizes = {name: size_of(embeddings, name) for name in outputs}
        for name, size in sizes.items():
            if known.get(name, size) != size:
                raise EmbeddingError(
                    f"{self.path}: its {name} vectors are of size {known[name]}, these of {size};"
                    " encode both with the same checkpoint"
                )
        if known != sizes:
            store.write_meta(db, "sizes", sizes)
