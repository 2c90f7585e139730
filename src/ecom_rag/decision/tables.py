"""A calibration as text."""

from ecom_rag.decision.calibration import Calibration
from ecom_rag.decision.guarantee import floored, percent
from ecom_rag.decision.rules import by_label


def as_text(calibration: Calibration) -> str:
    """The promise, and a line for each class.

    Args:
        calibration: What ``calibrate`` gave.
    """
    policy = calibration.policy
    guarantee, counts = policy.guarantee, policy.calibration
    among = "for all labels at once" if guarantee.jointly else "for each label by itself"
    lines = [
        f"Promise: at least {percent(guarantee.precision)} of the campaigns decided as a label are right"
        f"{guarantee.spelled}, with confidence {percent(1 - guarantee.delta)}, {among}.",
        f"Calibrated on {counts['campaigns']} campaigns ({counts['listings']} listings).",
    ]
    if guarantee.flag_threshold is not None and guarantee.false_positive_rate is not None:
        lines.append(
            f"At most {percent(guarantee.false_positive_rate)} of innocent campaigns are decided as something else,"
            f" with confidence {percent(1 - guarantee.delta)} ({guarantee.innocents} innocent campaigns)."
        )
    width = max(len(label) for label in policy.classes)
    lines.append("")
    lines.append(f"{'label':{width}}  threshold  at least  decided  campaigns  errors  labels missing")
    for label, rule in by_label(policy.classes):
        threshold = "none" if rule.threshold is None else f"{rule.threshold:.4f}"
        share = "-" if rule.threshold is None else f"{rule.coverage:.0%}"
        missing = "-" if rule.labels_missing == 0 else "?" if rule.labels_missing is None else str(rule.labels_missing)
        lines.append(
            f"{label:{width}}  {threshold:>9}  {floored(rule.bound):>8.3f}  {share:>7}  {rule.campaigns:>9}"
            f"  {rule.errors:>6}  {missing:>14}"
        )
    lines += ["", *(f"{label}: {rule.why}" for label, rule in by_label(policy.classes) if rule.threshold is None)]
    return "\n".join(lines).rstrip() + "\n"
