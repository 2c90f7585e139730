"""The confusion matrix of the votes: which class is taken for which."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.evaluation.labels import Votes

NO_VOTE = "no seeds"
_CLASSES = 20


@dataclass(frozen=True)
class Confusion:
    """Queries by their own class and the class voted for; rows and columns without queries are left out.

    Args:
        gold: Names of the rows: the queries' own classes, most frequent first, then by name.
        predicted: Names of the columns: the classes in the same order, and "no seeds" for queries without a vote.
            Classes beyond the most frequent ones share one row and one column, "7 others".
        counts: ``(rows, columns)`` int64 queries.
        right: ``(rows, columns)``, true where row and column are the same single class.
    """

    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: NDArray[np.int64]
    right: NDArray[np.bool_]


def confusion(votes: Votes, *, most: int = _CLASSES, none: str = NO_VOTE) -> Confusion:
    """Count queries by own class and voted class.

    Args:
        votes: Of at least one query.
        most: Classes with a row and a column of their own.
        none: What the column of those without a vote is called.
    """
    classes = len(votes.classes)
    support = np.bincount(votes.truth, minlength=classes)
    named = np.bincount(votes.predicted[votes.predicted >= 0], minlength=classes)
    order = np.argsort(-support, kind="stable")  # equal ones by name: classes are sorted
    order = order[(support + named)[order] > 0]
    shown, rest = order[:most], order[most:]
    place = np.full(classes + 1, len(shown))
    place[shown] = np.arange(len(shown))
    place[-1] = len(shown) + 1  # where -1, no vote, points
    counts = np.zeros((len(shown) + 2, len(shown) + 2), np.int64)
    np.add.at(counts, (place[votes.truth], place[votes.predicted]), 1)
    names = [*(votes.classes[one] for one in shown), f"{len(rest)} others", none]
    rows, columns = np.flatnonzero(counts.any(axis=1)), np.flatnonzero(counts.any(axis=0))
    return Confusion(
        tuple(names[row] for row in rows),
        tuple(names[column] for column in columns),
        counts[np.ix_(rows, columns)],
        (rows[:, None] == columns) & (rows[:, None] < len(shown)),
    )
