"""The report page of a calibration: what is promised, what is not, and what both stand on."""

import numpy as np

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.decision.calibration import Calibration
from ecom_rag.decision.figures import Outcome, Tally, outcome_of, tally
from ecom_rag.decision.guarantee import percent
from ecom_rag.decision.page_listings import (
    campaigns_section,
    confusion_section,
    largest_section,
    relatives_section,
    reliability_section,
    worst_section,
)
from ecom_rag.decision.page_promises import (
    coverage_section,
    evasive_section,
    method_section,
    missing_section,
    promises_section,
)
from ecom_rag.decision.policy import Policy
from ecom_rag.evaluation.page import document, made_of
from ecom_rag.files.publish import writing

_PACKAGES = ("numpy", "scipy")  # that the figures depend on
_MADE_BY = "ecom_rag.decision.page.write_page"


def as_html(calibration: Calibration, *, made_by: str, title: str = "Calibration") -> str:
    """A calibration as one self-contained page, readable on a telephone, on paper and on a dark screen.

    Args:
        calibration: What is shown.
        made_by: The command line or the Python call that gives it.
        title: The heading.

    Returns:
        HTML; the same text for the same calibration on one day, which ``SOURCE_DATE_EPOCH`` can set.
    """
    policy, judged = calibration.policy, calibration.judged
    found = outcome_of(policy, judged)
    related = None if judged.relatives is None else outcome_of(policy, judged.relatives)
    campaigns = tally(found, judged.representative)
    sections = [
        promises_section(calibration),
        *missing_section(policy, judged, campaigns),
        *coverage_section(policy, judged),
        *evasive_section(policy),
        confusion_section(policy, found),
        worst_section(policy, found),
        campaigns_section(policy, found),
        relatives_section(found, related),
        largest_section(policy, found),
        reliability_section(judged),
        method_section(policy),
    ]
    return document(title, _said(policy, found), made_of(made_by, _data(policy), _PACKAGES), sections)


def write_page(
    calibration: Calibration, path: PathLike, *, made_by: str = _MADE_BY, title: str = "Calibration"
) -> None:
    """Write the page, whole or not at all.

    Args:
        calibration: What is shown.
        path: Of the HTML file (``str`` or ``Path``).
        made_by: As in ``as_html``.
        title: The heading.

    Raises:
        UsageError: It cannot be written.
    """
    with writing(path_of(path, "path")) as sink:
        sink.write(as_html(calibration, made_by=made_by, title=title).encode())


def _said(policy: Policy, found: Outcome) -> list[str]:
    """The claim, and what it does not say."""
    guarantee = policy.guarantee
    confidence = percent(1 - guarantee.delta)
    said = ["This policy promises nothing: no label has a threshold, so every listing goes to review."]
    if any(rule.threshold is not None for rule in policy.classes.values()):
        said = [
            f"Of the campaigns that this policy decides without a person, at least {percent(guarantee.precision)} are"
            f" right{guarantee.spelled}, with confidence {confidence}: {_among(policy)}.",
            "Nothing is promised of a single listing, nor of another population: other sources, another time, another"
            " bank or encoder. A campaign is a group of near-duplicate texts and counts once.",
        ]
    if guarantee.flag_threshold is not None and guarantee.false_positive_rate is not None:
        innocent = [policy.combiner.labels.index(label) for label in policy.innocent]
        own = found.judged.representative & np.isin(found.judged.truth, innocent)
        flagged = int((own & found.automatic & ~np.isin(found.decided, innocent)).sum())
        said.append(
            f"At most {percent(guarantee.false_positive_rate)} of the innocent campaigns are decided as something else,"
            f" with confidence {confidence}; in the calibration {flagged:,} of {guarantee.innocents:,}."
        )
    return [*said, _decided(tally(found, found.judged.representative)), *_nearest(policy)]


def _among(policy: Policy) -> str:
    """Of which labels a promise is made, and whether of all at once."""
    having = {label: rule for label, rule in policy.classes.items() if rule.threshold is not None}
    alone = [label for label, rule in having.items() if not rule.pool]
    pools = dict.fromkeys(rule.pool for rule in having.values() if rule.pool)
    parts = [f"the label {alone[0]}" if len(alone) == 1 else f"each of {len(alone)} labels"] if alone else []
    parts += [f"{len(pool)} labels taken together" for pool in pools]
    if len(alone) + len(pools) == 1:
        return f"for {parts[0]}, and no other"
    at_once = "all at once" if policy.guarantee.jointly else "by itself, not all at once"
    return f"for {' and for '.join(parts)}, {at_once}"


def _decided(campaigns: Tally) -> str:
    reviewed = f"{campaigns.total - campaigns.decided:,} go to review"
    if not campaigns.decided:
        return f"All {campaigns.total:,} calibration campaigns go to review."
    wrong = f"{campaigns.wrong:,} of them wrongly ({campaigns.wrong / campaigns.decided:.1%})"
    return (
        f"Of the {campaigns.total:,} calibration campaigns, {campaigns.decided:,} ({campaigns.coverage:.1%}) are"
        f" decided without a person, {wrong if campaigns.wrong else 'none of them wrongly'}; {reviewed}."
    )


def _nearest(policy: Policy) -> list[str]:
    """How many labels have no threshold, and which lacks least."""
    without = {label: rule for label, rule in policy.classes.items() if rule.threshold is None}
    if not without:
        return []
    missing = sorted((rule.labels_missing, label) for label, rule in without.items() if rule.labels_missing is not None)
    said = f"{len(without)} of {len(policy.classes)} labels have no threshold; what would get them goes to review."
    if missing:
        said += f" Nearest is {missing[0][1]}: {missing[0][0]:,} more labelled campaigns without an error would do."
    return [said]


def _data(policy: Policy) -> dict[str, str]:
    counts, evidence = policy.calibration, policy.evidence
    named = [f"{counts['file']} (sha256 {str(counts['sha256'])[:12]})"] if "sha256" in counts else []
    data = [*named, f"{counts['listings']:,} listings in {counts['campaigns']:,} campaigns"]
    seeds = [
        f"{evidence.count:,}",
        f"label {evidence.label_key}",
        f"routes {', '.join(evidence.routes)}",
        f"{evidence.top_k} results per listing",
        f"encoder {evidence.encoder or 'none'}",
    ]
    return {"Data": "; ".join(data), "Seeds": "; ".join(seeds), "Policy": policy.fingerprint}
