"""New banks in PostgreSQL: empty ones, and ones built of records, which get their name when they are complete."""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ecom_rag import errors
from ecom_rag.arguments import path_or_none
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.filling import Built, check_same, fill
from ecom_rag.seeds.bank.model import Model, model_for
from ecom_rag.seeds.bank.settings import BankSettings, settings_of, to_meta
from ecom_rag.seeds.postgres import schema
from ecom_rag.seeds.postgres.bank import PostgresBank
from ecom_rag.seeds.postgres.store import Store, connect
from ecom_rag.seeds.postgres.store import errors as server_errors


def create(
    url: str, settings: BankSettings | None = None, *, encoder: Encoder | None = None, model: str | None = None
) -> PostgresBank:
    """Make an empty bank.

    Args:
        url: ``postgresql://user@host:port/database?bank=NAME``; there is no schema of that name.
        settings: Routes, keys and analyzer of the bank; by default ``BankSettings()``.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found, if it may be loaded from there again; by default its folder.

    Returns:
        The open bank.

    Raises:
        UsageError: An argument of the wrong kind, or a route that there cannot be.
        ModelError: The encoder cannot give what a route needs.
        BankError: The name is taken, or the server cannot be reached.
    """
    address, settings = Address.of(url), settings_of(settings)
    check_routes(settings)
    make(address, settings, model_for(settings.outputs, encoder, path_or_none(model, "model")))
    bank = PostgresBank(Store(address), encoder=encoder)
    bank.refresh()
    return bank


def make(address: Address, settings: BankSettings, model: Model | None) -> None:
    """Make the schema of an empty bank, whose texts are not indexed yet.

    Args:
        address: Where.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.

    Raises:
        UsageError: A route that there cannot be.
        BankError: The name is taken, or the server cannot be reached.
    """
    meta = {"bank": uuid.uuid4().hex, "model": asdict(model) if model else None, "sizes": {}, **to_meta(settings)}
    with _connected(address) as db:
        with contextlib.suppress(Exception):  # who may not do it reads below what is missing
            db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        _check_new(db, address)
        with db.transaction():
            schema.create(db, address, meta, settings.routes, map(parse_key, settings.index_keys))


def build(
    url: str,
    items: Iterable[Record],
    settings: BankSettings | None = None,
    *,
    encoder: Encoder | None = None,
    model: str | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank of records under the name ``NAME.partial`` and give it its name at the end.

    Args:
        url: ``postgresql://user@host:port/database?bank=NAME``; there is no schema of that name.
        items: Any iterable of records, ``metadata`` may be left out; with ``resume``, those of the interrupted build.
        settings: Routes, keys and analyzer of the bank; by default ``BankSettings()``.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found, if it may be loaded from there again; by default its folder.
        resume: Continue an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Returns:
        What was written.

    Raises:
        BankError: The name is taken, another run is building it, or the server cannot be reached.
        RecordError: Something that is not a record, or holds what JSON cannot hold; says which and why.
        ResumeError: The interrupted build had other settings or other records.
        UsageError: There are no records, an argument of the wrong kind, or a route that there cannot be.
        ModelError: The encoder cannot give what a route needs.
    """
    settings, notes = settings_of(settings), list[str]()
    check_routes(settings)
    remembered = model_for(settings.outputs, encoder, path_or_none(model, "model"))
    with building(url, settings, remembered, resume=resume, notes=notes) as bank:
        if encoder is not None:
            bank.use(encoder)
        built = fill(bank, items, progress)
        if not built.records:
            raise UsageError(f"{bank.path}: the input held no records, so there is nothing to build of")
    built.notes = notes + built.notes
    return built


@contextlib.contextmanager
def building(
    url: str, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> Iterator[PostgresBank]:
    """A bank to fill, which gets its name when the block ends; what failed before it had anything leaves nothing.

    Args:
        url: Of the finished bank.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        resume: Continue an interrupted one of the same settings, where there is one.
        notes: Gets a line where an interrupted one is discarded.

    Raises:
        BankError: The name is taken, another run is building it, or the server cannot be reached.
        ResumeError: The interrupted one had other settings.
    """
    target = Address.of(url)
    partial = target.unfinished()
    check_routes(settings)
    with _connected(target) as db:
        _check_new(db, target)
        if not db.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (partial.name,)).fetchone()[0]:
            raise BankError(f"{partial}: another run is building it; wait for it or choose another name")
        if not resume and _written(partial):
            notes.append("an interrupted build of this bank was discarded; `resume` would have continued it")
            db.execute(f'DROP SCHEMA "{partial.name}" CASCADE')
        if not schema.exists(db, partial.name):
            make(partial, settings, model)
        try:
            with PostgresBank(Store(partial), unfinished=True) as bank:
                check_same(bank, settings)
                yield bank
                bank.refresh()
        except BaseException as error:
            if _written(partial):
                errors.mark_resumable(error)
            raise
        _check_new(db, target)
        db.execute(f'ALTER SCHEMA "{partial.name}" RENAME TO "{target.name}"')


def check_target(url: str) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Raises:
        BankError: The name is taken, or the server cannot be reached.
        UsageError: Not an address.
    """
    address = Address.of(url)
    with _connected(address) as db:
        _check_new(db, address)


def check_routes(settings: BankSettings) -> None:
    """Raise ``UsageError`` for a route that a bank in PostgreSQL cannot have."""
    other = [route for route in settings.routes if route not in schema.ROUTES]
    if other:
        raise UsageError(
            f"a bank in PostgreSQL has no route {', '.join(other)}; give some of {','.join(schema.ROUTES)}, or build a"
            " bank on disk"
        )


def _check_new(db: Any, address: Address) -> None:
    if schema.exists(db, address.name):
        raise BankError(f"{address}: already exists; add to a bank with ecom-rag bank add, or choose another name")


def _written(address: Address) -> bool:
    """Whether an interrupted build has anything to continue; if not, it is removed."""
    with contextlib.suppress(Exception), _connected(address) as db:
        if schema.exists(db, address.name):
            if db.execute(f'SELECT sequence FROM "{address.name}".state').fetchone()[0]:
                return True
            db.execute(f'DROP SCHEMA "{address.name}" CASCADE')
    return False


@contextlib.contextmanager
def _connected(address: Address) -> Iterator[Any]:
    with server_errors(address):
        db = connect(address)
        try:
            yield db
        finally:
            db.close()
