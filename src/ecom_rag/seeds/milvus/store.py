"""States of a bank in Milvus: any number of readers, each of one state, and one writer at a time.

Milvus has no locks. A writer notes a claim, and then looks for those of others: of two writers at least the later one
sees the other's, and withdraws. A claim ends by itself, so that a writer that was killed does not keep the bank.
"""

import contextlib
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from ecom_rag.errors import BankBusyError, BankError
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.milvus import log, schema
from ecom_rag.seeds.milvus.changes import Writer
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.milvus.rows import Rows, deleted, expression
from ecom_rag.seeds.milvus.words import WordCache

LEASE = 60.0
"""Seconds that a claim holds unless it is renewed."""
GRACE = 600.0
"""Seconds for which a state can be read after it has passed."""


class Store:
    """An open bank.

    Args:
        address: Of the bank.
        timeout: Seconds to wait for another writer.
        unfinished: Whether the bank is being built.

    Raises:
        UsageError: pymilvus is not installed.
        BankError: The server cannot be reached, or there is no such bank.
    """

    def __init__(self, address: Address, *, timeout: float = 10.0, unfinished: bool = False) -> None:
        self.address = address
        self.client = Client(address)
        self._timeout = timeout
        self._closed = False
        self._words = WordCache(self.client)
        try:
            noted = log.read(self.client).noted
            if noted.finished is unfinished:
                raise BankError(f"{address}: no such bank; make one with ecom-rag bank build")
            schema.check_routes(self.client, noted.meta["routes"])
            self._sound: set[str] = set()
            self._use(noted)
        except BaseException:
            self.client.close()
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[Rows]:
        """One state, whatever is written meanwhile.

        Raises:
            BankChangedError: The state was read for so long that its rows were deleted.
        """
        self.check_open()
        began = time.monotonic()
        found = log.read(self.client)
        self._use(found.noted)
        yield Rows(self.client, found, self._words)
        if time.monotonic() - began > GRACE / 2 and log.read(self.client).noted.leaving > found.noted.sequence:
            raise deleted(self.address, found.noted)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """A change, which is made when the block ends, and not at all if it raises.

        Raises:
            BankBusyError: Another writer has had the bank for longer than the timeout.
        """
        self.check_open()
        claim = _Claim(self.client, self._timeout)
        try:
            found = claim.get()
            self._use(found.noted)
            _clean(self.client, found.noted)
            writer = Writer(self.client, found, self._words, claim.keep)
            yield writer
            claim.check(writer.next.revision)
            writer.commit()
        finally:
            claim.give_back()

    def tidy(self) -> None:
        """Delete rows that are gone, and collections that were replaced, once nobody reads them."""
        found, old = log.read(self.client), time.time() - GRACE
        due = list(takewhile(lambda one: one.when < old, found.gone))
        if not due and all(when > old for _, when in found.noted.old):
            return
        with self.writing() as writer:
            last = max((one.sequence for one in due), default=found.noted.left)
            noted = writer.noted
            if due:  # first said, then done: who still reads an older state can look
                noted = log.write_state(self.client, replace(noted, leaving=max(last, noted.leaving)))
                for one in due:
                    self.client.delete(noted.rows, expression(one.rows))
            kept = [(name, when) for name, when in noted.old if when > old]
            for name in schema.rows_names(self.client):
                if name not in (noted.rows, *(name for name, _ in kept)):
                    self.client.drop(name)
            log.forget_terms(self.client, noted.terms if not kept else noted.terms - len(kept))
            writer.next = replace(noted, left=max(last, noted.left), old=kept)
        log.forget_gone(self.client, 0, last)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.client.close()

    def check_open(self) -> None:
        """Raise ``BankError`` once the bank is closed."""
        if self._closed:
            raise BankError(f"{self.address}: the bank is closed; open it again")

    def _use(self, noted: log.Noted) -> None:
        """Look at a collection of rows, once."""
        if noted.rows and noted.rows not in self._sound:
            schema.check_indexes(self.client, noted.rows, noted.meta["routes"])
            self._sound.add(noted.rows)


class _Claim:
    """A writer's turn.

    Args:
        client: A connection.
        timeout: Seconds to wait for others.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._name = f"claim/{uuid.uuid4().hex}/"
        self._until = 0.0
        self._number = 0

    def get(self) -> log.Read:
        """Wait for the turn; what is noted then."""
        end = time.monotonic() + self._timeout
        while True:
            self._note()
            found = log.read(self._client)
            others = {key: until for key, until in found.claims.items() if not key.startswith(self._name)}
            if all(until < time.time() for until in others.values()):
                for key in others:
                    self._client.delete(self._client.address.name, f'key == "{key}"')
                return found
            self.give_back()
            if time.monotonic() > end:
                raise BankBusyError(
                    f"{self._client.address}: another process has been writing for {self._timeout:g} s; wait for it and"
                    f" try again (one that was killed keeps the bank for {LEASE:g} s)"
                )
            time.sleep(random.uniform(0.02, 0.2))

    def keep(self) -> None:
        """Go on having it."""
        if time.time() > self._until - LEASE / 2:
            self._note()

    def check(self, revision: int) -> None:
        """Raise ``BankBusyError`` where the turn has ended, and another writer may have gone on."""
        if time.time() > self._until - LEASE / 4:
            self._note()
            found = log.read(self._client)
            own = sum(key.startswith(self._name) for key in found.claims)
            if found.noted.revision != revision or own < self._number:
                raise BankBusyError(
                    f"{self._client.address}: the change took longer than {LEASE:g} s between two steps, and another"
                    " process went on; nothing was written, repeat it"
                )

    def give_back(self) -> None:
        """End it."""
        with contextlib.suppress(BankError):  # it ends by itself
            self._client.delete(self._client.address.name, f'key >= "{self._name}" and key < "{self._name}~"')
            self._number = 0

    def _note(self) -> None:
        self._until = time.time() + LEASE
        self._number += 1
        log.write(self._client, {f"{self._name}{self._number:05d}": self._until})


def _clean(client: Client, noted: log.Noted) -> None:
    """Remove what an interrupted change has left."""
    if noted.rows and client.query(noted.rows, f"born > {noted.sequence}", ["row"], limit=1):
        client.delete(noted.rows, f"born > {noted.sequence}")
    log.forget_gone(client, noted.sequence + 1, 10**14)
    log.forget_terms(client, noted.terms, after=noted.sequence)
