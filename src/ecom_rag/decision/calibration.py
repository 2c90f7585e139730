"""Calibration: labelled listings in, a policy out.

The combiner is fitted, and every threshold chosen, on the bank's own seeds. The labels of the listings are looked at
once: to certify those thresholds, one text per campaign.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_rag.decision.evasive import evasive_units
from ecom_rag.decision.guarantee import campaigns_needed, flag_threshold
from ecom_rag.decision.judged import Judged, judge
from ecom_rag.decision.learned import Learned, learn
from ecom_rag.decision.policy import Guarantee, Policy, check_evidence
from ecom_rag.decision.rules import Units, rules_of
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import required_label
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import matches
from ecom_rag.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Calibration:
    """A policy, and what it was made of.

    Args:
        policy: To decide by.
        judged: The calibration listings.
        notes: What a user should know, one line each.
    """

    policy: Policy
    judged: Judged
    notes: list[str]


def calibrate(
    listings: Iterable[Record],
    pipeline: Pipeline,
    asked: Calibrate | None = None,
    *,
    described: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Make a policy from labelled listings.

    Args:
        listings: Records with a label: results of ``pipeline``, or plain records, which are then recalled. Texts that
            have relatives among the seeds are left out and counted.
        pipeline: Recall as the listings that will be decided go through it, without a reranker.
        asked: What is to be promised.
        described: Written into the policy, e.g. the name of the file.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Returns:
        The policy in ``policy``, with what it was made of.

    Raises:
        UsageError: Settings that make no sense, no label on the seeds, or nothing left to calibrate on.
        RecordError: A listing without a label, or one that is no record.
        PolicyError: The listings are results of another recall.
    """
    asked = (asked or Calibrate()).check()
    items, notes = _sample(list(records.cleaned(listings, "listing")), asked.filter)
    if not all("topk_seed" in item for item in items):
        items = pipeline.recall(items)
    labels = [_label(number, item, asked.label_key or pipeline.label_key) for number, item in enumerate(items, 1)]
    learned = learn(pipeline, asked, progress=progress)
    check_evidence(items, learned.provenance)
    judged = judge(items, labels, learned, asked.similarity)
    evasive = _spelled(judged, learned, pipeline, asked, progress) if asked.evasive else {}
    policy = policy_of(judged, learned, asked, evasive=evasive, described=described)
    return Calibration(policy, judged, [*notes, *_notes(policy, judged)])


def _sample(items: list[Record], filter: Any) -> tuple[list[Record], list[str]]:
    """The listings that a calibration may stand on: those of the filter, and none that was picked for its uncertainty.

    Raises:
        UsageError: None is left.
    """
    if filter is not None:
        tree = parse(filter)
        items = [item for item in items if matches(tree, item["metadata"])]
    chosen = [item for item in items if (item.get("chosen") or {}).get("by") == "uncertainty"]
    kept = [item for item in items if (item.get("chosen") or {}).get("by") != "uncertainty"]
    if not kept:
        raise UsageError("there are no listings to calibrate on; give labelled ones, drawn at random")
    picked = f"{len(chosen)} listings were chosen for their uncertainty and left out: they are no random sample"
    return kept, [picked] if chosen else []


def _spelled(
    judged: Judged, learned: Learned, pipeline: Pipeline, asked: Calibrate, progress: Progress | None
) -> dict[str, Units]:
    one = np.flatnonzero(judged.representative)
    texts = [judged.results[place]["text"] for place in one.tolist()]
    innocent = [learned.seeds.labels.index(label) for label in asked.innocent_of(learned.seeds.labels)]
    step = stage(progress, "recalling evasive spellings", len(texts) * len(asked.evasive))
    return evasive_units(
        texts, judged.truth[one], asked.evasive, pipeline, learned.combiner, innocent=innocent, progress=step
    )


def policy_of(
    judged: Judged,
    learned: Learned,
    asked: Calibrate,
    *,
    evasive: Mapping[str, Units] | None = None,
    described: Mapping[str, Any] | None = None,
) -> Policy:
    """The policy that labelled campaigns allow.

    Args:
        judged: The calibration listings.
        learned: From the bank.
        asked: What is to be promised.
        evasive: The campaigns in evasive spellings, by kind.
        described: Written down with the counts.

    Raises:
        UsageError: An innocent label that no seed has, or too few innocents for the false-positive rate asked for.
    """
    labels = learned.seeds.labels
    innocent = asked.innocent_of(labels)
    units = judged.units([labels.index(label) for label in innocent])
    guarantee = _guarantee(units, labels, innocent, asked)
    rules = rules_of(units, learned.thresholds, labels, guarantee, innocent=innocent, pool=asked.pool, evasive=evasive)
    counts: dict[str, Any] = {
        "filter": None if asked.filter is None else str(asked.filter),
        "listings": len(judged.labels),
        "left_out_as_relatives_of_seeds": judged.left_out,
        "campaigns": len(units),
    }
    return Policy(learned.provenance, learned.combiner, guarantee, rules, innocent, {**(described or {}), **counts})


def _guarantee(units: Units, labels: Sequence[str], innocent: Sequence[str], asked: Calibrate) -> Guarantee:
    rate = asked.false_positive_rate
    flags = units.flags[np.isin(units.truth, [labels.index(label) for label in innocent])]
    threshold = None
    if rate is not None:
        threshold = flag_threshold(flags, rate=rate, delta=asked.delta)
        if threshold is None:
            need = campaigns_needed(0, rate, asked.delta)
            raise UsageError(
                f"{len(flags)} calibration campaigns are innocent ({', '.join(innocent) or 'no label named'}); a"
                f" false-positive rate of {rate:g} needs at least {need}"
            )
    return Guarantee(
        asked.precision,
        asked.delta,
        asked.jointly,
        asked.similarity,
        rate,
        threshold,
        len(flags),
        evasive=tuple(asked.evasive),
    )


def _label(number: int, item: Record, key: str) -> str:
    try:
        return required_label(item["metadata"], key, "a listing to calibrate on")
    except ValueError as error:
        raise RecordError(f"listing {number}", str(error)) from None


def _notes(policy: Policy, judged: Judged) -> Iterable[str]:
    if judged.left_out:
        yield (
            f"{judged.left_out} listings have near-duplicates among the seeds and were left out: what is certified is"
            " what the bank does with new texts"
        )
    unknown = sorted({label for label, number in zip(judged.labels, judged.truth.tolist(), strict=True) if number < 0})
    if unknown:
        yield f"no seed has the label {', '.join(unknown)}; listings with it count as errors wherever they are put"
    if not policy.innocent:
        yield (
            "no label is innocent: nothing can be decided as innocent, and nothing is known of false positives; keep"
            " innocent texts in the bank and name their label"
        )
    if policy.combiner.name == "votes":
        yield f"the seeds vote, no combiner was fitted: {policy.combiner.trained_on['why']}"
