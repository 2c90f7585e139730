"""A bank's place in Milvus, as ``seeds.remote`` asks for it."""

from typing import Any

from ecom_rag.seeds.address import Address
from ecom_rag.seeds.milvus.store import Store
from ecom_rag.seeds.remote.engine import Sides


class MilvusEngine:
    """A bank's place in Milvus, see ``remote.engine.Engine``.

    Args:
        address: Of the bank.
        timeout: Seconds to wait for another writer.
        unfinished: The bank is being built.

    Raises:
        UsageError: pymilvus is not installed.
        BankError: The server cannot be reached, cannot hold the bank's routes, or there is no such bank.
    """

    kind = "Milvus"
    unfinished = False  # texts get their terms when they are written
    most_drift = 1.2  # new values are a new collection

    def __init__(self, address: Address, *, timeout: float = 10.0, unfinished: bool = False) -> None:
        self.address = address
        self.store = Store(address, timeout=timeout, unfinished=unfinished)
        self.reading, self.writing, self.tidy = self.store.reading, self.store.writing, self.store.tidy
        self.check_open, self.close = self.store.check_open, self.store.close

    def index_anew(self, sides: Sides, made: dict[str, str]) -> None:
        """See ``Engine``."""
        with self.store.writing() as writer:
            writer.rebuild(sides, made)

    def figures(self) -> dict[str, Any]:
        """See ``Engine``."""
        return {"exactness": "exact", "engine": self.store.client.shown}
