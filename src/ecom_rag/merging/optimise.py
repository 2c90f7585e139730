"""Searches that only compare: the best point of a line, and of a box.

A line by a grid, refined by golden sections (Kiefer 1953); a box by a compass search (Kolda, Lewis & Torczon 2003),
which moves one coordinate at a time and halves its step where nothing is gained.
"""

from collections.abc import Callable

import numpy as np

Point = tuple[float, ...]
Key = tuple[float, float]
"""How good a point is; the larger tuple is better."""

DIGITS = 4  # a weight is not searched finer
_GOLDEN = (5**0.5 - 1) / 2


def line_search(
    evaluate: Callable[[float], Key], *, upper: float = 1.0, grid: int = 6, smallest: float = 0.02
) -> float:
    """The best point of ``[0, upper]``: a grid, then golden sections between the neighbours of its best.

    Args:
        evaluate: Larger is better; called once for a point.
        upper: End of the line.
        grid: Points of the grid, both ends included.
        smallest: Width at which to stop.
    """
    known: dict[float, Key] = {}

    def at(value: float) -> Key:
        value = round(value, DIGITS)
        if value not in known:
            known[value] = evaluate(value)
        return known[value]

    points = np.linspace(0, upper, grid).tolist()
    best = max(range(grid), key=lambda i: at(points[i]))
    low, high = points[max(best - 1, 0)], points[min(best + 1, grid - 1)]
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    while high - low > smallest:
        if at(left) >= at(right):
            high, right = right, left
            left = high - _GOLDEN * (high - low)
        else:
            low, left = left, right
            right = low + _GOLDEN * (high - low)
    return max(known, key=lambda value: known[value])


def compass_search(
    evaluate: Callable[[Point], Key], start: Point, *, step: float, smallest: float, upper: float = 1.0
) -> Point:
    """Move one coordinate at a time as long as that gains, then halve the step.

    Args:
        evaluate: Larger is better.
        start: Where to begin.
        step: First step.
        smallest: Step below which to stop.
        upper: Largest coordinate; the smallest is 0.
    """
    point, key = start, evaluate(start)
    while step >= smallest:
        moved = False
        for axis in range(len(point)):
            for sign in (1, -1):
                value = min(upper, max(0.0, point[axis] + sign * step))
                if value == point[axis]:
                    continue
                other = (*point[:axis], value, *point[axis + 1 :])
                found = evaluate(other)
                if found > key:
                    point, key, moved = other, found, True
                    break
        if not moved:
            step /= 2
    return point
