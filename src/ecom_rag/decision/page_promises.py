"""Sections of the report page: what is promised of each class, what is lacking, and how that was found."""

from collections.abc import Iterator

from ecom_rag.decision.calibration import Calibration
from ecom_rag.decision.figures import Tally, curve_of, lacking
from ecom_rag.decision.guarantee import floored, percent
from ecom_rag.decision.judged import Judged
from ecom_rag.decision.policy import Policy, Rule
from ecom_rag.decision.rules import by_label
from ecom_rag.evaluation import charts
from ecom_rag.evaluation.page import Section, facts, note, table

_FLOORS = (0.8, 0.5, 0.0)  # where the axis of precisions may begin


def promises_section(calibration: Calibration) -> Section:
    """The table by class.

    Args:
        calibration: Whose policy is shown, with its notes.
    """
    policy = calibration.policy
    guarantee = policy.guarantee
    head = ["label", "at least", "coverage", "missing", "threshold", "recall", "decided", "errors", "labelled"]
    ranked = by_label(policy.classes)
    body = [[_named(label, policy), *_promise_cells(rule)] for label, rule in ranked]
    whose = "for all labels at once" if guarantee.jointly else "for the label by itself"
    columns = (
        f"At least: the share of right decisions that holds with confidence {percent(1 - guarantee.delta)} {whose};"
        " review: none does, and a person must look. Coverage: the share of the campaigns put in the label that is"
        " decided. Missing: further labelled campaigns without an error that would give a threshold; ?: labels alone"
        " will not. Threshold: the probability from which the label is given without a person. Recall: the share of the"
        " label's own campaigns that is decided as it. Decided, errors, labelled: calibration campaigns."
    )
    alone = ""
    if not guarantee.jointly and sum(rule.threshold is not None for rule in policy.classes.values()) > 1:
        alone = (
            f"Each label's promise may be broken with probability {percent(guarantee.delta)}, so the confidence that"
            " all of them hold is lower."
        )
    shared = [
        f"The labels {', '.join(pool)} share one threshold and one promise, of all of them together."
        for pool in dict.fromkeys(rule.pool for rule in policy.classes.values())
        if pool
    ]
    notes = [columns, alone, *shared, *(f"Note: {one}." for one in calibration.notes)]
    sure = [rule.threshold is not None for _, rule in ranked]
    content = table(head, body, sure=sure) + "".join(map(note, filter(None, notes)))
    return Section(2, "promises", "Promises by label", content)


def _named(label: str, policy: Policy) -> str:
    return f"{label} (innocent)" if label in policy.innocent else label


def _promise_cells(rule: Rule) -> list[str]:
    missing = "–" if rule.labels_missing == 0 else "?" if rule.labels_missing is None else f"{rule.labels_missing:,}"
    if rule.threshold is None:
        return ["review", "–", missing, *["–"] * 4, f"{rule.labelled:,}"]
    return [
        f"{floored(rule.bound):.1%}",
        f"{rule.coverage:.0%}",
        missing,
        f"{rule.threshold:.4f}",
        f"{rule.recall:.0%}",
        f"{rule.campaigns:,}",
        f"{rule.errors:,}",
        f"{rule.labelled:,}",
    ]


def missing_section(policy: Policy, judged: Judged, campaigns: Tally) -> Iterator[Section]:
    """How many labels the classes without a threshold need, and what these would bring; nothing where all have one.

    Args:
        policy: The rules.
        judged: The calibration listings.
        campaigns: All of them, as the policy decides them.
    """
    found = lacking(policy, judged)
    if not found:
        return
    body = []
    for one in found:
        missing, share = one.rule.labels_missing, one.would_pass
        needs = "?" if missing is None else f"{missing:,}"
        gain, effort = (f"+{share:.1%}", f"{missing / share:,.0f}") if missing and share else ("–", "–")
        body.append([one.label, one.rule.why, needs, gain, effort])
    gains = {one.rule.pool or one.label: one.would_pass or 0.0 for one in found if one.rule.labels_missing}
    told = note(
        "Missing: further labelled campaigns that pass the nearest threshold without an error; ?: labels alone will not"
        " do. Would decide: the share of all campaigns that this threshold passes. At random: about how many"
        " campaigns of any kind, once labelled, contain as many as are missing; fewer will do where those are labelled"
        " that the policy puts in the label."
    )
    if sum(gains.values()):
        more = campaigns.coverage + sum(gains.values())
        told += note(
            f"With these thresholds too, {more:.1%} of the campaigns would be decided instead of"
            f" {campaigns.coverage:.1%}."
        )
    head = ["label", "why", "missing", "would decide", "at random"]
    yield Section(2, "missing", "Labels missing", table(head, body, texts=2) + told)


def coverage_section(policy: Policy, judged: Judged) -> Iterator[Section]:
    """A plot for each class, or pool of classes, that campaigns are put in; nothing where no class has any.

    Args:
        policy: The rules.
        judged: The calibration listings.
    """
    number = {label: place for place, label in enumerate(policy.combiner.labels)}
    plots = []
    for labels, rule in {rule.pool or (label,): rule for label, rule in by_label(policy.classes)}.items():
        curve = curve_of(judged, [number[label] for label in labels])
        if len(curve.coverage) < (2 if rule.threshold is None else 1):  # a single point is no line
            continue
        name, point, low = ", ".join(labels), None, float(curve.precision[-1])
        caption = f"{name}: no threshold"
        if rule.threshold is not None:
            right = 1 - rule.errors / max(rule.campaigns, 1)
            caption = f"{name}: at least {floored(rule.bound):.1%} right at a coverage of {rule.coverage:.0%}"
            point, low = charts.Point(rule.coverage, right, rule.bound, right, caption), min(low, rule.bound)
        low = next(one for one in _FLOORS if one <= min(low, rule.target - 0.02))
        plots.append(
            charts.coverage((curve.coverage.tolist(), curve.precision.tolist()), point, rule.target, low, caption)
        )
    if not plots:
        return
    told = note(
        "Line: the share that is right, if of the campaigns put in a label the most probable ones are decided; it shows"
        " the calibration and promises nothing. Dot: the threshold that was certified; the bar below it is the"
        " precision that holds with the confidence of the policy. Dashed: the precision asked for. Axes of precision do"
        " not all begin at 0."
    )
    yield Section(2, "coverage", "Precision over coverage", told + charts.side_by_side(plots))


def evasive_section(policy: Policy) -> Iterator[Section]:
    """What each threshold passes of the calibration campaigns in evasive spellings; nothing where none was asked for.

    Args:
        policy: The rules.
    """
    kinds = policy.guarantee.evasive
    ranked = [(label, rule) for label, rule in by_label(policy.classes) if rule.threshold is not None]
    if not kinds or not ranked:
        return
    body = [[label, *(_of(rule, kind) for kind in kinds)] for label, rule in ranked]
    told = note(
        "Errors among the calibration campaigns that are decided, each spelled so on purpose. A threshold had to be"
        " certified on each kind by itself, as on the texts as they are."
    )
    yield Section(2, "evasive", "Evasive spellings", table(["label", *kinds], body) + told)


def _of(rule: Rule, kind: str) -> str:
    step = rule.evasive.get(kind)
    return "–" if step is None else f"{step.errors:,} of {step.campaigns:,}"


def method_section(policy: Policy) -> Section:
    """How the thresholds were found, with every one that was tested.

    Args:
        policy: The rules.
    """
    guarantee, combiner = policy.guarantee, policy.combiner
    kinds = {"logit": "logistic regression over the candidate labels of a listing", "votes": "vote of the seeds"}
    lines = {
        "Unit": f"{guarantee.unit}: texts from a similarity of {guarantee.similarity:g} are one",
        "Confidence": f"{percent(1 - guarantee.delta)}, "
        + ("for all labels at once" if guarantee.jointly else "for each label by itself"),
        "Method": guarantee.method,
        "Assumes": guarantee.assumes,
        "Combiner": kinds[combiner.name]
        + "".join(f"; {key.replace('_', ' ')}: {value}" for key, value in combiner.trained_on.items()),
    }
    body = [
        [label, f"{step.threshold:.6f}", f"{step.campaigns:,}", f"{step.errors:,}", f"{step.p:.4f}"]
        for label, rule in by_label(policy.classes)
        for step in rule.steps
    ]
    tested = table(["label", "threshold", "campaigns", "errors", "p"], body) + note(
        "p: the probability of so few errors, were the precision the one asked for. Thresholds are tested from the"
        f" strictest on, and the last with p of at most delta ({guarantee.delta:g}"
        f"{' divided by the number of labels' if guarantee.jointly else ''}) before one fails is taken; those that too"
        " few campaigns pass are left out."
    )
    content = f"{facts(lines)}<details><summary>Every threshold tested</summary>{tested}</details>"
    return Section(2, "method", "Method", content)
