"""How sure a figure is: bootstrap intervals, and paired tests between two runs over the same queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import whole
from ecom_rag.errors import UsageError
from ecom_rag.values import shown

RESAMPLES = 10_000
_CELLS = 4_000_000  # random numbers drawn at a time
_HELD = 32_000_000  # resampled figures held at a time
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two runs.

    Args:
        difference: Second minus first, mean over queries.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        p: Two-sided, of the randomisation test.
        better: Queries on which the second is better.
        worse: Queries on which it is worse.
        equal: Queries on which both are the same.
    """

    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    equal: int


def bootstrap(values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap over queries (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: ``(queries,)``, at least one.
        resamples: Draws of as many queries, with replacement.
        seed: Of the draws, a whole number from 0.

    Returns:
        The mean and the ends of its 95 % interval, in the unit of ``values``.

    Raises:
        UsageError: No figures, or something that is no figure.
    """
    check_draws(resamples, seed)
    return intervals(figures(values, "values")[:, None], resamples=resamples, seed=seed)[0]


def figures(values: Any, name: str) -> NDArray[np.float64]:
    """One figure per query as an array.

    Raises:
        UsageError: None, or something that is no finite number.
    """
    try:
        found = np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != 1 or len(found) == 0 or not np.isfinite(found).all():
        raise UsageError(f"{name} is {shown(values)}; expected one finite number per query, at least one")
    return found


def check_draws(resamples: int, seed: int) -> None:
    """Raise ``UsageError`` unless there can be so many draws."""
    whole(resamples, "resamples")
    whole(seed, "seed", least=0)


def intervals(values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """``bootstrap`` of each column of ``values (queries, measures)``, all over the same draws."""
    means = _means(values, resamples, seed)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    ends = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Interval(*one) for one in ends]


def compare(
    first: NDArray[np.float64], second: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Is the second run better? Paired bootstrap interval and randomisation test (Smucker et al., CIKM 2007).

    Args:
        first: ``(queries,)`` figures of one run.
        second: Those of the other, same queries in the same order.
        resamples: Of each; the smallest p is ``1 / (resamples + 1)``.
        seed: Of the draws, a whole number from 0.

    Returns:
        The mean of ``second - first`` with its 95 % interval (above 0 where the second is better), p, and how many
        queries are better, worse and equal.

    Raises:
        UsageError: No figures, something that is no figure, or two runs of different length.
    """
    check_draws(resamples, seed)
    first, second = figures(first, "first"), figures(second, "second")
    if len(first) != len(second):
        raise UsageError(
            f"first holds {len(first)} figures and second {len(second)}; expected those of one set of"
            " queries, in one order"
        )
    return paired([first[:, None], second[:, None]], [(0, 1)], resamples=resamples, seed=seed)[0][0]


def paired(
    runs: Sequence[NDArray[np.float64]],
    couples: Sequence[tuple[int, int]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[list[Comparison]]:
    """``compare`` of many couples of runs by several measures, over one set of draws.

    The sum of a difference is the difference of the sums, so that the draws are multiplied with each run once and not
    with each couple.

    Args:
        runs: ``(queries, measures)`` each.
        couples: Indices of the first and the second run.
        resamples: Of bootstrap and randomisation.
        seed: Of the draws.

    Returns:
        For each couple its comparison by each measure.
    """
    found: list[list[Comparison]] = [[] for _ in couples]
    width = max(1, _HELD // (resamples * max(len(runs), 1)))  # measures at a time
    for start in range(0, runs[0].shape[1] if couples else 0, width):
        part = [run[:, start : start + width] for run in runs]
        together = np.concatenate(part, axis=1)
        drawn = np.split(_means(together, resamples, seed), len(part), axis=1)
        flipped = np.split(
            np.concatenate([flips @ together for flips in signs(len(together), resamples, seed)]), len(part), axis=1
        )
        for number, (i, j) in enumerate(couples):
            found[number] += _compared(part[j] - part[i], drawn[j] - drawn[i], flipped[j] - flipped[i])
    return found


def _compared(
    difference: NDArray[np.float64], drawn: NDArray[np.float64], flipped: NDArray[np.float64]
) -> list[Comparison]:
    """Comparisons by each measure.

    Args:
        difference: ``(queries, measures)``, second minus first.
        drawn: ``(resamples, measures)`` means of bootstrap resamples of it.
        flipped: ``(resamples, measures)`` sums of it under random signs.
    """
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    low, high = np.where(np.abs(ends) < _ROUNDING, 0.0, ends)  # 0 as a difference of equal sums
    ps = _p(difference, flipped).tolist()
    ways = np.sign(np.round(difference, 12))
    counts = [(ways == way).sum(axis=0).tolist() for way in (1, -1, 0)]
    columns = zip(difference.mean(axis=0).tolist(), low.tolist(), high.tolist(), ps, *counts, strict=True)
    return [Comparison(*one) for one in columns]


def randomisation(difference: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p: how often random signs give a mean at least as far from 0; never 0 itself."""
    flipped = np.concatenate([flips @ difference for flips in signs(len(difference), resamples, seed)])
    return float(_p(difference, flipped))


def _p(difference: NDArray[np.float64], flipped: NDArray[np.float64]) -> NDArray[np.float64]:
    observed = np.abs(difference.sum(axis=0))
    slack = 1e-9 * (1 + np.abs(difference).sum(axis=0))  # sums of the same numbers in another order are the same
    return np.asarray((1 + (np.abs(flipped) >= observed - slack).sum(axis=0)) / (1 + len(flipped)))


def _means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The mean of each column in each bootstrap resample: ``(resamples, columns)``."""
    return np.concatenate([times @ values / len(values) for times in drawn_times(len(values), resamples, seed)])


def holm(ps: list[float]) -> list[float]:
    """Holm's correction for several tests at once (1979): adjusted p, in the order given."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = highest
    return adjusted


def draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Resamples of ``count`` queries: blocks of ``(rows, count)`` indices."""
    rng = np.random.default_rng(seed)
    for rows in _blocks(count, resamples):
        yield rng.integers(0, count, (rows, count))


def drawn_times(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The same resamples as how often each query is drawn: blocks of ``(rows, count)``."""
    for chosen in draws(count, resamples, seed):
        rows = len(chosen)
        places = chosen + np.arange(rows)[:, None] * count
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def signs(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Random signs: blocks of ``(rows, count)``, -1 or 1."""
    rng = np.random.default_rng(seed)
    for rows in _blocks(count, resamples):
        yield rng.integers(0, 2, (rows, count), dtype=np.int8).astype(np.float64) * 2 - 1


def _blocks(count: int, resamples: int) -> Iterator[int]:
    size = max(1, _CELLS // max(count, 1))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
