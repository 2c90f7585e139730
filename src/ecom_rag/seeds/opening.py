"""Banks by what names them, a folder or the address of one in PostgreSQL: opened, built and described alike."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.seeds import postgres
from ecom_rag.seeds.address import is_address
from ecom_rag.seeds.bank import SeedBank, building, statistics
from ecom_rag.seeds.bank.filling import Built
from ecom_rag.seeds.bank.model import Model
from ecom_rag.seeds.bank.settings import BankSettings
from ecom_rag.seeds.postgres import PostgresBank
from ecom_rag.seeds.postgres import building as postgres_building

AnyBank = SeedBank | PostgresBank


def open_bank(bank: str) -> AnyBank:
    """Open a bank.

    Args:
        bank: Its folder or address.

    Raises:
        BankError: There is none, or it cannot be read.
    """
    return PostgresBank.open(bank) if is_address(bank) else SeedBank.open(bank)


def check_target(bank: str) -> None:
    """Raise if a bank could not be built there, before any work is done for it.

    Args:
        bank: Its folder or address.

    Raises:
        BankError: There is something already, or the server cannot be reached.
        UsageError: No folder to put it in, or not an address.
    """
    (postgres_building if is_address(bank) else building).check_target(bank)


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
    """Make a bank of records; see ``bank.build`` and ``postgres.build``.

    Args:
        bank: Its folder or address.
        items: Records.
        settings: Routes, keys and analyzer.
        encoder: Encoder of the seeds, needed where a route searches embeddings.
        model: Where the encoder was found.
        resume: Continue an interrupted build of the same settings, where there is one.
        progress: Called with the number of records of each block that is done.

    Raises:
        EcomRagError: As there.
    """
    make = postgres.build if is_address(bank) else building.build
    return make(bank, items, settings, encoder=encoder, model=model, resume=resume, progress=progress)


def filling(
    bank: str, settings: BankSettings, model: Model | None, *, resume: bool, notes: list[str]
) -> contextlib.AbstractContextManager[AnyBank]:
    """A new bank to fill, which gets its name when the block ends; see ``building.building`` of both.

    Args:
        bank: Its folder or address.
        settings: Routes, keys and analyzer.
        model: Of its embeddings.
        resume: Continue an interrupted one of the same settings, where there is one.
        notes: Gets a line where an interrupted one is discarded.
    """
    make: Any = postgres_building.building if is_address(bank) else building.building
    found: contextlib.AbstractContextManager[AnyBank] = make(bank, settings, model, resume=resume, notes=notes)
    return found


def stats(bank: AnyBank) -> dict[str, Any]:
    """What ``ecom-rag bank info`` shows.

    Args:
        bank: Open.

    Raises:
        BankError: The bank is closed.
    """
    return postgres.stats(bank) if isinstance(bank, PostgresBank) else statistics.stats(bank)
