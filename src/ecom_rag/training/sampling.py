"""Batches of row numbers for unbalanced data: balanced over classes and files, near-duplicates capped.

An epoch is planned as a whole from the seed and its number, so that each guarantee below holds by construction and a
resumed run draws what an uninterrupted one would have drawn. In: labels, sources and groups as arrays with one entry a
row. Out: ``Batches``, which yields lists of row numbers.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecom_rag.training.batches import Batches
from ecom_rag.training.cells import Cells, cells_of, check, parents_of
from ecom_rag.training.schedule import Cycles, Integers, apportion, spread, spread_by_parent


def pk_batches(
    labels: ArrayLike,
    *,
    classes_per_batch: int = 16,
    texts_per_class: int = 4,
    alpha: float = 0.5,
    sources: ArrayLike | None = None,
    source_alpha: float = 1.0,
    parents: ArrayLike | None = None,
    parents_per_batch: int = 1,
    duplicates: Integers | None = None,
    duplicate_cap: int = 1,
    batches: int | None = None,
    seed: int = 0,
    rank: int | None = 0,
    world: int = 1,
) -> Batches:
    """Batches of P classes x K texts (Hermans et al. 2017, arXiv:1703.07737), made for losses over labels.

    Guarantees, for every epoch: each class is drawn at least once and at most once a batch; how often follows
    ``size ** alpha``; a class shows all its texts before it shows one again, over epochs too; within a batch no text is
    twice unless its class has fewer than K.

    Args:
        labels: ``(rows,)`` class of each row.
        classes_per_batch: P; a multiple of ``world``.
        texts_per_class: K.
        alpha: 1 draws classes by their size, 0 all alike; 0.5 is square-root sampling (Mahajan et al. 2018,
            arXiv:1805.00932).
        sources: ``(rows,)`` file of each row: then every batch is of one source, and a class is a label within a
            source.
        source_alpha: Batches of a source follow ``its size ** source_alpha``.
        parents: ``(rows,)`` policy group of each row, one per class: then a batch takes its classes from few groups, so
            that its negatives are hard.
        parents_per_batch: How many groups a batch starts with; further ones only fill it up.
        duplicates: ``(rows,)`` near-duplicate groups, see ``near_duplicates``.
        duplicate_cap: Rows of such a group that one pass over its class shows; each pass shows others.
        batches: Global batches an epoch; by default as many as show each text once.
        seed: Equal seeds give equal batches.
        rank: This process; ``None`` yields all ranks' shares in turn, as accelerate's sharding of a sampler expects.
        world: Number of processes; each gets ``P / world`` whole classes of every batch.

    Raises:
        UsageError: Too few classes or batches, or arrays that do not fit each other.
    """
    p, k = classes_per_batch, texts_per_class
    found = f"classes_per_batch {p}, texts_per_class {k}, duplicate_cap {duplicate_cap}"
    check(p >= 2 and k >= 1 and duplicate_cap >= 1, f"{found}; expected at least 2, 1, 1")
    _check_shared("classes_per_batch", p, world)
    cells = cells_of(labels, sources)
    _check_filled(cells, p, by_source=sources is not None)
    group = None if parents is None else parents_of(parents, cells.cells)
    cycles = partial(Cycles, cells.cells.of_row, block=k, duplicates=duplicates, cap=duplicate_cap, seed=seed)
    sizes = cycles().sizes
    shares = np.array([float(sizes[pool].sum()) ** source_alpha for pool in cells.by_source])
    least, wanted = _needed(cells.by_source, sizes, batches, draws=p, texts=k, what="classes")

    def plan(texts: Cycles, random: np.random.Generator) -> Integers:
        tables = []
        counts = apportion(shares, wanted, random=random, least=least)
        for pool, count in zip(cells.by_source, counts.tolist(), strict=True):
            draws = apportion(sizes[pool].astype(np.float64) ** alpha, count * p, random=random, most=count)
            near = None if group is None else np.unique(group[pool], return_inverse=True)[1]
            tables.append(pool[_spread(draws, near, count, p, parents_per_batch, random)])
        return _with_texts(np.concatenate(tables)[random.permutation(wanted)], k, texts, random)

    return Batches(cycles, plan, cells.cells, cells.sources, batches=wanted, seed=seed, rank=rank, world=world)


def row_batches(
    rows: int,
    *,
    batch_size: int = 64,
    labels: ArrayLike | None = None,
    alpha: float = 1.0,
    sources: ArrayLike | None = None,
    source_alpha: float = 1.0,
    one_source: bool = False,
    duplicates: Integers | None = None,
    duplicate_cap: int = 1,
    batches: int | None = None,
    seed: int = 0,
    rank: int | None = 0,
    world: int = 1,
) -> Batches:
    """Batches of single rows (queries with their documents, pairs), balanced over classes and files where asked.

    Guarantees, for every epoch: each class of each source is drawn at least once; how often follows
    ``size ** alpha`` within a source and ``size ** source_alpha`` among sources; a class shows all its rows before it
    shows one again, over epochs too. With the defaults every row is shown once, save what fills the last batch.

    Args:
        rows: Number of rows.
        batch_size: Rows of a global batch; a multiple of ``world``.
        labels: ``(rows,)`` class of each row.
        alpha: 1 draws classes by their size, 0 all alike.
        sources: ``(rows,)`` file of each row.
        source_alpha: 1 draws sources by their size, 0 all alike.
        one_source: Whether every batch is of one source, so that in-batch negatives are of the same kind.
        duplicates: ``(rows,)`` near-duplicate groups.
        duplicate_cap: Rows of such a group that one pass over its class shows; each pass shows others.
        batches: Global batches an epoch; by default as many as show each row once.
        seed: Equal seeds give equal batches.
        rank: As in ``pk_batches``.
        world: As in ``pk_batches``.

    Raises:
        UsageError: Too few batches, or arrays that do not fit each other.
    """
    check(rows >= 1, "there are no rows to draw batches from")
    size = batch_size
    check(size >= 1 and duplicate_cap >= 1, f"batch_size {size}, duplicate_cap {duplicate_cap}; expected at least 1")
    _check_shared("batch_size", size, world)
    cells = cells_of(np.zeros(rows) if labels is None else labels, sources, rows)
    cycles = partial(Cycles, cells.cells.of_row, block=1, duplicates=duplicates, cap=duplicate_cap, seed=seed)
    sizes = cycles().sizes
    weights: NDArray[np.float64] = sizes.astype(np.float64) ** alpha
    for cell in cells.by_source:  # a source's share of the draws is its own, whatever its classes
        weights[cell] *= float(sizes[cell].sum()) ** source_alpha / weights[cell].sum()
    pools = cells.by_source if one_source else [np.arange(len(sizes))]
    shares = np.array([weights[pool].sum() for pool in pools])
    least, wanted = _needed(pools, sizes, batches, draws=size, texts=1, what="rows")

    def plan(texts: Cycles, random: np.random.Generator) -> Integers:
        tables = []
        for pool, count in zip(pools, apportion(shares, wanted, random=random, least=least).tolist(), strict=True):
            draws = apportion(weights[pool], count * size, random=random)
            shown = [texts.take(int(cell), int(n), random) for cell, n in zip(pool, draws, strict=True)]
            tables.append(random.permutation(np.concatenate(shown)).reshape(count, size))
        return np.concatenate(tables)[random.permutation(wanted)]

    return Batches(cycles, plan, cells.classes, cells.sources, batches=wanted, seed=seed, rank=rank, world=world)


def _needed(
    pools: Sequence[Integers], sizes: Integers, batches: int | None, *, draws: int, texts: int, what: str
) -> tuple[Integers, int]:
    """Batches of each pool that show all its cells once, and batches of an epoch.

    A batch has so many ``draws`` (of ``what``) from one pool, and a draw so many ``texts`` of a cell.
    """
    least = np.array([-(-len(pool) // draws) for pool in pools])
    wanted = batches if batches is not None else max(-(-int(sizes.sum()) // (draws * texts)), int(least.sum()))
    check(
        wanted >= least.sum(),
        f"{wanted} batches of {draws} {what} cannot show each of {len(sizes)} classes;"
        f" expected at least {least.sum()} batches an epoch",
    )
    return least, wanted


def _spread(
    draws: Integers, parents: Integers | None, batches: int, p: int, parents_per_batch: int, random: np.random.Generator
) -> Integers:
    if parents is None:
        return spread(draws, batches, p, random)
    return spread_by_parent(draws, parents, batches, p, parents_per_batch, random)


def _with_texts(classes: Integers, k: int, texts: Cycles, random: np.random.Generator) -> Integers:
    """``(batches, P)`` classes to ``(batches, P * K)`` rows of theirs."""
    drawn = classes.ravel()
    times = np.bincount(drawn, minlength=len(texts.sizes))
    blocks = [texts.take(number, int(count) * k, random) for number, count in enumerate(times)]
    rows = np.empty((len(drawn), k), np.int64)
    rows[np.argsort(drawn, kind="stable")] = np.concatenate(blocks).reshape(-1, k)
    return rows.reshape(len(classes), -1)


def _check_shared(name: str, size: int, world: int) -> None:
    check(size % world == 0, f"{name} {size} cannot be shared by {world} processes; take a multiple of {world}")


def _check_filled(cells: Cells, p: int, *, by_source: bool) -> None:
    """Refuse a source with fewer classes than a batch takes."""
    for pool, name in zip(cells.by_source, cells.sources.names, strict=True):
        where = f"source {name}" if by_source else "the data"
        check(len(pool) >= p, f"{where}: {len(pool)} classes cannot fill batches of {p}; lower classes_per_batch")
