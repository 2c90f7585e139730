"""How a bank is made ready for readers: checked, pinned to its last state, and searched once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ecom_rag.errors import BankError
from ecom_rag.models import Encoder
from ecom_rag.seeds.bank import SeedBank, View
from ecom_rag.seeds.source import check_built
from ecom_rag.serving.shared import Shared

_RESULTS = 10  # of the search that warms a bank


@dataclass(frozen=True, slots=True)
class Reader:
    """What searches use, all of one state.

    Args:
        bank: The open bank; within ``Banks.reading`` its ``view()`` is this view.
        view: Its state.
    """

    bank: SeedBank
    view: View


def pinned(bank: Shared[SeedBank], pause: Callable[[], object] | None) -> Shared[Reader]:
    """The last state of a bank, which keeps the bank open as long as it is used.

    Args:
        bank: Of which the caller is a user.
        pause: Called between slices of the work.

    Raises:
        BankError: The bank cannot be read.
    """
    view = bank.value.pin(pause=pause)
    bank.take()

    def close() -> None:
        try:
            view.end()
        finally:
            bank.leave()

    return Shared(Reader(bank.value, view), close)


def warm(reader: Reader) -> None:
    """Search each route once and read a record; of an empty bank there is nothing to search.

    Raises:
        BankError: The bank cannot be read.
    """
    if reader.view.live == 0:
        return
    rows, queries = reader.view.sample(1)
    with reader.bank.using(reader.view):
        for route in reader.bank.routes:
            reader.view.search(route, queries, _RESULTS)
        reader.view.records(rows.tolist())


def check_successor(bank: SeedBank, old: SeedBank, routes: Sequence[str], encoders: Mapping[str, Encoder]) -> None:
    """Whether a bank may take another one's place without a request that fails for it.

    Args:
        bank: The new one.
        old: The one that is served.
        routes: Those that requests use; none for all of the old bank's.
        encoders: Those that are loaded, by their fingerprint.

    Raises:
        BankError: It is empty, or of a model that is not loaded.
        UsageError: It lacks a route.
    """
    if len(bank) == 0:
        raise BankError(f"{bank.path}: holds no seeds, so every request would fail; add some before the swap")
    check_built(routes or old.routes, bank.routes)
    if bank.model is None or bank.model.fingerprint in encoders:
        return
    served = "none" if old.model is None else old.model.fingerprint
    if bank.model.fingerprint != served:
        raise BankError(
            f"{bank.path}: holds vectors of the model {bank.model.fingerprint}; the service has loaded"
            f" {', '.join(encoders) or served}; build the bank with that model, or start a service with the other one"
        )
