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
from ecom_rag.judging.relevance import Classes, discounts, ideal_dcg
from ecom_rag.judging.significance import Interval, bootstrap
from ecom_rag.retrieval.fusion import METHODS, RRF_CONSTANT, Candidates, route_scores
from ecom_rag.retrieval.learned_fusion import LearnedFusion

logger = logging.getLogger(__name__)

_DRAWS = 256  # over the whole simplex, for each method
_ROUNDS = (30.0, 200.0, 1000.0)  # concentration of the draws around the best so far
_CLOSER = 64  # draws a round


@dataclass(frozen=True)
class Judged:
    """How good the candidates are.

    Args:
        gains: ``(queries, candidates)`` float64, the grade of each candidate, at least 0.
        ideal: ``(queries,)`` float64, the DCG@k of the best possible ranking of all documents.
    """

    gains: NDArray[np.float64]
    ideal: NDArray[np.float64]


def judge(
    candidates: Candidates, documents: Sequence[Sequence[str]], grades: Sequence[Mapping[str, int]], *, k: int = 10
) -> Judged:
    """Grades of candidates from judgements.

    Args:
        candidates: What was found; ``rows`` index into ``documents``.
        documents: For each query the names that its ``rows`` stand for; one list for all may be repeated.
        grades: For each query, name -> grade of every judged document, found or not.
        k: Of nDCG@k.
    """
    gains = np.zeros(candidates.rows.shape)
    for query, (names, judged) in enumerate(zip(documents, grades, strict=True)):
        for place, row in enumerate(candidates.rows[query].tolist()):
            if row >= 0:
                gains[query, place] = max(0, judged.get(names[row], 0))
    return Judged(gains, ideal_dcg([judged.values() for judged in grades], k))


def judge_labels(
    candidates: Candidates,
    query_labels: NDArray[np.int64],
    seed_labels: NDArray[np.int64],
    *,
    own: Sequence[NDArray[np.int64]] | None = None,
    k: int = 10,
) -> Judged:
    """Grades of candidates from labels: 1 where a seed has the query's label.

    Args:
        candidates: What was found; ``rows`` are those of the seeds.
        query_labels: ``(queries,)`` label numbers.
        seed_labels: ``(seeds,)`` label numbers; -1 for none.
        own: For each query the rows that it is itself, which are not among the candidates; by default none.
        k: Of nDCG@k.
    """
    relevance = Classes(query_labels, seed_labels, own=np.full(len(query_labels), -1, np.int64))
    pairs = zip(query_labels, own or [np.empty(0, np.int64)] * len(query_labels), strict=True)
    left_out = np.array([(seed_labels[rows] == label).sum() for label, rows in pairs], np.int64)
    possible = np.arange(k) < (relevance.relevant - left_out)[:, None]
    return Judged(relevance.gains(candidates.rows), possible.astype(np.float64) @ discounts(k))


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
        The fitted fusion; with ``accepted`` false, and a warning in the log, the baseline instead.

    Raises:
        UsageError: Fewer than two routes, or too few queries with anything relevant.
    """
    useful, judged = _useful(candidates, judged, folds)
    if baseline is None:
        against, base = _baseline(candidates, useful, judged, k, rrf_constant)
    else:
        against, base = "the given weights", _given(candidates, useful, judged, k, baseline)
    fold_of = np.random.default_rng(seed).permutation(len(useful)) % folds
    parts = [fold_of != fold for fold in range(folds)] + [np.ones(len(useful), np.bool_)]  # the last is the fit itself
    found = []
    for method in methods:
        search = _Search(_features(candidates, useful, method, rrf_constant), judged, k)
        found.append(search.best(method, parts, seed))
    *by_fold, best = [max(of_part, key=lambda one: round(one.value, 12)) for of_part in zip(*found, strict=True)]
    out_of_fold = np.stack([one.by_query for one in by_fold])[fold_of, np.arange(len(useful))]
    gain = bootstrap(out_of_fold - base.by_query, seed=seed)
    if not (accepted := gain.low > 0):
        _refuse(gain, against, k)
    chosen = best if accepted else base
    counts = {"queries": len(useful), "folds": folds, "seed": seed}
    means = {"out_of_fold": float(out_of_fold.mean()), "baseline": base.value}
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
        fitted_on={**(fitted_on or {}), **counts, **means},
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
    candidates: Candidates, rows: NDArray[np.int64], judged: Judged, k: int, rrf_constant: float
) -> tuple[str, _Found]:
    """The best of unweighted RRF and every single route, by its name, as weights for RRF."""
    names = list(candidates.evidence)
    weights = np.vstack([np.ones(len(names)), np.eye(len(names))])
    values = _Search(_features(candidates, rows, "rrf", rrf_constant), judged, k).values(weights)
    best = int(values.mean(axis=1).argmax())
    name = "rrf" if best == 0 else f"only {names[best - 1]}"
    return name, _Found(float(values[best].mean()), "rrf", weights[best], values[best])


def _given(
    candidates: Candidates, rows: NDArray[np.int64], judged: Judged, k: int, weights: Mapping[str, float]
) -> _Found:
    """Weights from outside, under ``minmax``."""
    chosen = np.array([weights[name] for name in candidates.evidence], np.float64)
    [values] = _Search(_features(candidates, rows, "minmax", RRF_CONSTANT), judged, k).values(chosen[None])
    return _Found(float(values.mean()), "minmax", chosen, values)


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
