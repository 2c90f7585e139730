"""Fusion weights fitted on the seeds themselves: no query has to be judged.

Each of some seeds is searched among the others, and what has its label counts as relevant. The weights that order
these best are kept where they are better than the default ones beyond chance (``judging.fit_fusion``). That suits banks
whose queries are texts of the seeds' own kind, as new listings are.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ecom_rag._version import __version__
from ecom_rag.errors import UsageError
from ecom_rag.files import cache, digest
from ecom_rag.judging.fit_fusion import fit_fusion
from ecom_rag.judging.judged import judge_labels
from ecom_rag.retrieval import Ranking
from ecom_rag.retrieval.fusion import gather
from ecom_rag.retrieval.itself import Rows
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.retrieval.routes import Queries, default_weights
from ecom_rag.retrieval.weights import check_weights
from ecom_rag.seeds.source import MOST_SAMPLED, SeedView

LEAST = 100  # seeds with another one of their label: with fewer, weights would be fitted to chance
_RESCUES = ("variant",)  # finds what is spelled otherwise, which seeds are not to each other; keeps its share

Search = Callable[[Sequence[str], Queries, Rows], Mapping[str, Ranking]]
"""What each of some routes finds for queries, without the rows that they are themselves."""


@dataclass(frozen=True, slots=True)
class SeedFit:
    """A fit on seeds.

    Args:
        fusion: What to fuse by.
        note: What a user should know of it, in a line.
    """

    fusion: LearnedFusion
    note: str


def fusion_of_seeds(
    view: SeedView,
    routes: Sequence[str],
    search: Search,
    *,
    label_key: str,
    id_key: str,
    depends_on: tuple[Any, ...] = (),
) -> SeedFit:
    """As ``fit_on_seeds``; for one state of seeds that have a name it is done once, and kept in the cache.

    Args:
        view: As there.
        routes: As there.
        search: As there.
        label_key: As there.
        id_key: As there.
        depends_on: What else decides what ``search`` finds.
    """
    if view.name is None:
        return fit_on_seeds(view, routes, search, label_key=label_key, id_key=id_key)
    known = f"{__version__} {view.name} {view.sequence} {','.join(routes)} {label_key} {depends_on}"
    place = cache.cache_folder() / "fusions" / f"{digest.of_texts([known])}.json"
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        found = SeedFit(LearnedFusion(**kept["fusion"]), str(kept["note"]))
        check_weights(found.fusion.weights, of=f"{place}: fusion weights")
        found.fusion.check_routes(routes)
        return found
    except (OSError, ValueError, TypeError, LookupError, UsageError):  # not there, or damaged
        found = fit_on_seeds(view, routes, search, label_key=label_key, id_key=id_key)
        cache.keep(place, json.dumps(asdict(found)))
        return found


def fit_on_seeds(view: SeedView, routes: Sequence[str], search: Search, *, label_key: str, id_key: str) -> SeedFit:
    """Fit the weights of routes on the labels of the seeds.

    Args:
        view: One state of the seeds.
        routes: At least two.
        search: Finds the neighbours of seeds.
        label_key: Metadata key of the seeds' labels.
        id_key: Metadata key of their ids.

    Raises:
        UsageError: Not a key.
        RecordError: A seed whose label is no label.
    """
    default = LearnedFusion("minmax", default_weights(routes), accepted=False)
    fitted = [route for route in routes if route not in _RESCUES]
    labels = view.labels(label_key)
    counts = Counter(label for label in labels if label is not None)
    names = {label: number for number, label in enumerate(counts)}
    classes = np.array([-1 if label is None else names[label] for label in labels], np.int64)
    rows, queries = view.sample(MOST_SAMPLED)
    useful = np.array([counts[labels[row] or ""] > 1 for row in rows.tolist()], np.bool_)
    if len(fitted) < 2:
        return SeedFit(default, f"fusion auto: the default weights, since {' and '.join(routes)} leave nothing to fit")
    if useful.sum() < LEAST:
        few = f"{useful.sum()} of {len(rows)} seeds tried share the label {label_key!r} with another"
        return SeedFit(default, f"fusion auto: the default weights, since {few}, {LEAST} are needed")
    queries, rows = queries.take(np.flatnonzero(useful)), rows[useful]
    own = view.own_rows([{"text": text, "metadata": {}} for text in queries.texts], id_key)
    candidates = gather(search(fitted, queries, own))
    judged = judge_labels(candidates, classes[rows], classes, own=own)
    fit = fit_fusion(candidates, judged, methods=("minmax",), baseline=default_weights(fitted))
    if not fit.accepted:
        return SeedFit(default, "fusion auto: the default weights, which weights fitted on the labels do not beat")
    mean = float(np.mean(list(fit.weights.values())))
    weights = {route: fit.weights.get(route, round(mean * default.weights[route], 4)) for route in routes}
    shown = ", ".join(f"{route} {weight:.2f}" for route, weight in weights.items())
    gain = f"nDCG@10 {fit.gain:+.4f} [{fit.gain_low:+.4f}, {fit.gain_high:+.4f}] among {len(rows)} seeds by label"
    return SeedFit(replace(fit, weights=weights), f"fusion auto: {shown} ({gain})")
