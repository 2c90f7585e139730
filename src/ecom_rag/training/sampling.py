"""Batches of row numbers for unbalanced data: balanced over classes and files, near-duplicates capped.

An epoch is planned as a whole from the seed and its number, so that each guarantee below holds by construction and a
resumed run draws what an uninterrupted one would have drawn. In: labels, sources and groups as arrays with one entry a
row. Out: ``Batches``, which yields lists of row numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.training.batches import Batches, Planner
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
    _check(
        p >= 2 and k >= 1 and duplicate_cap >= 1,
        f"classes_per_batch {p}, texts_per_class {k}, duplicate_cap {duplicate_cap}; expected at least 2, 1, 1",
    )
    _check(p % world == 0, f"classes_per_batch {p} cannot be shared by {world} processes; take a multiple of {world}")
    label, label_names = _classes(labels, "labels")
    source, source_names = _numbers(np.zeros(len(label)) if sources is None else sources, "sources", len(label))
    keys, classes = np.unique(source * len(label_names) + label, return_inverse=True)
    class_source = keys // len(label_names)
    names = [label_names[key % len(label_names)] for key in keys]
    if sources is not None:
        names = [f"{source_names[s]}/{name}" for s, name in zip(class_source, names, strict=True)]
    pools = [np.flatnonzero(class_source == number) for number in range(len(source_names))]
    for pool, name in zip(pools, source_names, strict=True):
        where = f"source {name}" if sources is not None else "the data"
        _check(len(pool) >= p, f"{where}: {len(pool)} classes cannot fill batches of {p}; lower classes_per_batch")
    class_parents = None if parents is None else _parents(parents, classes, names)

    def cycles() -> Cycles:
        random = np.random.default_rng([seed, 2**32 - 1])
        return Cycles(classes, block=k, duplicates=duplicates, cap=duplicate_cap, random=random)

    sizes = cycles().sizes
    least = np.array([-(-len(pool) // p) for pool in pools])
    wanted = batches if batches is not None else max(-(-int(sizes.sum()) // (p * k)), int(least.sum()))
    _check(
        wanted >= least.sum(),
        f"{wanted} batches of {p} classes cannot show each of {len(sizes)} classes; expected"
        f" at least {least.sum()} batches an epoch",
    )
    pool_weights = np.array([float(sizes[pool].sum()) ** source_alpha for pool in pools])

    def new_planner() -> Planner:
        texts = cycles()

        def table(pool: Integers, count: int, random: np.random.Generator) -> Integers:
            draws = apportion(sizes[pool].astype(np.float64) ** alpha, count * p, random=random, most=count)
            if class_parents is None:
                return pool[spread(draws, count, p, random)]
            _, own = np.unique(class_parents[pool], return_inverse=True)
            return pool[spread_by_parent(draws, own, count, p, parents_per_batch, random)]

        def planner(random: np.random.Generator) -> Integers:
            counts = apportion(pool_weights, wanted, random=random, least=least)
            tables = [table(pool, int(count), random) for pool, count in zip(pools, counts, strict=True)]
            drawn = np.concatenate(tables)[random.permutation(wanted)].ravel()  # classes, slot after slot
            times = np.bincount(drawn, minlength=len(sizes))
            blocks = [texts.take(number, int(count) * k, random) for number, count in enumerate(times)]
            rows = np.empty((len(drawn), k), np.int64)
            rows[np.argsort(drawn, kind="stable")] = np.concatenate(blocks).reshape(-1, k)
            return rows.reshape(wanted, p * k)

        return planner

    return Batches(new_planner, classes, names, source, source_names, batches=wanted, seed=seed, rank=rank, world=world)


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
    _check(rows >= 1, "there are no rows to draw batches from")
    _check(
        batch_size >= 1 and duplicate_cap >= 1,
        f"batch_size {batch_size}, duplicate_cap {duplicate_cap}; expected at least 1",
    )
    _check(
        batch_size % world == 0,
        f"batch_size {batch_size} cannot be shared by {world} processes; take a multiple of {world}",
    )
    label, label_names = _classes(np.zeros(rows) if labels is None else labels, "labels", rows)
    source, source_names = _numbers(np.zeros(rows) if sources is None else sources, "sources", rows)
    keys, cells = np.unique(source * len(label_names) + label, return_inverse=True)
    cell_source = keys // len(label_names)

    def cycles() -> Cycles:
        random = np.random.default_rng([seed, 2**32 - 1])
        return Cycles(cells, block=1, duplicates=duplicates, cap=duplicate_cap, random=random)

    sizes = cycles().sizes
    by_source = [np.flatnonzero(cell_source == number) for number in range(len(source_names))]
    weights: NDArray[np.float64] = sizes.astype(np.float64) ** alpha
    for cell in by_source:  # a source's share of the draws is its own, whatever its classes
        weights[cell] *= float(sizes[cell].sum()) ** source_alpha / weights[cell].sum()
    pools = by_source if one_source else [np.arange(len(sizes))]
    least = np.array([-(-len(pool) // batch_size) for pool in pools])
    wanted = batches if batches is not None else max(-(-int(sizes.sum()) // batch_size), int(least.sum()))
    _check(
        wanted >= least.sum(),
        f"{wanted} batches of {batch_size} rows cannot show each of {len(sizes)} classes;"
        f" expected at least {least.sum()} batches an epoch",
    )
    pool_weights = np.array([weights[pool].sum() for pool in pools])

    def new_planner() -> Planner:
        texts = cycles()

        def planner(random: np.random.Generator) -> Integers:
            tables = []
            counts = apportion(pool_weights, wanted, random=random, least=least)
            for pool, count in zip(pools, counts, strict=True):
                draws = apportion(weights[pool], count * batch_size, random=random)
                shown = [texts.take(int(cell), int(n), random) for cell, n in zip(pool, draws, strict=True)]
                tables.append(random.permutation(np.concatenate(shown)).reshape(count, batch_size))
            return np.concatenate(tables)[random.permutation(wanted)]

        return planner

    return Batches(
        new_planner, label, label_names, source, source_names, batches=wanted, seed=seed, rank=rank, world=world
    )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _numbers(values: ArrayLike, name: str, length: int | None = None) -> tuple[Integers, list[str]]:
    """Values as numbers from 0 in sorted order, and their names."""
    array = np.asarray(values)
    _check(array.ndim == 1 and len(array) > 0, f"{name}: found shape {array.shape}; expected one entry a row")
    _check(length is None or len(array) == length, f"{name}: {len(array)} entries for {length} rows")
    names, numbers = np.unique(array, return_inverse=True)
    return numbers.astype(np.int64), [str(name) for name in names]


def _classes(values: ArrayLike, name: str, length: int | None = None) -> tuple[Integers, list[str]]:
    """As ``_numbers`` for labels: ``1``, ``1.0`` and ``"1"`` are one."""
    numbers, names = _numbers(values, name, length)
    labels = [as_label(one) or "" for one in names]
    _check("" not in labels, f"{name}: an entry is blank; expected a label for every row")
    if len(set(labels)) == len(labels):
        return numbers, labels  # in the order of the values: numbers by size
    distinct, places = np.unique(labels, return_inverse=True)
    return places.astype(np.int64)[numbers], [str(label) for label in distinct]


def _parents(parents: ArrayLike, classes: Integers, names: Sequence[str]) -> Integers:
    """The one parent of each class."""
    numbers, parent_names = _classes(parents, "parents", len(classes))
    found = np.zeros(len(names), np.int64)
    found[classes] = numbers
    odd = np.flatnonzero(found[classes] != numbers)
    if len(odd):
        row = odd[0]
        raise UsageError(
            f"row {row}: class {names[classes[row]]} is in group {parent_names[numbers[row]]} here and in"
            f" {parent_names[found[classes[row]]]} elsewhere; a class has one policy group"
        )
    return found
