"""Watching a policy at work: does a class go wrong more often than promised?

In: decided records in the order in which persons audited them, with the persons' labels, and the policy. Out: for each
class that has a threshold, the errors among its audited decisions and whether the alarm has gone off.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, flag, number, path_of, text_of
from ecom_rag.decision.betting import alarm_after, log_wealth
from ecom_rag.decision.decided import decided
from ecom_rag.decision.promises import Promise, promises_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import label_at
from ecom_rag.files.records import Record

_SAME = 1e-4  # thresholds that differ by less are one, rounded
_LARGEST = 690.0  # a logarithm of wealth that a float still holds


@dataclass(frozen=True)
class Watched:
    """One class under watch.

    Args:
        label: The class.
        limit: The highest error rate that is promised: 1 - target.
        alpha: The probability of a false alarm for this class.
        wrong: ``(n,)`` whether each audited decision was wrong, in their order.
        log_wealth: ``(n,)`` of ``betting.log_wealth``.
        alarm: After how many audited decisions the alarm went off; ``None`` where it did not.
    """

    label: str
    limit: float
    alpha: float
    wrong: NDArray[np.bool_]
    log_wealth: NDArray[np.float64]
    alarm: int | None

    @property
    def errors(self) -> int:
        """Audited decisions that were wrong."""
        return int(self.wrong.sum())

    @property
    def error_rate(self) -> float | None:
        """Their share; ``None`` where nothing was audited."""
        return self.errors / len(self.wrong) if len(self.wrong) else None

    @property
    def wealth(self) -> float:
        """The e-value after the last decision: 1 at the start, above 1 speaks for a broken promise."""
        return _exp(self.log_wealth[-1]) if len(self.wrong) else 1.0

    @property
    def highest(self) -> float:
        """The highest wealth on the way, at least 1."""
        return _exp(self.log_wealth.max(initial=0.0))


@dataclass
class Counts:
    """What became of the records; the audited ones are those that count.

    Args:
        records: All.
        audited: Automatic decisions with a promise and a person's label, one per campaign.
        unlabelled: Without a person's label.
        review: Decided ``review``: a person decides, nothing is promised.
        no_promise: Of a class that has no threshold in the policy.
        selected: Chosen for their uncertainty, so no sample of the decisions.
        selected_audited: Such ones among the audited, where they were asked for.
        repeated: Further texts of a campaign that counts already.
        other_threshold: Audited ones that were decided with another threshold than the policy's; they count.
    """

    records: int = 0
    audited: int = 0
    unlabelled: int = 0
    review: int = 0
    no_promise: int = 0
    selected: int = 0
    selected_audited: int = 0
    repeated: int = 0
    other_threshold: int = 0


@dataclass(frozen=True)
class Monitored:
    """The result of a watch.

    Args:
        classes: Those with a threshold, in the order of the policy.
        counts: What became of the records.
        alpha: As asked for.
        jointly: Whether alpha is for all classes together.
        notes: What is worth saying, one line each.
    """

    classes: tuple[Watched, ...]
    counts: Counts
    alpha: float
    jointly: bool
    notes: list[str] = field(default_factory=list)

    @property
    def alarms(self) -> tuple[Watched, ...]:
        """The classes whose alarm has gone off."""
        return tuple(one for one in self.classes if one.alarm is not None)


def monitor_file(
    audited: PathLike,
    policy: PathLike,
    *,
    label_key: str = "label",
    alpha: float = 0.05,
    jointly: bool = False,
    count_selected: bool = False,
) -> Monitored:
    """Watch the audited decisions of a file.

    Args:
        audited: Decided records; ``-`` is standard input.
        policy: That decided them.
        label_key: Metadata key of the person's label.
        alpha: The probability of a false alarm: per class, or with ``jointly`` of any.
        jointly: Divide alpha by the number of classes that have a threshold.
        count_selected: Count records that ``choose`` selected for their uncertainty too.

    Returns:
        One entry per class that has a threshold.

    Raises:
        UsageError: An argument, or a policy that promises nothing, or no audited decision in the file.
        RecordError: A record that is not decided.
    """
    promises = promises_of(policy)
    path = path_of(audited, "audited")
    found = watch(
        records.placed(path),
        promises,
        label_key=label_key,
        alpha=alpha,
        jointly=jointly,
        count_selected=count_selected,
    )
    if not found.counts.audited:
        raise UsageError(f"{path}: no audited decision among {_skipped(found.counts, label_key)}")
    return found


def watch(
    placed: Iterable[tuple[str, Record]],
    promises: Sequence[Promise],
    *,
    label_key: str = "label",
    alpha: float = 0.05,
    jointly: bool = False,
    count_selected: bool = False,
) -> Monitored:
    """As ``monitor_file``, of records with their places and promises that are read already."""
    alpha = number(alpha, "alpha", low=math.ulp(0.0), high=math.nextafter(1, 0), expected="a number above 0, below 1")
    jointly, label_key = flag(jointly, "jointly"), text_of(label_key, "label_key")
    by_label = {one.label: one for one in promises}
    wrong: dict[str, list[bool]] = {label: [] for label in by_label}
    counts = _gather(placed, by_label, wrong, label_key, count_selected=flag(count_selected, "count_selected"))
    own_alpha = alpha / len(by_label) if jointly else alpha
    classes = tuple(_watched(one, np.array(wrong[one.label], bool), own_alpha) for one in by_label.values())
    return Monitored(classes, counts, alpha, jointly, _notes(counts, label_key))


def as_json(found: Monitored) -> dict[str, Any]:
    """All figures with plain numbers; the path of the wealth is left to the picture."""
    return {
        "kind": "ecom_rag monitor",
        "alpha": found.alpha,
        "jointly": found.jointly,
        "alarm": bool(found.alarms),
        "records": asdict(found.counts),
        "classes": {
            one.label: {
                "audited": len(one.wrong),
                "errors": one.errors,
                "error_rate": one.error_rate,
                "promised_error_rate": one.limit,
                "wealth": one.wealth,
                "highest_wealth": one.highest,
                "alarm_line": 1 / one.alpha,
                "alarm_after": one.alarm,
            }
            for one in found.classes
        },
        "notes": found.notes,
    }


def _gather(
    placed: Iterable[tuple[str, Record]],
    promises: Mapping[str, Promise],
    wrong: dict[str, list[bool]],
    label_key: str,
    *,
    count_selected: bool,
) -> Counts:
    """Fill ``wrong`` with the audited decisions of each class, and count what became of all records."""
    counts, campaigns = Counts(), set()
    for where, record in placed:
        counts.records += 1
        truth = label_at(where, record["metadata"], label_key)
        try:
            own = decided(record)
        except ValueError as error:
            raise RecordError(where, str(error)) from None
        promise = promises.get(own.label or "")
        if truth is None:
            counts.unlabelled += 1
        elif own.action == "review":
            counts.review += 1
        elif promise is None:
            counts.no_promise += 1
        elif own.chosen_by == "uncertainty" and not count_selected:
            counts.selected += 1
        elif own.campaign in campaigns:
            counts.repeated += 1
        else:
            campaigns.add(own.campaign)
            counts.selected_audited += own.chosen_by == "uncertainty"
            counts.audited += 1
            counts.other_threshold += own.threshold is not None and abs(own.threshold - promise.threshold) > _SAME
            wrong[promise.label].append(truth != own.label)
    return counts


def _watched(promise: Promise, wrong: NDArray[np.bool_], alpha: float) -> Watched:
    limit = round(1 - promise.target, 12)  # 1 - 0.95 is a little more than 0.05
    wealth = log_wealth(wrong, limit)
    return Watched(promise.label, limit, alpha, wrong, wealth, alarm_after(wealth, alpha))


def _notes(counts: Counts, label_key: str) -> list[str]:
    notes = []
    if counts.selected:
        notes.append(
            f"{counts.selected} records were chosen for their uncertainty and do not count: they are no random sample"
            " of the decisions; label the records that were chosen for the audit"
        )
    if counts.selected_audited:
        notes.append(
            f"{counts.selected_audited} audited decisions were chosen for their uncertainty: they are no random sample"
            " of the decisions, so an alarm does not mean that the promise is broken"
        )
    if counts.other_threshold:
        notes.append(
            f"{counts.other_threshold} audited decisions were made with another threshold than the policy's; give the"
            " policy that decided them"
        )
    if counts.audited < counts.records:
        notes.append(f"{counts.audited} audited decisions among {_skipped(counts, label_key)}")
    return notes


def _skipped(counts: Counts, label_key: str) -> str:
    """All records, and how many do not count for which reason."""
    parts = {
        f'without a label under "{label_key}"': counts.unlabelled,
        "decided review": counts.review,
        "of classes without a threshold": counts.no_promise,
        "further texts of a campaign": counts.repeated,
        "chosen for their uncertainty": counts.selected,
    }
    told = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    return f"{counts.records} records" + (f" ({told})" if told else "")


def _exp(logarithm: float) -> float:
    return math.exp(min(float(logarithm), _LARGEST))
