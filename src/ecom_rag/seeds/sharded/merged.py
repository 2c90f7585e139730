"""What several shards found for the same queries, as one ranking."""

from collections.abc import Sequence

import numpy as np

from ecom_rag.retrieval.ranking import Ranking


def merged(found: Sequence[Ranking], k: int) -> Ranking:
    """The k best rows of each query: higher first, then the earlier row.

    Args:
        found: Of each shard its own k best or all, in the order of their rows: no row of a shard is behind one of the
            next.
        k: Results per query.

    Returns:
        Rows and scores of width k, with fewer results where there are fewer.
    """
    rows, scores = (np.concatenate([getattr(one, name) for one in found], axis=1) for name in ("rows", "scores"))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # equal scores stay in the order of shards, then of rows
    best, width = Ranking.empty(len(rows), k), order.shape[1]
    best.rows[:, :width], best.scores[:, :width] = (np.take_along_axis(one, order, axis=1) for one in (rows, scores))
    return best
