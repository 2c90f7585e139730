"""Learned fusion: weights found on judged queries, and kept only where cross-validation shows that they help.

Methods and weights are tried on the simplex: the corners and the centre, then Dirichlet draws, then draws ever closer
around the best (random search; the objective, nDCG@k, is piecewise constant, so there is no gradient to follow). For
k-fold cross-validation the whole search is done anew on each fold's other queries, the choice of the method included,
so that the out-of-fold figures have seen nothing of their own judgements.

The fit is compared, query by query, with the better of unweighted reciprocal rank fusion and every single route,
chosen on *all* queries: that favours the baseline, so a gain that is shown is a gain. Where the 95 % bootstrap interval
of the out-of-fold gain includes zero, the fit is refused and the baseline is what is returned.
"""

import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag._version import __version__
from ecom_rag.errors import UsageError
from ecom_rag.judging.judged import Judged
from ecom_rag.judging.relevance import discounts
from ecom_rag.judging.significance import Interval, bootstrap
from ecom_rag.retrieval.fusion import METHODS, RRF_CONSTANT, Candidates, route_scores
from ecom_rag.retrieval.learned_fusion import LearnedFusion

logger = logging.getLogger(__name__)

_DRAWS = 256  # over the whole simplex, for each method
_ROUNDS = (30.0, 200.0, 1000.0)  # concentration of the draws around the best so far
_CLOSER = 64  # draws a round


def fit_fusion(
    candidates: Candidates,
    judged: Judged,
    *,
    k: int = 10,
    methods: Sequence[str] = METHODS,
    rrf_constant: float = RRF_CONSTANT,
    baseline: Mapping[str, float] | None = None,
    folds: int = 5,
    seed: int = 0,
    fitted_on: Mapping[str, Any] | None = None,
) -> LearnedFusion:
    """Fit method and weights for nDCG@k, or refuse to.

    Args:
        candidates: What the routes found, as deep as it will be fused later.
        judged: The grades of the candidates.
        k: Of nDCG@k.
        methods: Those to try.
        rrf_constant: Of ``rrf``; also of the baseline.
        baseline: Weights under ``minmax`` that the fit has to beat; by default the better of unweighted reciprocal rank
            fusion and every single route.
        folds: Of the cross-validation.
        seed: Of the folds, the draws and the bootstrap.
        fitted_on: Written down with the result, e.g. file names.

    Returns:
        The fitted fusion; with ``accepted`` false the baseline instead, and a warning in the log unless it was given.

    Raises:
        UsageError: Fewer than two routes, or too few queries with anything relevant.
    """
    useful, judged = _useful(candidates, judged, folds)
    against, base = _baseline(candidates, useful, judged, k, rrf_constant, baseline)
    fold_of = np.random.default_rng(seed).permutation(len(useful)) % folds
    parts = [fold_of != fold for fold in range(folds)] + [np.ones(len(useful), np.bool_)]  # the last is the fit itself
    found = []
    for method in methods:
        search = _Search(_features(candidates, useful, method, rrf_constant), judged, k)
        found.append(search.best(method, parts, seed))
    *by_fold, best = [max(of_part, key=lambda one: round(one.value, 12)) for of_part in zip(*found, strict=True)]
    out_of_fold = np.stack([one.by_query for one in by_fold])[fold_of, np.arange(len(useful))]
    gain = bootstrap(out_of_fold - base.by_query, seed=seed)
    if not (accepted := gain.low > 0) and baseline is None:  # else whoever gave the weights says so
        _refuse(gain, against, k)
    chosen = best if accepted else base
    figures = {"queries": len(useful), "folds": folds, "seed": seed, "out_of_fold": float(out_of_fold.mean())}
    return LearnedFusion(
        method=chosen.method,
        weights=dict(zip(candidates.evidence, chosen.weights.tolist(), strict=True)),
        rrf_constant=rrf_constant,
        accepted=accepted,
        baseline=against,
        measure=f"nDCG@{k}",
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        fitted_on={**(fitted_on or {}), **figures, "baseline": base.value},
        versions={"ecom_rag": __version__, "numpy": importlib.metadata.version("numpy")},
    )


def _useful(candidates: Candidates, judged: Judged, folds: int) -> tuple[NDArray[np.int64], Judged]:
    """The queries that something is relevant to, and how good their candidates are.

    Raises:
        UsageError: Fewer than two routes, or too few such queries.
    """
    names = list(candidates.evidence)
    if len(names) < 2:
        raise UsageError(f"the routes are {', '.join(names) or 'none'}; fusing needs at least two")
    useful = np.flatnonzero(judged.ideal > 0)
    if not 2 <= folds <= len(useful) // 2:
        raise UsageError(
            f"{len(useful)} queries have anything relevant; {max(folds, 2)} folds need at least"
            f" {2 * max(folds, 2)}, and a gain that can be told from chance some hundreds"
        )
    return useful, Judged(judged.gains[useful], judged.ideal[useful])


@dataclass(frozen=True)
class _Found:
    """The best of one method for some of the queries: its mean over them, and what it does on all."""

    value: float
    method: str
    weights: NDArray[np.float64]
    by_query: NDArray[np.float64]


class _Search:
    """The judged candidates, ready to try weights on."""

    def __init__(self, features: NDArray[np.float64], judged: Judged, k: int) -> None:
        self._features, self._judged, self._discounts = features, judged, discounts(k)

    def values(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """nDCG@k of every query under every row of ``weights (w, routes)``: ``(w, queries)``."""
        dcg = np.empty((len(weights), len(self._features)))
        _dcg(self._features, weights, self._judged.gains, self._discounts, dcg)
        return dcg / self._judged.ideal

    def best(self, method: str, parts: Sequence[NDArray[np.bool_]], seed: int) -> list[_Found]:
        """For each part of the queries the weights with the best mean over it; of equals the plainer, tried earlier."""
        rng = np.random.default_rng(seed)
        start = _simplex(rng, self._features.shape[2])
        tried = self.values(start)
        found = []
        for part in parts:
            place = int(tried[:, part].mean(axis=1).argmax())
            weights, by_query = start[place], tried[place]
            for concentration in _ROUNDS:
                closer = _rounded(rng.dirichlet(weights * concentration + 0.3, _CLOSER))
                values = self.values(closer)
                means = values[:, part].mean(axis=1)
                if means.max() > by_query[part].mean() + 1e-12:
                    weights, by_query = closer[int(means.argmax())], values[int(means.argmax())]
            found.append(_Found(float(by_query[part].mean()), method, weights, by_query))
        return found


def _features(candidates: Candidates, rows: NDArray[np.int64], method: str, rrf_constant: float) -> NDArray[np.float64]:
    """``(queries, candidates, routes)``, NaN where a route did not find the candidate."""
    parts = [
        np.where(one.ranks > 0, route_scores(one, method=method, rrf_constant=rrf_constant), np.nan)[rows]
        for one in candidates.evidence.values()
    ]
    return np.stack(parts, axis=2)


def _baseline(
    candidates: Candidates,
    rows: NDArray[np.int64],
    judged: Judged,
    k: int,
    rrf_constant: float,
    given: Mapping[str, float] | None,
) -> tuple[str, _Found]:
    """What the fit has to beat, and its name: the given weights, or the best of plain RRF and every single route."""
    names = list(candidates.evidence)
    weights = np.vstack([np.ones(len(names)), np.eye(len(names))])
    method = "rrf"
    if given is not None:
        method, weights = "minmax", np.array([[given[name] for name in names]], np.float64)
    values = _Search(_features(candidates, rows, method, rrf_constant), judged, k).values(weights)
    best = int(values.mean(axis=1).argmax())
    name = "the given weights" if given is not None else "rrf" if best == 0 else f"only {names[best - 1]}"
    return name, _Found(float(values[best].mean()), method, weights[best], values[best])


def _simplex(rng: np.random.Generator, routes: int) -> NDArray[np.float64]:
    """The centre, the corners, and draws over the whole simplex."""
    drawn = rng.dirichlet(np.ones(routes), _DRAWS)
    return _rounded(np.vstack([np.full((1, routes), 1 / routes), np.eye(routes), drawn]))


def _rounded(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is tried is what is written to the file."""
    return np.round(weights, 4)


def _refuse(gain: Interval, baseline: str, k: int) -> None:
    logger.warning(
        "learned fusion refused: its gain over %s is %+.4f nDCG@%d with a 95 %% interval of %+.4f to %+.4f, which does"
        " not exclude zero; %s is kept",
        baseline,
        gain.mean,
        k,
        gain.low,
        gain.high,
        baseline,
    )


@numba.njit(cache=True, parallel=True)
def _dcg(features, weights, gains, discounts, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """DCG@k of every query under every weighting; the order is that of ``fuse``: float32 scores, ties by place."""
    queries, width, routes = features.shape
    k = discounts.shape[0]
    for query in numba.prange(queries):
        best = np.empty(k, np.float32)
        gain = np.empty(k, np.float64)
        for trial in range(weights.shape[0]):
            kept = 0
            for place in range(width):
                total = 0.0
                offered = False  # by a route that counts
                for route in range(routes):
                    value = features[query, place, route]
                    if weights[trial, route] > 0 and not np.isnan(value):
                        total += weights[trial, route] * value
                        offered = True
                if not offered:
                    continue
                score = np.float32(total)
                if kept == k and score <= best[k - 1]:
                    continue
                at = min(kept, k - 1)
                while at > 0 and best[at - 1] < score:
                    best[at] = best[at - 1]
                    gain[at] = gain[at - 1]
                    at -= 1
                best[at] = score
                gain[at] = gains[query, place]
                kept = min(kept + 1, k)
            total = 0.0
            for rank in range(kept):
                total += gain[rank] * discounts[rank]
            out[trial, query] = total
