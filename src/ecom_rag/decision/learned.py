"""What a bank teaches without any listing: the combiner, and the thresholds that calibration will test."""

from dataclasses import dataclass

from ecom_rag.decision.combiner import Combiner, Verdicts, combiner_of, verdicts
from ecom_rag.decision.guarantee import thresholds_of
from ecom_rag.decision.own_seeds import LabelledSeeds, labelled_seeds, seeds_as_listings
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import UsageError
from ecom_rag.files.progress import Progress, stage
from ecom_rag.pipeline import Pipeline
from ecom_rag.pipeline.provenance import Provenance

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
    combiner = combiner_of(own, truth, seeds.labels, pipeline.routes, pipeline.settings.top_k)
    return Learned(provenance, seeds, combiner, _thresholds(verdicts(combiner, own), len(seeds.labels)))


def _thresholds(found: Verdicts, classes: int) -> tuple[tuple[float, ...], ...]:
    """For each class what its own seeds get, or where they are too few, what all get."""
    everywhere = thresholds_of(found.highest) if len(found.highest) else (1.0,)
    return tuple(
        thresholds_of(own) if len(own := found.highest[found.first == place]) >= _FEW else everywhere
        for place in range(classes)
    )
