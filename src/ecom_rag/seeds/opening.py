"""Banks by what names them, a folder or the address of one in a server: opened, built and described alike."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from ecom_rag.arguments import number, path_of, path_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.seeds import milvus, postgres
from ecom_rag.seeds.address import Address, is_address
from ecom_rag.seeds.bank import SeedBank, building, statistics
from ecom_rag.seeds.bank import filling as filler
from ecom_rag.seeds.bank.filling import Built
from ecom_rag.seeds.bank.model import Model, model_for
from ecom_rag.seeds.bank.settings import BankSettings, settings_of
from ecom_rag.seeds.remote import statistics as remote_statistics
from ecom_rag.seeds.remote.bank import RemoteBank

AnyBank = SeedBank | RemoteBank
_KINDS: dict[str, Any] = {"PostgreSQL": postgres, "Milvus": milvus}
"""Packages of the kinds of servers; all have ``ROUTES``, ``Engine``, ``make``, ``building`` and ``check_target``."""


def open_bank(bank: str, *, encoder: Encoder | None = None, timeout: float = 10.0) -> AnyBank:
    """Open a bank.

    Args:
        bank: Its folder or address.
        encoder: Encoder of the bank's model, for ``upsert``; by default it is loaded when it is first needed.
        timeout: Seconds to wait for another writer.

    Raises:
        BankError: There is none, it cannot be read, or the encoder is not of its model.
        UsageError: An argument of the wrong kind, or a package that is not installed.
    """
    if not is_address(path_of(bank, "bank")):
        return SeedBank.open(bank, encoder=encoder, timeout=timeout)
    return open_remote(bank, encoder=encoder, timeout=timeout)


def open_remote(url: str, *, encoder: Encoder | None = None, timeout: float = 10.0) -> RemoteBank:
    """Open a bank in a server.

    Args:
        url: Its address.
        encoder: As of ``open_bank``.
        timeout: As of ``open_bank``.

    Raises:
        BankError: As of ``open_bank``.
        UsageError: As of ``open_bank``, or not an address.
    """
    timeout = number(timeout, "timeout", low=0, expected="seconds from 0 on")
    address = Address.of(url)
    return RemoteBank(_KINDS[address.kind].Engine(address, timeout=timeout), encoder=encoder)


def create(
    url: str, settings: BankSettings | None = None, *, encoder: Encoder | None = None, model: str | None = None
) -> RemoteBank:
    """Make an empty bank in a server; ``bank.create`` makes one on disk.

    Args:
        url: Its address; there is none of that name.
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
    settings = settings_of(settings)
    check_routes(url, settings)
    address = Address.of(url)
    _KINDS[address.kind].make(address, settings, model_for(settings.outputs, encoder, path_or_none(model, "model")))
    bank = open_remote(url, encoder=encoder)
    bank.refresh()
    return bank


def check_routes(bank: str, settings: BankSettings) -> None:
    """Raise ``UsageError`` for a route that a bank of its kind cannot have.

    Args:
        bank: Its folder or address.
        settings: Of the bank.
    """
    if not is_address(bank):
        return
    kind = Address.of(bank).kind
    known = _KINDS[kind].ROUTES
    other = [route for route in settings.routes if route not in known]
    if other:
        raise UsageError(
            f"a bank in {kind} has no route {', '.join(other)}; give some of {','.join(known)}, or build a bank on disk"
        )


def check_target(bank: str) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Args:
        bank: Its folder or address.

    Raises:
        BankError: There is something already, or the server cannot be reached.
        UsageError: No folder to put it in, or not an address.
    """
    _package(bank).check_target(bank)


def build(
    bank: str,
    items: Iterable[Record],
    settings: BankSettings,
    *,
    encoder: Encoder | None = None,
    model: str | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank of records; see ``bank.build``.

    Args:
        bank: Its folder or address.
        items: Records.
        settings: Routes, keys and analyzer.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found.
        resume: Continue an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Raises:
        EcomRagError: As there, or a route that there cannot be.
    """
    check_routes(bank, settings)
    make = _package(bank).building
    return filler.build(make, bank, items, settings, encoder=encoder, model=model, resume=resume, progress=progress)


def filling(
    bank: str, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> contextlib.AbstractContextManager[AnyBank]:
    """A new bank to fill, which gets its name when the block ends; see ``bank.building.building``.

    Args:
        bank: Its folder or address.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        resume: Continue an interrupted one of the same settings, where there is one.
        notes: Gets a line where an interrupted one is discarded.

    Raises:
        UsageError: A route that there cannot be.
    """
    check_routes(bank, settings)
    make: contextlib.AbstractContextManager[AnyBank] = _package(bank).building(
        bank, settings, model, resume=resume, notes=notes
    )
    return make


def stats(bank: AnyBank) -> dict[str, Any]:
    """What ``ecom-rag bank info`` shows.

    Args:
        bank: Open.

    Raises:
        BankError: The bank is closed.
    """
    return remote_statistics.stats(bank) if isinstance(bank, RemoteBank) else statistics.stats(bank)


def _package(bank: str) -> Any:
    return _KINDS[Address.of(bank).kind] if is_address(bank) else building
