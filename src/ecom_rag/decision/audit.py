"""An audit of the bank: seeds to look at again, most urgent first, with the seeds that speak against them.

A label is judged by what recall finds for its seed outside the seed's own campaign: copies do not confirm one another.
The audit removes nothing. Its records are what ``bank delete`` and ``bank add`` take, after somebody has looked.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision import audit_findings as kinds
from ecom_rag.decision.audit_findings import KINDS, Finding
from ecom_rag.decision.audit_hits import Hits, hits_of
from ecom_rag.decision.examined import NEAR, Examined, examine
from ecom_rag.decision.guarantee import campaigns_needed
from ecom_rag.decision.own_seeds import LabelledSeeds, labelled_seeds
from ecom_rag.decision.settings import Auditing, innocent_labels
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import known_id
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.files.results import check_result
from ecom_rag.pipeline import Pipeline
from ecom_rag.seeds.source import SeedView

TOP_K = 30  # neighbours per seed: with ten, fewer planted errors were found
_READ = 10_000  # seeds read at a time
_WHOLE = ("duplicate", "thin_class")  # kinds whose first seed stands for all
_NAMED = 1000  # ids of other seeds in one record


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """One label of the bank.

    Args:
        label: The label.
        seeds: How many have it.
        campaigns: Of them.
        missing: Campaigns that a guarantee would need beyond these.
        conflicts: Campaigns with a conflict of either kind.
        innocent: Whether it stands for nothing wrong.
    """

    label: str
    seeds: int
    campaigns: int
    missing: int
    conflicts: int
    innocent: bool


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Args:
        findings: Records of the seeds with ``audit`` behind their other keys, most urgent first.
        counts: By kind how many campaigns and how many seeds; for thin classes how many classes.
        classes: By label.
        seeds: Those with a label.
        campaigns: Of them.
        notes: What a user should know, one line each.
    """

    findings: list[Record]
    counts: dict[str, tuple[int, int]]
    classes: list[ClassCounts]
    seeds: int
    campaigns: int
    notes: list[str]


def audit(
    pipeline: Pipeline,
    asked: Auditing | None = None,
    *,
    queries: Iterable[Record] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Look at every labelled seed of a bank.

    Memory grows with the bank's texts and with what is found, not with what is searched.

    Args:
        pipeline: Recall over the seeds, without a reranker; its ``top_k`` is how many neighbours judge a seed.
        asked: What to look for.
        queries: Results of recall over the same seeds; with labels, seeds that are hit and wrong are found too.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Raises:
        UsageError: Settings that make no sense, a reranker, no label on the seeds, or results of another bank.
        RecordError: Something that is no result, or a label that is none.
    """
    asked = (asked or Auditing()).check()
    results = None if queries is None else list(_checked(queries))
    with pipeline.view() as view:
        if pipeline.provenance(view).reranker is not None:
            raise UsageError("the pipeline has a reranker; an audit stands on the scores of the routes: leave it out")
        seeds = labelled_seeds(view, pipeline.label_key, similarity=asked.similarity)
        innocent = innocent_labels(asked.innocent, seeds.labels)
        step = stage(progress, "searching seeds among the others", None)
        examined = examine(pipeline, view, seeds, conflict=asked.conflict, progress=step)
        ids = _ids(view, seeds.rows, pipeline.id_key)
        hits = None if results is None else _hits(results, seeds, ids, pipeline, asked)
        found = kinds.sorted_findings(list(_found(examined, hits, innocent, asked)))
        items = list(_records(found, examined, view, ids, pipeline))
    counts = _counts(found, seeds)
    classes = _classes(found, examined, innocent, asked)
    notes = list(_notes(examined, hits, innocent, ids, len(seeds.classes) - len(seeds.rows)))
    return Audit(items, counts, classes, len(seeds.rows), len(np.unique(seeds.campaigns)), notes)


def _found(examined: Examined, hits: Hits | None, innocent: Sequence[str], asked: Auditing) -> Iterator[Finding]:
    members = examined.members()
    known = np.zeros(len(members), np.bool_)
    mixed = list(kinds.duplicate_conflicts(examined, members))
    known[[examined.group[one.places[0]] for one in mixed]] = True
    yield from mixed
    alone = list(kinds.conflicts(examined, members, known))
    known[[examined.group[one.places[0]] for one in alone]] = True
    yield from alone
    if innocent:
        yield from kinds.near_innocents(examined, members, innocent, known)
    yield from kinds.thin_classes(examined, members, 1 - asked.precision, asked.delta)
    yield from kinds.without_evidence(examined, members)
    yield from kinds.duplicates(examined, members)
    if hits is not None:
        yield from kinds.hit_and_wrong(examined, hits, asked.delta)
        yield from kinds.never_hit(examined, members, hits)


def _checked(queries: Iterable[Record]) -> Iterator[Record]:
    for number, item in enumerate(records.cleaned(queries, "result"), 1):
        try:
            check_result(item)
        except ValueError as error:
            raise RecordError(f"result {number}", str(error)) from None
        yield item


def _hits(
    results: Sequence[Record], seeds: LabelledSeeds, ids: Sequence[str | None], pipeline: Pipeline, asked: Auditing
) -> Hits:
    own = [seeds.labels[one] for one in seeds.classes[seeds.rows].tolist()]
    return hits_of(
        results,
        own,
        ids,
        seeds.texts,
        label_key=asked.label_key or pipeline.label_key,
        id_key=pipeline.id_key,
        first=asked.first,
        similarity=asked.similarity,
    )


def _ids(view: SeedView, rows: NDArray[np.int64], id_key: str) -> list[str | None]:
    return [
        known_id(record["metadata"], id_key)
        for start in range(0, len(rows), _READ)
        for record in view.records(rows[start : start + _READ].tolist())
    ]


def _records(
    found: Sequence[Finding], examined: Examined, view: SeedView, ids: Sequence[str | None], pipeline: Pipeline
) -> Iterator[Record]:
    """The records of findings; seeds are read in blocks, since a bank reads each from its disk."""
    rows, names = examined.seeds.rows, np.full(len(examined.seeds.classes), -1, np.int64)
    names[rows] = np.arange(len(rows))
    lines = [(one, place) for one in found for place in (one.places[:1] if one.kind in _WHOLE else one.places).tolist()]
    for start in range(0, len(lines), _READ):
        part = lines[start : start + _READ]
        read = view.records([int(rows[place]) for _, place in part])
        for (one, place), record in zip(part, read, strict=True):
            yield {**record, "audit": _audit(one, place, examined, ids, names)}


def _audit(
    one: Finding, place: int, examined: Examined, ids: Sequence[str | None], names: NDArray[np.int64]
) -> dict[str, Any]:
    labels, classes = examined.seeds.labels, examined.seeds.classes
    because = [names[row] for row in one.because.tolist() if row >= 0]
    content: dict[str, Any] = {
        "kind": one.kind,
        "seed": ids[place],
        "label": labels[classes[examined.seeds.rows[place]]],
        "suggested": one.suggested,
        "probability": one.probability,
        "campaign": int(examined.seeds.campaigns[place]),
        "why": one.why,
        "because": [
            {
                "seed": ids[near],
                "label": labels[classes[examined.seeds.rows[near]]],
                "text": examined.seeds.texts[near],
            }
            for near in because
            if near >= 0
        ],
        **one.more,
    }
    if one.kind in _WHOLE:
        content["seeds"] = len(one.places)
    if one.kind == "duplicate":
        content["others"] = [ids[other] for other in one.places[1 : 1 + _NAMED].tolist()]
    return content


def _counts(found: Sequence[Finding], seeds: LabelledSeeds) -> dict[str, tuple[int, int]]:
    campaigns: dict[str, set[int]] = {kind: set() for kind in KINDS}
    sizes: Counter[str] = Counter()
    for one in found:
        key = one.places[0] if one.kind == "thin_class" else seeds.campaigns[one.places[0]]
        campaigns[one.kind].add(int(key))
        sizes[one.kind] += len(one.places)
    return {kind: (len(campaigns[kind]), sizes[kind]) for kind in KINDS if campaigns[kind]}


def _classes(
    found: Sequence[Finding], examined: Examined, innocent: Sequence[str], asked: Auditing
) -> list[ClassCounts]:
    needed = campaigns_needed(0, 1 - asked.precision, asked.delta)
    own = examined.seeds.classes[examined.seeds.rows]
    seeds = np.bincount(own, minlength=len(examined.seeds.labels)).tolist()
    wrong = Counter(int(own[one.places[0]]) for one in found if one.kind in ("conflict", "duplicate_conflict"))
    return [
        ClassCounts(label, seeds[number], count, max(needed - count, 0), wrong[number], label in innocent)
        for number, (label, count) in enumerate(
            zip(examined.seeds.labels, examined.campaigns_of_classes().tolist(), strict=True)
        )
    ]


def _notes(
    examined: Examined, hits: Hits | None, innocent: Sequence[str], ids: Sequence[str | None], unlabelled: int
) -> Iterator[str]:
    if unlabelled:
        yield f"{unlabelled} rows of the bank have no label (or were removed) and were not looked at"
    if nameless := sum(name is None for name in ids):
        yield f"{nameless} seeds have no id, by which they could be deleted"
    if not innocent:
        yield (
            "no label is innocent: near-innocents were not looked for; without innocent seeds nothing can be decided as"
            " innocent and no false-positive rate can be promised; if the bank has them, name their label"
        )
    if examined.method == "votes":
        yield (
            "the bank has too few campaigns to fit probabilities; the shares of labels among the nearest"
            f" {NEAR} seeds stand for them"
        )
    if hits is None:
        return
    if hits.unknown:
        yield f"{hits.unknown} of {hits.unknown + hits.found} results are no labelled seeds of the bank; recall again"
    if not hits.labelled:
        yield "the listings have no labels: which seeds are hit and wrong is not known"
    elif hits.labelled < hits.listings:
        yield f"{hits.listings - hits.labelled} of {hits.listings} listings have no label; they count as hits only"
