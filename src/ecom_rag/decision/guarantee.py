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
    """

    threshold: float
    campaigns: int
    errors: int
    p: float


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
    passed = passing(steps, candidates, target=target, delta=delta)
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
    for threshold, _ in candidates:
        passed = probabilities >= threshold
        count, errors = int(passed.sum()), int(wrong[passed].sum())
        steps.append(Step(threshold, count, errors, p_value(errors, count, 1 - target)))
    return steps


def passing(steps: Sequence[Step], candidates: Sequence[Candidate], *, target: float, delta: float) -> set[int]:
    """Places of the steps that pass before the first one that fails; see ``certify``.

    Args:
        steps: Of ``tested``.
        candidates: Of the same thresholds.
        target: As of ``certify``.
        delta: As of ``certify``.
    """
    allowed = [_errors_allowed(step.campaigns, 1 - target, delta) for step in steps]
    chances = [
        round(float(binom.cdf(most, step.campaigns, one.errors)), 3)
        for most, step, one in zip(allowed, steps, candidates, strict=True)
    ]
    found: set[int] = set()
    for place in sorted(range(len(steps)), key=lambda place: -chances[place]):  # of equals the strictest first
        if allowed[place] < 0:
            continue
        if steps[place].errors > allowed[place]:
            break
        found.add(place)
    return found


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
