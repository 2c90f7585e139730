"""New banks in Milvus: empty ones, and ones built of records, which can be opened when they are complete."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import asdict

from ecom_rag import errors
from ecom_rag.errors import BankError
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.filling import check_same
from ecom_rag.seeds.bank.model import Model
from ecom_rag.seeds.bank.settings import BankSettings, to_meta
from ecom_rag.seeds.milvus import log, schema
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.milvus.engine import MilvusEngine
from ecom_rag.seeds.remote.bank import RemoteBank


def make(address: Address, settings: BankSettings, model: Model | None, *, finished: bool = True) -> None:
    """Make an empty bank.

    Args:
        address: Where.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        finished: Whether it can be opened.

    Raises:
        BankError: The name is taken, or the server cannot be reached, or cannot hold the routes.
    """
    meta = {"bank": uuid.uuid4().hex, "model": asdict(model) if model else None, "sizes": {}, **to_meta(settings)}
    with contextlib.closing(Client(address)) as client:
        _check_new(client)
        schema.check_routes(client, settings.routes)
        schema.create_log(client)
        log.write_state(client, log.Noted(meta=meta, finished=finished))


@contextlib.contextmanager
def building(
    url: str, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> Iterator[RemoteBank]:
    """A bank to fill, which can be opened when the block ends; what failed before it had anything leaves nothing.

    Args:
        url: Of the bank.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        resume: Continue an interrupted one of the same settings, where there is one.
        notes: Gets a line where an interrupted one is discarded.

    Raises:
        BankError: The name is taken, or the server cannot be reached, or cannot hold the routes.
        ResumeError: The interrupted one had other settings.
    """
    address = Address.of(url)
    with contextlib.closing(Client(address)) as client:
        _check_new(client, unfinished=True)
        if not (resume and _written(client)):
            if _written(client):
                notes.append("an interrupted build of this bank was discarded; `resume` would have continued it")
            _remove(client)
            make(address, settings, model, finished=False)
        try:
            engine = MilvusEngine(address, unfinished=True)
            with RemoteBank(engine) as bank:
                check_same(bank, settings)
                if not len(bank):
                    bank.refresh()
                yield bank
                with engine.store.writing() as writer:
                    writer.finish()
        except BaseException as error:
            with contextlib.suppress(BankError):  # the server may be gone
                if _written(client):
                    errors.mark_resumable(error)
                else:
                    _remove(client)
            raise


def check_target(url: str) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Raises:
        BankError: The name is taken, or the server cannot be reached.
        UsageError: Not an address.
    """
    with contextlib.closing(Client(Address.of(url))) as client:
        _check_new(client, unfinished=True)


def _check_new(client: Client, *, unfinished: bool = False) -> None:
    """Raise where the name is taken; an unfinished bank may have it where that is said."""
    if client.has(client.address.name) and not (unfinished and not log.read(client).noted.finished):
        raise BankError(
            f"{client.address}: already exists; add to a bank with ecom-rag bank add, or choose another name"
        )


def _written(client: Client) -> bool:
    """Whether an interrupted build has anything to continue."""
    return client.has(client.address.name) and log.read(client).noted.sequence > 0


def _remove(client: Client) -> None:
    """Remove what there is of an unfinished bank."""
    for name in [client.address.name, *schema.rows_names(client)]:
        client.drop(name)
