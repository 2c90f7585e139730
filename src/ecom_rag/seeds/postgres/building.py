"""New banks in PostgreSQL: empty ones, and ones built of records, which get their name when they are complete."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ecom_rag import errors
from ecom_rag.errors import BankError
from ecom_rag.files.keys import parse_key
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.filling import check_same
from ecom_rag.seeds.bank.model import Model
from ecom_rag.seeds.bank.settings import BankSettings, to_meta
from ecom_rag.seeds.postgres import schema
from ecom_rag.seeds.postgres.engine import PostgresEngine
from ecom_rag.seeds.postgres.store import connect
from ecom_rag.seeds.postgres.store import errors as server_errors
from ecom_rag.seeds.remote.bank import RemoteBank


def make(address: Address, settings: BankSettings, model: Model | None) -> None:
    """Make the schema of an empty bank, whose texts are not indexed yet.

    Args:
        address: Where.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.

    Raises:
        BankError: The name is taken, or the server cannot be reached.
    """
    meta = {"bank": uuid.uuid4().hex, "model": asdict(model) if model else None, "sizes": {}, **to_meta(settings)}
    with _connected(address) as db:
        with contextlib.suppress(Exception):  # who may not do it reads below what is missing
            db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        _check_new(db, address)
        with db.transaction():
            schema.create(db, address, meta, settings.routes, map(parse_key, settings.index_keys))


@contextlib.contextmanager
def building(
    url: str, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> Iterator[RemoteBank]:
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
            with RemoteBank(PostgresEngine(partial, unfinished=True)) as bank:
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
