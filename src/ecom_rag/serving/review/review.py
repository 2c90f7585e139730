"""What the review page needs of the rest of the service, in one place."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.requests import Request

from ecom_rag.decision.policy import Policy
from ecom_rag.files.records import Record
from ecom_rag.serving.journal import Journal


class Labels(NamedTuple):
    """The labels of a bank.

    Args:
        names: In the order in which they get their numbers on the page.
        innocent: Those that say that nothing is wrong.
    """

    names: Sequence[str]
    innocent: Sequence[str]


class Similar(NamedTuple):
    """A waiting listing that a new seed would find.

    Args:
        text: The listing.
        score: How similar it is, higher is more.
        decision_id: Of the journal.
    """

    text: str
    score: float
    decision_id: str


@dataclass(frozen=True, slots=True)
class Review:
    """The journal, and what others do for the page. Callables may raise ``Problem`` or an error of ``ecom_rag``.

    Args:
        journal: What was decided and what people say.
        actor_of: Name of the person who is logged in and may review; ``None`` for nobody.
        login: Exchanges a key for the value of a ``Set-Cookie`` header; raises ``Problem`` where the key is not valid.
        logout: The value of the ``Set-Cookie`` header that ends the session.
        banks: Names of the banks.
        labels: Labels of a bank.
        policy: The policy of a bank; ``None`` for none.
        similar_waiting: Waiting listings that a text would find if it were a seed of a bank, the best first.
        duplicates: Seeds of a bank that are nearly this text: ``text`` and ``metadata`` of each.
        add_seed: Adds a record to a bank for a person, and gives the seed's id.
        remove_seed: Takes a seed out of a bank for a person; one that is gone already is no error.
        lease_seconds: How long an item is kept for the person who opened it.
        label_key: Metadata key of labels where a bank has no policy.
        id_key: Metadata key of ids.
    """

    journal: Journal
    actor_of: Callable[[Request], str | None]
    login: Callable[[Request, str], str]
    logout: Callable[[Request], str]
    banks: Callable[[], Sequence[str]]
    labels: Callable[[str], Labels]
    policy: Callable[[str], Policy | None]
    similar_waiting: Callable[[str, str], Awaitable[Sequence[Similar]]]
    duplicates: Callable[[str, str], Awaitable[Sequence[Record]]]
    add_seed: Callable[[str, Mapping[str, Any], str], Awaitable[str]]
    remove_seed: Callable[[str, str, str], Awaitable[None]]
    lease_seconds: float = 600.0
    label_key: str = "label"
    id_key: str = "id"

    def label_key_of(self, bank: str) -> str:
        """Metadata key of a bank's labels."""
        policy = self.policy(bank)
        return self.label_key if policy is None else policy.evidence.label_key

    def person(self, request: Request) -> str:
        """Who asks.

        Raises:
            LoginNeededError: Nobody who may review.
        """
        actor = self.actor_of(request)
        if actor is None:
            raise LoginNeededError
        return actor


class LoginNeededError(Exception):
    """Nobody is logged in who may review."""
