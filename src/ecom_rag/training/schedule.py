"""The arithmetic of balanced epochs: who is drawn how often, into which batch, and which of its texts come next."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def apportion(
    weights: NDArray[np.float64],
    total: int,
    *,
    random: np.random.Generator,
    least: int | Integers = 1,
    most: int | None = None,
) -> Integers:
    """Whole numbers in proportion to weights, each at least ``least`` and at most ``most``, that sum to ``total``.

    Fractions are rounded by systematic sampling: each number is its exact share rounded up or down, and over many calls
    its mean is the exact share.

    Args:
        weights: ``(n,)`` above 0.
        total: From the sum of ``least`` to ``n * most``.
        random: Decides the rounding.
        least: Floor of each number, one for all or ``(n,)``.
        most: Ceiling of each number; by default ``total``.

    Returns:
        ``(n,)`` int64.
    """
    most = total if most is None else most
    low, high = 0.0, total / weights.min()
    for _ in range(100):  # the scale at which the clipped shares sum to the total
        middle = (low + high) / 2
        if np.clip(weights * middle, least, most).sum() < total:
            low = middle
        else:
            high = middle
    shares = np.clip(weights * high, least, most)
    whole = np.floor(shares + 1e-9)
    order = random.permutation(len(weights))
    marks = np.cumsum(np.maximum(shares - whole, 0)[order])
    missing = total - whole.sum()
    if missing > 0:
        # Rescaled so that rounding errors of the sum do not lose the last one.
        marks = np.floor(np.concatenate([[0.0], marks * (missing / marks[-1])]) + random.random())
        marks[-1] = missing + marks[0]
        whole[order] += np.diff(marks)
    return whole.astype(np.int64)


def spread(draws: Integers, batches: int, per_batch: int, random: np.random.Generator) -> Integers:
    """Classes into batches at random, so that no class is twice in a batch.

    The draws are laid out class by class and cut into ``per_batch`` layers of one slot a batch. Within a layer a class
    has different batches by itself; a class that goes on in the next layer takes batches there that it did not have.

    Args:
        draws: ``(classes,)`` how often each is drawn, at most ``batches``; their sum is ``batches * per_batch``.
        batches: Number of batches.
        per_batch: Classes a batch.
        random: Decides everything else.

    Returns:
        ``(batches, per_batch)`` class numbers, distinct within a row.
    """
    order = random.permutation(len(draws))
    layers = np.repeat(order, draws[order]).reshape(per_batch, batches)
    table = np.empty((batches, per_batch), np.int64)
    for layer, items in enumerate(layers):
        slots = random.permutation(batches)
        if layer and layers[layer - 1, -1] == items[0]:
            taken = table[:, layer - 1] == items[0]
            going_on = int((items == items[0]).sum())
            free = slots[~taken[slots]]
            others = np.concatenate([free[going_on:], slots[taken[slots]]])
            slots = np.concatenate([free[:going_on], random.permutation(others)])
        table[slots, layer] = items
    return random.permuted(table, axis=1)


def spread_by_parent(
    draws: Integers,
    parents: Integers,
    batches: int,
    per_batch: int,
    parents_per_batch: int,
    random: np.random.Generator,
) -> Integers:
    """As ``spread``, but a batch takes its classes from few parents, so that the negatives are near.

    Parents are picked in proportion to the draws they have left, and of a parent the classes with most draws left. A
    batch goes on to further parents only where the picked ones have too few classes. A class whose draws left are as
    many as the batches left is taken first: otherwise the last batches could not hold it.

    Args:
        draws: As in ``spread``.
        parents: ``(classes,)`` the parent of each class, from 0.
        batches: Number of batches.
        per_batch: Classes a batch.
        parents_per_batch: Parents that a batch starts with.
        random: Decides everything else.

    Returns:
        ``(batches, per_batch)`` class numbers, distinct within a row.
    """
    left = draws.copy()
    members = [np.flatnonzero(parents == parent) for parent in range(int(parents.max()) + 1)]
    quota = -(-per_batch // parents_per_batch)
    table = np.empty((batches, per_batch), np.int64)
    for batch in range(batches):
        picked = list(np.flatnonzero(left == batches - batch))
        pending = np.bincount(parents, weights=left)
        with np.errstate(divide="ignore"):
            order = np.argsort(np.log(random.random(len(pending))) / pending)[::-1]  # Efraimidis and Spirakis 2006
        order = order[pending[order] > 0]
        for sweep, parent in [(0, p) for p in order[:parents_per_batch]] + [(1, p) for p in order]:
            if len(picked) >= per_batch:
                break
            room = per_batch - len(picked)
            classes = np.setdiff1d(members[parent][left[members[parent]] > 0], picked)
            best = np.lexsort((random.random(len(classes)), -left[classes]))
            picked += list(classes[best[: min(room, quota) if sweep == 0 else room]])
        left[picked] -= 1
        table[batch] = picked
    return random.permuted(table, axis=1)[random.permutation(batches)]


class Cycles:
    """Each class's texts in an endless order: all of them in random order, then all again in another one.

    A block of ``block`` texts that are drawn together holds no text twice while the class has that many.
    Near-duplicates count as at most ``cap`` texts of their class: each turn shows other ones of them.

    Args:
        classes: ``(rows,)`` the class of each row, from 0, each number used.
        block: Texts drawn together.
        duplicates: ``(rows,)`` near-duplicate group of each row; by default every row is alone.
        cap: Rows of a group that one pass over its class shows.
        seed: Decides which rows of a group share a turn.

    Attributes:
        sizes: ``(classes,)`` texts of one pass.
    """

    def __init__(self, classes: Integers, *, block: int, duplicates: Integers | None, cap: int, seed: int) -> None:
        random = np.random.default_rng([seed, 2**32 - 1])
        groups = np.arange(len(classes)) if duplicates is None else duplicates
        rows = random.permutation(len(classes))
        rows = rows[np.lexsort((groups[rows], classes[rows]))]
        runs = _starts(classes[rows], groups[rows])  # a run: the rows of a group that are in one class
        lengths = np.diff([*runs, len(rows)])
        # A unit is what a pass shows once: a run's rows are dealt to at most cap units, which each show one row a turn.
        slots = (np.arange(len(rows)) - np.repeat(runs, lengths)) % cap
        run_of = np.repeat(np.arange(len(runs)), lengths)
        dealt = np.lexsort((slots, run_of))
        self._rows = rows[dealt]
        self._units = np.append(_starts(run_of[dealt], slots[dealt]), len(rows))
        self.sizes = np.bincount(classes[self._rows[self._units[:-1]]])
        self._first = np.concatenate([[0], np.cumsum(self.sizes)])
        self._block = block
        self._order = np.zeros(len(self._units) - 1, np.int64)
        self._position = self.sizes.copy()  # before the first pass: as if one had just ended
        self._passes = np.full(len(self.sizes), -1)

    def take(self, number: int, count: int, random: np.random.Generator) -> Integers:
        """The next rows of a class.

        Args:
            number: The class.
            count: How many; a multiple of ``block``.
            random: Orders the passes that begin.

        Returns:
            ``(count,)`` row numbers, block after block.
        """
        first, size = self._first[number], self.sizes[number]
        order = self._order[first : first + size]
        units = np.empty(count, np.int64)
        turns = np.empty(count, np.int64)
        done = 0
        while done < count:
            if self._position[number] == size:
                order[:] = first + random.permutation(size)
                begun = done % self._block
                if begun:
                    order[:] = _others_first(order, units[done - begun : done], self._block - begun)
                self._position[number] = 0
                self._passes[number] += 1
            start = self._position[number]
            step = min(count - done, size - start)
            units[done : done + step] = order[start : start + step]
            turns[done : done + step] = self._passes[number]
            self._position[number] += step
            done += step
        lengths = self._units[units + 1] - self._units[units]
        found: Integers = self._rows[self._units[units] + turns % lengths]
        return found


def _starts(*keys: Integers) -> Integers:
    """Where runs of equal keys begin."""
    new = np.ones(len(keys[0]), bool)
    new[1:] = np.logical_or.reduce([np.diff(key) != 0 for key in keys])
    return np.flatnonzero(new)


def _others_first(order: Integers, recent: Integers, needed: int) -> Integers:
    """The order with its first ``needed`` places free of ``recent``, as far as there are others."""
    head = order[~np.isin(order, recent)][:needed]
    return np.concatenate([head, order[~np.isin(order, head)]])
