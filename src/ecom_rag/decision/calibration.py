"""Calibration: labelled listings in, a policy out.

The combiner is fitted, and every threshold chosen, on the bank's own seeds. The labels of the listings are looked at
once: to certify those thresholds, one text per campaign.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.combiner import LEAST, Combiner, Verdicts, fit_combiner, verdicts, votes
from ecom_rag.decision.evasive import evasive_units
from ecom_rag.decision.evidence import evidence_of, neighbours_of_results, seed_labels
from ecom_rag.decision.guarantee import campaigns_needed, flag_threshold, thresholds_of
from ecom_rag.decision.own_seeds import LabelledSeeds, labelled_seeds, seeds_as_listings
from ecom_rag.decision.policy import Guarantee, Policy, check_evidence
from ecom_rag.decision.rules import Units, rules_of
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.digest import of_texts
from ecom_rag.files.identity import required_label
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.pipeline import Pipeline
from ecom_rag.pipeline.provenance import Provenance
from ecom_rag.text.near_duplicates import near_duplicates

_FEW = 5  # seeds put in a class: with fewer its thresholds are those of all classes together


@dataclass(frozen=True, slots=True)
class Learned:
    """What the bank teaches without any listing.

    Args:
        provenance: How results are made.
        seeds: The labelled ones.
        combiner: Fitted on them.
        thresholds: For each class those to test, descending.
    """

    provenance: Provenance
    seeds: LabelledSeeds
    combiner: Combiner
    thresholds: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Labelled listings, none of them a relative of a seed, and what the combiner says of them.

    Args:
        results: The listings with their seeds.
        labels: ``(listings,)`` the label of each.
        truth: ``(listings,)`` int64 class of each, -1 for a label that no seed has.
        verdicts: Of the combiner.
        campaigns: ``(listings,)`` int64 campaign number of each.
        representative: ``(listings,)`` whether it stands for its campaign.
        left_out: Listings that have relatives among the seeds.
    """

    results: list[Record]
    labels: list[str]
    truth: NDArray[np.int64]
    verdicts: Verdicts
    campaigns: NDArray[np.int64]
    representative: NDArray[np.bool_]
    left_out: int

    def units(self, innocent: Sequence[int]) -> Units:
        """One text per campaign.

        Args:
            innocent: The classes that stand for nothing wrong.
        """
        one = self.representative
        found = self.verdicts
        return Units(self.truth[one], found.first[one], found.highest[one], found.flags(innocent)[one])


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
    items = list(records.cleaned(listings, "listing"))
    if not items:
        raise UsageError("there are no listings to calibrate on; give labelled ones")
    if not all("topk_seed" in item for item in items):
        items = pipeline.recall(items)
    labels = [_label(number, item, asked.label_key or pipeline.label_key) for number, item in enumerate(items, 1)]
    learned = learn(pipeline, asked, progress=progress)
    check_evidence(items, learned.provenance)
    judged = judge(items, labels, learned, asked.similarity)
    evasive = _spelled(judged, learned, pipeline, asked, progress) if asked.evasive else {}
    policy = policy_of(judged, learned, asked, evasive=evasive, described=described)
    return Calibration(policy, judged, list(_notes(policy, judged)))


def learn(pipeline: Pipeline, asked: Calibrate, *, progress: Progress | None = None) -> Learned:
    """What the bank teaches without any listing: the combiner, and the thresholds to test.

    Args:
        pipeline: Recall as listings go through it.
        asked: What is to be promised.
        progress: As in ``calibrate``.

    Raises:
        UsageError: The pipeline has a reranker, or no seed has a label.
    """
    with pipeline.view() as view:
        provenance = pipeline.provenance(view)
        if provenance.reranker is not None:
            raise UsageError("the pipeline has a reranker; a policy stands on the scores of the routes: leave it out")
        seeds = labelled_seeds(view, pipeline.label_key, similarity=asked.similarity)
        step = stage(progress, "searching seeds among the others", None)
        own, truth = seeds_as_listings(pipeline, view, seeds, seed=asked.seed, progress=step)
    routes, top_k, classes = pipeline.routes, pipeline.settings.top_k, len(seeds.labels)
    counts = np.bincount(truth, minlength=classes)
    if (counts > 1).sum() < 2 or len(truth) < LEAST:
        why = f"the bank has {len(truth)} campaigns of seeds with a label; a fit needs {LEAST} of two classes"
        combiner = votes(seeds.labels, routes, top_k, why=why)
    else:
        combiner = fit_combiner(evidence_of(own, routes, top_k), truth, seeds.labels, routes, top_k)
    return Learned(provenance, seeds, combiner, _thresholds(verdicts(combiner, own), classes))


def judge(items: Sequence[Record], labels: Sequence[str], learned: Learned, similarity: float) -> Judged:
    """What the combiner says of labelled results.

    Args:
        items: Results of the same recall.
        labels: The label of each.
        learned: From the bank.
        similarity: From which two texts are of one campaign.

    Raises:
        UsageError: All of them have relatives among the seeds.
    """
    texts = [item["text"] for item in items]
    groups = near_duplicates([*learned.seeds.texts, *texts], similarity=similarity)
    of_seeds, of_items = groups[: len(learned.seeds.texts)], groups[len(learned.seeds.texts) :]
    kept = np.flatnonzero(~np.isin(of_items, of_seeds))
    if not len(kept):
        raise UsageError(
            f"all {len(items)} listings have near-duplicates among the seeds, which say nothing of new ones; calibrate"
            " on listings that are not in the bank"
        )
    provenance, number = learned.provenance, {label: place for place, label in enumerate(learned.seeds.labels)}
    used = [items[place] for place in kept.tolist()]
    found = seed_labels(used, provenance.label_key, provenance.top_k)
    neighbours = neighbours_of_results(used, found, number, provenance.routes, provenance.top_k)
    return Judged(
        used,
        [labels[place] for place in kept.tolist()],
        np.array([number.get(labels[place], -1) for place in kept.tolist()], np.int64),
        verdicts(learned.combiner, neighbours),
        of_items[kept],
        _representatives([texts[place] for place in kept.tolist()], of_items[kept]),
        len(items) - len(kept),
    )


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
    counts = {
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


def _thresholds(found: Verdicts, classes: int) -> tuple[tuple[float, ...], ...]:
    """For each class what its own seeds get, or where they are too few, what all get."""
    everywhere = thresholds_of(found.highest) if len(found.highest) else (1.0,)
    return tuple(
        thresholds_of(own) if len(own := found.highest[found.first == place]) >= _FEW else everywhere
        for place in range(classes)
    )


def _label(number: int, item: Record, key: str) -> str:
    try:
        return required_label(item["metadata"], key, "a listing to calibrate on")
    except ValueError as error:
        raise RecordError(f"listing {number}", str(error)) from None


def _representatives(texts: Sequence[str], campaigns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One text of each campaign, by its digest: not the first nor the last, and the same in any order of the file."""
    chosen: dict[int, tuple[str, int]] = {}
    for place, (text, campaign) in enumerate(zip(texts, campaigns.tolist(), strict=True)):
        mine = (of_texts([text]), place)
        chosen[campaign] = min(chosen.get(campaign, mine), mine)
    found = np.zeros(len(texts), np.bool_)
    found[[place for _, place in chosen.values()]] = True
    return found


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
