"""Calibration listings in evasive spellings: the same campaigns as somebody writes them who wants to slip past."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.combiner import Combiner, verdicts_of
from ecom_rag.decision.evidence import seed_labels
from ecom_rag.decision.rules import Units
from ecom_rag.evaluation.evasion import variants
from ecom_rag.pipeline import Pipeline

STRENGTH = "middle"  # 30 % of the characters are changed
_BLOCK = 1024  # recalled at a time


def evasive_units(
    texts: Sequence[str],
    truth: NDArray[np.int64],
    kinds: Sequence[str],
    pipeline: Pipeline,
    combiner: Combiner,
    *,
    innocent: Sequence[int],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Units]:
    """What the combiner says of campaigns in each kind of evasive spelling.

    Args:
        texts: One of each campaign.
        truth: ``(texts,)`` class of each.
        kinds: Of ``evaluation.evasion.KINDS``. A text in which a kind can change nothing is left out of it.
        pipeline: Recall as listings go through it.
        combiner: Fitted on its seeds.
        innocent: The classes that stand for nothing wrong.
        seed: Of the spellings.
        progress: Called with the number of texts encoded.
    """
    records = [{"text": text, "metadata": {"id": place}} for place, text in enumerate(texts)]
    found = {}
    for kind in kinds:
        spelled = variants(records, kinds=[kind], strength=STRENGTH, seed=seed)
        rows = np.array([one["metadata"]["source_id"] for one in spelled], np.int64)
        parts = [Units.of_none()]
        for start in range(0, len(spelled), _BLOCK):
            results = pipeline.recall(spelled[start : start + _BLOCK], progress=progress)
            labels = seed_labels(results, pipeline.label_key, combiner.top_k)
            own = verdicts_of(combiner, results, labels)
            of = rows[start : start + _BLOCK]
            parts.append(Units(truth[of], own.first, own.highest, own.flags(innocent)))
        found[kind] = Units.concatenate(parts)
    return found
