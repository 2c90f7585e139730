"""The bank's own seeds as listings: each is searched among the others, without its relatives.

A relative is a text of the same campaign: it would confirm its copy, which no new listing has.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.evidence import Neighbours, neighbours_of_ranking
from ecom_rag.errors import UsageError
from ecom_rag.pipeline import Pipeline
from ecom_rag.retrieval import Ranking
from ecom_rag.seeds.source import SeedView
from ecom_rag.text.near_duplicates import near_duplicates

MOST = 4000  # campaigns of seeds that are searched as listings
_BLOCK = 1024  # searched at a time
_READ = 10_000  # seeds read at a time


@dataclass(frozen=True, slots=True)
class LabelledSeeds:
    """The seeds that have a label.

    Args:
        labels: The classes, sorted.
        rows: ``(seeds,)`` int64 rows of the view.
        classes: ``(rows of the view,)`` int64 class of each row, -1 for none.
        texts: Of ``rows``.
        campaigns: ``(seeds,)`` int64 number of each seed's campaign.
    """

    labels: tuple[str, ...]
    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    texts: list[str]
    campaigns: NDArray[np.int64]


def labelled_seeds(view: SeedView, label_key: str, *, similarity: float) -> LabelledSeeds:
    """The labelled seeds of one state.

    Args:
        view: That state.
        label_key: Metadata key of the labels.
        similarity: From which two texts are of one campaign.

    Raises:
        UsageError: No seed has a label there.
    """
    found = view.labels(label_key)
    labels = tuple(sorted({label for label in found if label is not None}))
    if not labels:
        raise UsageError(
            f"no seed has a label under the metadata key {label_key!r}; give the key that the seeds' labels have"
        )
    number = {label: place for place, label in enumerate(labels)}
    classes = np.array([-1 if label is None else number[label] for label in found], np.int64)
    rows = np.flatnonzero(classes >= 0)
    texts: list[str] = []
    for start in range(0, len(rows), _READ):
        texts += [record["text"] for record in view.records(rows[start : start + _READ].tolist())]
    return LabelledSeeds(labels, rows, classes, texts, near_duplicates(texts, similarity=similarity))


def drawn_seeds(seeds: LabelledSeeds, *, seed: int = 0) -> NDArray[np.int64]:
    """One seed per campaign, of at most ``MOST`` campaigns.

    Args:
        seeds: The labelled ones.
        seed: Of the draw.

    Returns:
        ``(drawn,)`` int64 places among them, ascending.
    """
    order = np.random.default_rng(seed).permutation(len(seeds.rows))
    _, first = np.unique(seeds.campaigns[order], return_index=True)
    return np.sort(order[np.sort(first)[:MOST]])


def search_among_others(
    pipeline: Pipeline,
    view: SeedView,
    seeds: LabelledSeeds,
    chosen: NDArray[np.int64],
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[NDArray[np.int64], Ranking, Neighbours]]:
    """What recall finds for seeds that it does not have, block by block.

    Args:
        pipeline: Recall as listings go through it.
        view: One state of its seeds.
        seeds: The labelled ones of that state.
        chosen: ``(listings,)`` places among them.
        progress: Called with the number of seeds encoded.

    Returns:
        For each block its places, the rows found, none of the seed's own campaign, and what these say.
    """
    by_campaign = np.argsort(seeds.campaigns, kind="stable")
    ranked = seeds.campaigns[by_campaign]
    for start in range(0, len(chosen), _BLOCK):
        part = chosen[start : start + _BLOCK]
        asked = pipeline.asked([seeds.texts[place] for place in part.tolist()], progress=progress)
        ends = (np.searchsorted(ranked, seeds.campaigns[part], side) for side in ("left", "right"))
        own = [np.sort(seeds.rows[by_campaign[low:high]]) for low, high in zip(*ends, strict=True)]
        found = pipeline.rank(view, asked, pipeline.settings.top_k, own=own)
        yield part, found, neighbours_of_ranking(found, seeds.classes, asked.texts, pipeline.routes)


def seeds_as_listings(
    pipeline: Pipeline,
    view: SeedView,
    seeds: LabelledSeeds,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Neighbours, NDArray[np.int64]]:
    """What recall finds for seeds that it does not have, one per campaign.

    Args:
        pipeline: Recall as listings go through it.
        view: One state of its seeds.
        seeds: The labelled ones of that state.
        seed: Of the draw, where there are more campaigns than ``MOST``.
        progress: Called with the number of seeds encoded.

    Returns:
        Their neighbours, and ``(listings,)`` the class of each.
    """
    chosen = drawn_seeds(seeds, seed=seed)
    blocks = search_among_others(pipeline, view, seeds, chosen, progress=progress)
    parts = [neighbours for _, _, neighbours in blocks]
    return Neighbours.concatenate(parts), seeds.classes[seeds.rows[chosen]]
