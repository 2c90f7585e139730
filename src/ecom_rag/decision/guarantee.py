"""Guarantees: thresholds whose error rate is promised, from labelled campaigns, one text of each.

Among the campaigns that a threshold passes, errors are binomial. The exact tail gives for each threshold the
probability of so few errors if its precision were below the target. Thresholds are fixed before any calibration label
is looked at and tested in a sequence until one fails, those first that are most likely to pass; the most liberal that
passed is the one (fixed sequence testing: Angelopoulos et al., "Learn then Test", arXiv:2110.01052). One text per
campaign keeps the units independent (Dunn et al., arXiv:1809.07441; Lee et al., arXiv:2306.06342).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

SHARES = tuple(
    place / 20 for place in range(6, 21)
)  # of what the bank itself puts in a class, which a threshold passes
_MOST_NEEDED = 1_000_000


class Candidate(NamedTuple):
    """A threshold to test.

    Args:
        threshold: Passed by probabilities that are at least this.
        errors: Error rate above it among the bank's own seeds, which decides when it is tested.
    """

    threshold: float
    errors: float


@dataclass(frozen=True, slots=True)
class Step:
    """One threshold and what the calibration says of it.

    Args:
        threshold: Passed by probabilities that are at least this.
        campaigns: Campaigns that pass.
        errors: Those of another class among them.
        p: Probability of so few errors if the precision were the target; at most delta is a pass.
        expected: Error rate above the threshold among the bank's own seeds, which decides when it is tested.
    """

    threshold: float
    campaigns: int
    errors: int
    p: float
    expected: float = 0.0


@lru_cache(maxsize=1 << 16)
def p_value(errors: int, campaigns: int, rate: float) -> float:
    """Probability of at most so many errors among campaigns, were the error rate ``rate``: the exact binomial tail.

    Args:
        errors: 0 to ``campaigns``.
        campaigns: Independent ones; of none the probability is 1.
        rate: The highest error rate that is allowed, 0..1.
    """
    return float(binom.cdf(errors, campaigns, rate)) if campaigns else 1.0


def lower_bound(errors: int, campaigns: int, delta: float) -> float:
    """The precision that holds with probability 1 - delta (Clopper and Pearson 1934); 0 for no campaign."""
    return float(beta.ppf(delta, campaigns - errors, errors + 1)) if campaigns > errors else 0.0


def percent(share: float) -> str:
    """A share that is promised, in percent and as it was asked for: 97.5%, never rounded to 98%."""
    return f"{100 * share:.6g}%"


def floored(share: float) -> float:
    """A bound to three decimals that is never rounded up to more than holds."""
    return int(share * 1000 + 1e-9) / 1000


def campaigns_needed(errors: int, rate: float, delta: float) -> int:
    """The fewest campaigns among which so many errors pass.

    Args:
        errors: At least 0.
        rate: The highest error rate that is allowed, above 0.
        delta: Probability of a threshold that breaks the promise, 0..1.
    """
    low, high = errors, errors + 1
    while p_value(errors, high, rate) > delta:
        low, high = high, min(2 * high, _MOST_NEEDED)
        if low == high:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(errors, middle, rate) <= delta else (middle, high)
    return high


def thresholds_of(
    probabilities: NDArray[np.float64], wrong: NDArray[np.bool_], shares: Sequence[float] = SHARES
) -> tuple[Candidate, ...]:
    """The thresholds to test, strictest first, from what the bank's own seeds get.

    Args:
        probabilities: Of the seeds that the combiner puts in the class, each without its relatives; at least one.
        wrong: Which of them have another label.
        shares: How many of them a threshold passes.

    Returns:
        Distinct thresholds, descending.
    """
    ranked = np.sort(probabilities)[::-1]
    places = [max(int(np.ceil(share * len(ranked))), 1) - 1 for share in shares]
    found = sorted({float(np.floor(ranked[place] * 1e6) / 1e6) for place in places}, reverse=True)
    passed = [probabilities >= one for one in found]
    errors = [float((wrong[one].sum() + 0.5) / (one.sum() + 1)) for one in passed]
    return tuple(Candidate(*one) for one in zip(found, errors, strict=True))


def certify(
    candidates: Sequence[Candidate],
    probabilities: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    *,
    target: float,
    delta: float,
) -> tuple[int | None, list[Step]]:
    """Test thresholds in a fixed sequence.

    The sequence depends on the bank's seeds and on how many campaigns pass a threshold, never on whether these are
    right, so no label has touched it. A threshold that too few pass to be certified even without an error is left out.

    Args:
        candidates: By descending threshold, chosen without the calibration labels.
        probabilities: ``(campaigns,)`` of the class, for the campaigns that are put in it.
        wrong: ``(campaigns,)``: whether their class is another.
        target: Precision to promise, 0..1.
        delta: Probability with which the promise may be broken.

    Returns:
        Index of the threshold, ``None`` where none passes; and what was found of each.
    """
    steps = tested(candidates, probabilities, wrong, target=target)
    passed = passing(steps, target=target, delta=delta)
    return (max(passed) if passed else None), steps


def tested(
    candidates: Sequence[Candidate], probabilities: NDArray[np.float64], wrong: NDArray[np.bool_], *, target: float
) -> list[Step]:
    """What the campaigns say of each threshold.

    Args:
        candidates: As of ``certify``.
        probabilities: As of ``certify``.
        wrong: As of ``certify``.
        target: As of ``certify``.
    """
    steps = []
    for threshold, expected in candidates:
        passed = probabilities >= threshold
        count, errors = int(passed.sum()), int(wrong[passed].sum())
        steps.append(Step(threshold, count, errors, p_value(errors, count, 1 - target), expected))
    return steps


def passing(steps: Sequence[Step], *, target: float, delta: float) -> set[int]:
    """Places of the steps that pass before the first one that fails; see ``certify``.

    Args:
        steps: Of ``tested``.
        target: As of ``certify``.
        delta: As of ``certify``.
    """
    found: set[int] = set()
    for place, allowed in _sequence(steps, target, delta):
        if allowed < 0:
            continue
        if steps[place].errors > allowed:
            break
        found.add(place)
    return found


def within_reach(steps: Sequence[Step], *, target: float, delta: float) -> list[Step]:
    """The steps that do not pass and that further labels could make pass: the first that fails, and those before it.

    What lies behind that one is not tested before it passes, however good it looks.

    Args:
        steps: As of ``passing``.
        target: As of ``certify``.
        delta: As of ``certify``.
    """
    passed = passing(steps, target=target, delta=delta)
    found = []
    for place, allowed in _sequence(steps, target, delta):
        if place in passed:
            continue
        found.append(place)
        if allowed >= 0:
            break
    return [steps[place] for place in sorted(found)]


def _sequence(steps: Sequence[Step], target: float, delta: float) -> list[tuple[int, int]]:
    """In which order thresholds are tested, and how many errors each may have, -1 for none: too few campaigns pass."""
    allowed = [_errors_allowed(step.campaigns, 1 - target, delta) for step in steps]
    chances = [
        round(float(binom.cdf(most, step.campaigns, step.expected)), 3) if most >= 0 else 2.0
        for most, step in zip(allowed, steps, strict=True)
    ]
    order = sorted(range(len(steps)), key=lambda place: -chances[place])  # of equals the strictest first
    return [(place, allowed[place]) for place in order]


@lru_cache(maxsize=1 << 16)
def _errors_allowed(campaigns: int, rate: float, delta: float) -> int:
    """The most errors with which so many campaigns pass; -1 for none."""
    if not campaigns:
        return -1
    most = int(binom.ppf(delta, campaigns, rate))
    return most if p_value(most, campaigns, rate) <= delta else most - 1


def flag_threshold(scores: NDArray[np.float64], *, rate: float, delta: float) -> float | None:
    """The lowest threshold that innocents pass at most so often, as an order statistic.

    Args:
        scores: ``(campaigns,)`` of innocent campaigns: the highest probability of a class that is not innocent, to six
            decimals.
        rate: False-positive rate to promise, 0..1.
        delta: Probability with which the promise may be broken.

    Returns:
        A threshold, passed by scores of at least this; ``None`` where there are too few innocents for any.
    """
    ranked = np.sort(scores)[::-1]
    allowed = -1  # innocents that may pass
    while allowed + 1 < len(ranked) and p_value(allowed + 1, len(ranked), rate) <= delta:
        allowed += 1
    if allowed < 0:
        return None
    return round(float(ranked[allowed]) + 1e-6, 6)  # what is exactly as probable does not pass
