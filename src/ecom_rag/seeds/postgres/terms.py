"""Terms of texts in the server's tables: their numbers, and in how many documents each is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.seeds.remote.state import Texts
from ecom_rag.seeds.remote.terms import Counts, Side


def known(db: Any, route: str, names: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of terms, -1 for one that there is not, and in how many documents each is.

    Args:
        db: In a transaction.
        route: Over texts.
        names: Each once.
    """
    found = np.full((len(names), 2), (-1, 0), np.int64)
    query = (
        f"SELECT place, number, documents FROM unnest(%s::bytea[]) WITH ORDINALITY AS asked (term, place)"
        f" JOIN {route}_terms USING (term)"
    )
    for place, *both in db.execute(query, (list(names),)) if names else ():
        found[place - 1] = both
    return found[:, 0], found[:, 1]


def counted(db: Any, side: Side, counts: Counts, state: Texts) -> NDArray[np.int64]:
    """Count texts that are written now; the numbers of their terms, new ones for those that there were not.

    Args:
        db: In a write transaction.
        side: The route.
        counts: Of the texts.
        state: Brought up to date.
    """
    _add(db, side.route, counts, 1)
    numbers, _ = known(db, side.route, counts.names)
    new = np.flatnonzero(numbers < 0)
    numbers[new] = np.arange(state.numbers, state.numbers + len(new))
    frequencies = np.diff(counts.level.starts)[new]
    db.execute(
        f"INSERT INTO {side.route}_terms SELECT * FROM unnest(%s::bytea[], %s::int[], %s::int[])",
        ([counts.names[place] for place in new.tolist()], numbers[new].tolist(), frequencies.tolist()),
    )
    state.numbers += len(new)
    state.terms += int(counts.lengths.sum())
    return numbers


def discounted(db: Any, side: Side, counts: Counts, state: Texts) -> None:
    """Count texts no more that are removed now.

    Args:
        db: In a write transaction.
        side: The route.
        counts: Of the texts.
        state: Brought up to date.
    """
    _add(db, side.route, counts, -1)
    state.terms -= int(counts.lengths.sum())


def _add(db: Any, route: str, counts: Counts, sign: int) -> None:
    frequencies = np.diff(counts.level.starts) * sign
    db.execute(
        f"UPDATE {route}_terms SET documents = documents + more FROM unnest(%s::bytea[], %s::int[]) AS new (name, more)"
        " WHERE term = name",
        (counts.names, frequencies.tolist()),
    )
