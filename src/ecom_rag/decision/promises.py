"""What a policy promises for each class, without the proof."""

from dataclasses import dataclass

from ecom_rag.arguments import PathLike
from ecom_rag.decision.policy import load_policy
from ecom_rag.errors import UsageError


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised for one class.

    Args:
        label: The class.
        target: The precision of its decisions, over campaigns, above 0 and below 1.
        threshold: The probability from which a text is decided to be of the class.
    """

    label: str
    target: float
    threshold: float


def promises_of(path: PathLike) -> tuple[Promise, ...]:
    """The classes of a policy that have a threshold, in its order.

    Args:
        path: Of the policy.

    Raises:
        PolicyError: Not a policy, one of a newer version, or one that was changed by hand.
        UsageError: No such file, or none of its classes has a threshold.
    """
    rules = load_policy(path).classes.items()
    found = tuple(Promise(label, rule.target, rule.threshold) for label, rule in rules if rule.threshold is not None)
    if not found:
        raise UsageError(f"{path}: no class has a threshold, so nothing is promised; calibrate on more labels")
    return found
