"""A decided record, as ``decide`` writes it, read with what choosing and watching need of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecom_rag.files.identity import as_label
from ecom_rag.values import shown

ACTIONS = ("label", "innocent", "review")


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided of one text.

    Args:
        action: Of ``ACTIONS``.
        label: What the text was decided to be; ``None`` where the action has none.
        threshold: That the label's probability reached; ``None`` where there is none.
        campaign: The group of near-duplicates that the text belongs to.
        probabilities: Of the candidate classes, descending; what is missing to 1 is none of them.
        chosen_by: How the text was chosen for a person to look at: ``uncertainty``, ``audit`` or ``None``.
    """

    action: str
    label: str | None
    threshold: float | None
    campaign: str
    probabilities: tuple[float, ...]
    chosen_by: str | None


def decided(record: Mapping[str, Any]) -> Decided:
    """Read the decision of a record; keys that are not known are passed over.

    Raises:
        ValueError: It has none, or one that is no decision; the message says what was found and expected.
    """
    decision = record.get("decision")
    if not isinstance(decision, Mapping):
        found = "missing" if decision is None else f"{shown(decision)}, not an object"
        raise ValueError(f'"decision" is {found}; expected a record that ecom-rag decide wrote')
    action = decision.get("action")
    if action not in ACTIONS:
        raise ValueError(f'"decision.action" is {shown(action)}; expected label, innocent or review')
    campaign = decision.get("campaign")
    if not isinstance(campaign, str) or not campaign:
        raise ValueError(f'"decision.campaign" is {shown(campaign)}; expected the name that ecom-rag decide gave it')
    chosen = record.get("chosen")
    return Decided(
        action=str(action),
        label=_label(decision, action),
        threshold=_share(decision.get("threshold"), "threshold"),
        campaign=campaign,
        probabilities=_probabilities(decision.get("probabilities")),
        chosen_by=str(chosen["by"]) if isinstance(chosen, Mapping) and "by" in chosen else None,
    )


def _label(decision: Mapping[str, Any], action: str) -> str | None:
    try:
        label = as_label(decision.get("label"))
    except ValueError as error:
        raise ValueError(f'"decision.label" {error}') from None
    if action == "label" and label is None:
        raise ValueError('"decision.label" is missing; expected one where the action is label')
    return label


def _probabilities(found: Any) -> tuple[float, ...]:
    if found is None:
        return ()
    if not isinstance(found, Mapping):
        raise ValueError(f'"decision.probabilities" is {shown(found)}; expected an object of labels and probabilities')
    values = (_share(value, f"probabilities.{label}") for label, value in found.items())
    return tuple(sorted((value for value in values if value is not None), reverse=True))


def _share(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f'"decision.{name}" is {shown(value)}; expected a number from 0 to 1')
    return float(value)
