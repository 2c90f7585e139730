"""What a calibration is asked to promise, and what an audit looks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ecom_rag import arguments
from ecom_rag.errors import UsageError
from ecom_rag.evaluation.evasion import KINDS
from ecom_rag.files.identity import as_label
from ecom_rag.filters.parse import parse
from ecom_rag.values import shown


@dataclass(frozen=True, slots=True)
class Calibrate:
    """What is to be promised.

    Args:
        precision: Of what is decided, class by class, 0..1.
        delta: Probability with which a promise may be broken, 0..1.
        jointly: Make delta count for all classes together; by default it is for each by itself.
        pool: Give the classes that lack campaigns one threshold together, with a promise for all of them only.
        innocent: The labels that stand for nothing wrong.
        false_positive_rate: Share of innocents that may be decided as something else; by default none is promised.
        evasive: Kinds of evasive spellings (``evaluation.evasion.KINDS``) for which the precision is promised too: the
            calibration listings are spelled so and recalled as well.
        filter: Condition on the listings' metadata, e.g. ``day >= "2026-11-01"``; by default all count.
        label_key: Metadata key of the listings' labels; by default that of the seeds.
        similarity: From which two texts are of one campaign, see ``near_duplicates``.
        seed: Of the draw of seeds.

    Raises:
        UsageError: Not here; ``check`` says what makes no sense.
    """

    precision: float = 0.95
    delta: float = 0.1
    jointly: bool = False
    pool: bool = False
    innocent: Sequence[str] = ()
    false_positive_rate: float | None = None
    evasive: Sequence[str] = ()
    filter: Any = None
    label_key: str | None = None
    similarity: float = 0.85
    seed: int = 0

    def check(self) -> "Calibrate":
        """The same, if it makes sense.

        Raises:
            UsageError: It does not.
        """
        check_share(self.precision, "precision")
        check_share(self.delta, "delta")
        if self.false_positive_rate is not None:
            check_share(self.false_positive_rate, "false_positive_rate")
            if not self.innocent:
                raise UsageError("a false-positive rate is asked for, but no label is innocent; name one in `innocent`")
        if self.filter is not None:
            parse(self.filter)
        for kind in arguments.names_of(self.evasive, "evasive"):
            arguments.one_of(kind, "evasive", KINDS)
        for name in ("jointly", "pool"):
            arguments.flag(getattr(self, name), name)
        arguments.number(self.similarity, "similarity", low=0.7, high=1, expected="0.7 to 1")
        arguments.whole(self.seed, "seed", least=0)
        return self

    def innocent_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The innocent labels as labels of the bank.

        Args:
            labels: Those of the seeds.

        Raises:
            UsageError: No seed has one of them.
        """
        return innocent_labels(self.innocent, labels)


@dataclass(frozen=True, slots=True)
class Auditing:
    """What an audit looks for.

    Args:
        conflict: Probability of its own label, 0..1, below which a seed conflicts with its neighbours; by default what
            the bank itself shows to be low, see ``examine``.
        innocent: The labels that stand for nothing wrong.
        precision: That a guarantee should promise, which decides how many campaigns a class needs.
        delta: Probability with which it may be broken.
        similarity: From which two texts are of one campaign, see ``near_duplicates``.
        first: Results per listing that count as hits.
        label_key: Metadata key of the listings' labels; by default that of the seeds.

    Raises:
        UsageError: Not here; ``check`` says what makes no sense.
    """

    conflict: float | None = None
    innocent: Sequence[str] = ()
    precision: float = 0.95
    delta: float = 0.1
    similarity: float = 0.85
    first: int = 10
    label_key: str | None = None

    def check(self) -> "Auditing":
        """The same, if it makes sense.

        Raises:
            UsageError: It does not.
        """
        if self.conflict is not None:
            check_share(self.conflict, "conflict")
        check_share(self.precision, "precision")
        check_share(self.delta, "delta")
        arguments.number(self.similarity, "similarity", low=0.7, high=1, expected="0.7 to 1")
        arguments.whole(self.first, "first", least=1)
        return self


def innocent_labels(innocent: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that stand for nothing wrong, as labels of the bank.

    Args:
        innocent: As they were named.
        labels: Those of the seeds.

    Raises:
        UsageError: No seed has one of them.
    """
    found = []
    for given in arguments.names_of(innocent, "innocent"):
        label = as_label(given)
        if label is None or label not in labels:
            raise UsageError(f"no seed has the innocent label {given!r}; labels of the seeds: {', '.join(labels)}")
        found.append(label)
    return tuple(found)


def check_share(value: Any, name: str) -> None:
    """Raise ``UsageError`` unless a setting is a number between 0 and 1.

    Args:
        value: Of the setting.
        name: Of the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UsageError(f"`{name}` is {shown(value)}; expected a number between 0 and 1, e.g. 0.95")
