"""The rule of each class, from campaigns whose class is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.guarantee import (
    Candidate,
    Step,
    campaigns_needed,
    lower_bound,
    passing,
    percent,
    tested,
    within_reach,
)
from ecom_rag.decision.policy import Guarantee, Rule


@dataclass(frozen=True, slots=True)
class Units:
    """Campaigns, one text of each.

    Args:
        truth: ``(campaigns,)`` class of each, -1 for one that no seed has.
        predicted: ``(campaigns,)`` the most probable class, -1 for none.
        probabilities: ``(campaigns,)`` of it.
        flags: ``(campaigns,)`` the highest probability of a class that is not innocent.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    flags: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def of_none(cls) -> Self:
        """No campaigns."""
        classes, shares = np.empty(0, np.int64), np.empty(0)
        return cls(classes, classes, shares, shares)

    @classmethod
    def concatenate(cls, parts: Sequence["Units"]) -> Self:
        """The campaigns of several sets below each other."""
        names = ("truth", "predicted", "probabilities", "flags")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def rules_of(
    units: Units,
    thresholds: Sequence[Sequence[Candidate]],
    labels: Sequence[str],
    guarantee: Guarantee,
    *,
    innocent: Sequence[str] = (),
    pool: bool = False,
    evasive: Mapping[str, Units] | None = None,
) -> dict[str, Rule]:
    """A rule for every class.

    Args:
        units: The calibration campaigns.
        thresholds: For each class the thresholds to test, descending, chosen without the labels of ``units``.
        labels: The classes.
        guarantee: What is promised.
        innocent: The labels that ``guarantee.flag_threshold`` does not concern.
        pool: Give the classes that lack campaigns one threshold together. Which they are depends on how many campaigns
            are put in them, never on whether these are right: a pool without the classes that err would promise too
            much.
        evasive: By kind of evasive spelling the same campaigns spelled so; a threshold must pass on each kind too.
    """
    own = range(len(labels))
    delta = guarantee.delta / len(labels) if guarantee.jointly else guarantee.delta
    floor = [0.0 if label in innocent else guarantee.flag_threshold or 0.0 for label in labels]
    if guarantee.false_positive_rate is not None and guarantee.flag_threshold is None:
        floor = [0.0 if label in innocent else np.inf for label in labels]
    raised = [_raised(thresholds[place], floor[place]) for place in own]
    sets = {"": units, **(evasive or {})}
    rules = {labels[place]: _rule(sets, [place], raised[place], guarantee.precision, delta) for place in own}
    need = campaigns_needed(0, 1 - guarantee.precision, delta)
    lacking = [place for place in own if pool and (units.predicted == place).sum() < need]
    if len(lacking) > 1:
        together = _raised(sorted({one for place in lacking for one in raised[place]}, reverse=True), 0.0)
        names = tuple(labels[place] for place in lacking)
        for place in lacking:
            rules[labels[place]] = _rule(sets, lacking, together, guarantee.precision, delta, pool=names)
    return rules


def _raised(candidates: Sequence[Candidate], floor: float) -> tuple[Candidate, ...]:
    """The same, none below a floor, each threshold once."""
    found = {max(one.threshold, floor): one.errors for one in candidates}
    return tuple(Candidate(*one) for one in found.items())


def _rule(
    sets: Mapping[str, Units],
    classes: Sequence[int],
    thresholds: Sequence[Candidate],
    target: float,
    delta: float,
    *,
    pool: tuple[str, ...] = (),
) -> Rule:
    """The rule of a class, or of several with one threshold; it has to hold on each set, the first of them clean."""
    units = sets[""]
    steps = {kind: _steps(own, classes, thresholds, target) for kind, own in sets.items()}
    passed = [passing(own, target=target, delta=delta) for own in steps.values()]
    both = set.intersection(*passed)
    labelled = int(np.isin(units.truth, classes).sum())
    if not both:
        return _without(steps, _short(steps, passed), target, delta, labelled, pool)
    chosen = max(both)
    step = steps[""][chosen]
    put = np.isin(units.predicted, classes)
    right = int((put & (units.truth == units.predicted) & (units.probabilities >= step.threshold)).sum())
    return Rule(
        target,
        step.threshold,
        step.campaigns,
        step.errors,
        lower_bound(step.errors, step.campaigns, delta),
        step.campaigns / max(int(put.sum()), 1),
        right / max(labelled, 1),
        labelled,
        0,
        f"{step.errors} of {step.campaigns} campaigns are wrong",
        pool,
        tuple(steps[""]),
        {kind: own[chosen] for kind, own in steps.items() if kind},
    )


def _without(
    steps: Mapping[str, Sequence[Step]],
    kind: str,
    target: float,
    delta: float,
    labelled: int,
    pool: tuple[str, ...],
) -> Rule:
    """A rule without a threshold, and why, from the set that lacks most."""
    missing, why = _missing(steps[kind], target, delta)
    why = f"spelled evasively ({kind}): {why}" if kind else why
    last = steps[""][-1] if steps[""] else Step(1.0, 0, 0, 1.0)
    bound = lower_bound(last.errors, last.campaigns, delta)
    tests = tuple(steps[""])
    return Rule(target, None, last.campaigns, last.errors, bound, 0.0, 0.0, labelled, missing, why, pool, tests)


def _steps(units: Units, classes: Sequence[int], thresholds: Sequence[Candidate], target: float) -> list[Step]:
    put = np.isin(units.predicted, classes)
    wrong = units.truth != units.predicted
    return tested(thresholds, units.probabilities[put], wrong[put], target=target)


def _short(steps: Mapping[str, Sequence[Step]], passed: Sequence[set[int]]) -> str:
    """The set that lacks most: the clean one if it has no threshold, else the first that has none, or the worst."""
    none = [kind for kind, own in zip(steps, passed, strict=True) if not own]
    return none[0] if none else min(zip(map(len, passed), steps, strict=True))[1]


def _missing(steps: Sequence[Step], target: float, delta: float) -> tuple[int | None, str]:
    """How many more campaigns would do, and why there is no threshold."""
    rate = 1 - target
    most = steps[-1].campaigns if steps else 0
    if most == 0:
        need = campaigns_needed(0, rate, delta)
        return need, f"no calibration campaign is put in this class; a threshold needs {need} without an error"
    near = within_reach(steps, target=target, delta=delta)
    open_ = [step for step in near if step.errors <= rate * step.campaigns]
    if not open_:
        best = min(near, key=lambda step: step.errors / max(step.campaigns, 1))
        return None, (
            f"{best.errors} of {best.campaigns} campaigns are wrong, more than {percent(rate)}: more labels alone will"
            " not give a threshold"
        )
    step, need = nearest(open_, target, delta)
    found = f"{step.errors} of {step.campaigns} campaigns are wrong"
    return need, f"{found}: too few to promise {percent(target)}; {need} more without an error would do"


def nearest(steps: Sequence[Step], target: float, delta: float) -> tuple[Step, int]:
    """Which of tested thresholds the fewest further campaigns without an error would certify, and how many.

    Args:
        steps: At least one.
        target: Precision to promise, 0..1.
        delta: Probability with which the promise may be broken.
    """
    more = {step: max(campaigns_needed(step.errors, 1 - target, delta) - step.campaigns, 1) for step in steps}
    step = min(steps, key=lambda one: more[one])
    return step, more[step]


def by_label(rules: Mapping[str, Rule]) -> list[tuple[str, Rule]]:
    """Rules with a threshold first, then those that lack fewest labels, then by name."""
    return sorted(
        rules.items(),
        key=lambda item: (item[1].threshold is None, item[1].labels_missing or 0, -item[1].labelled, item[0]),
    )
