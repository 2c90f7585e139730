"""Exact top-100 of inner products against faiss, and neighbour sets against float64 brute force."""

import numpy as np

from common import arguments, heading, in_turn

K = 100


def vectors(rng: np.random.Generator, rows: int, clustered: bool) -> np.ndarray:
    """Unit rows of 384 dimensions: white noise, or clusters with a common direction, as embeddings of texts are."""
    x = rng.standard_normal((rows, 384), dtype=np.float32)
    if clustered:
        centres = np.random.default_rng(7).standard_normal((2000, 384), dtype=np.float32)
        x = (
            0.6 * x
            + centres[rng.integers(0, 2000, rows)]
            + 1.5 * np.float32(np.random.default_rng(8).standard_normal(384))
        )
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main() -> None:
    options = arguments(__doc__)
    heading("Exact top-100")
    import faiss

    from ecom_rag.retrieval import DenseIndex

    print(
        "| rows | vectors | queries | ours ms | faiss knn ms | IndexFlatIP ms | vs knn | sets equal to float64 |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for rows in (200_000, 1_000_000):
        for clustered in (False, True):
            rng = np.random.default_rng(0)
            seeds, queries = vectors(rng, rows, clustered), vectors(rng, 1000, clustered)
            index, flat = DenseIndex(seeds), faiss.IndexFlatIP(384)
            flat.add(seeds)
            for count in (1, 1000):
                asked = queries[:count]
                seconds = in_turn(
                    {
                        "ours": lambda a=asked: index.search(a, K),
                        "knn": lambda a=asked: faiss.knn(a, seeds, K, metric=faiss.METRIC_INNER_PRODUCT),
                        "flat": lambda a=asked: flat.search(a, K),
                    },
                    max(options.rounds, 15) if count == 1 else options.rounds,
                )
                same = equal_sets(index.search(asked[:100], K), asked[:100], seeds)
                print(
                    f"| {rows:,} | {'clustered' if clustered else 'white noise'} | {count} | {1e3 * seconds['ours']:.1f} "
                    f"| {1e3 * seconds['knn']:.1f} | {1e3 * seconds['flat']:.1f} "
                    f"| **{seconds['knn'] / seconds['ours']:.1f}x** | {same} |",
                    flush=True,
                )


def equal_sets(found, queries: np.ndarray, seeds: np.ndarray) -> str:
    """How many queries have the neighbours of float64, where scores closer than 1e-6 to the last count as ties."""
    equal = 0
    for ids, query in zip(found.rows, queries, strict=True):
        scores = np.concatenate(
            [
                seeds[start : start + 50_000].astype(np.float64) @ query.astype(np.float64)
                for start in range(0, len(seeds), 50_000)
            ]
        )
        last = np.partition(scores, len(scores) - K)[len(scores) - K]
        equal += bool((scores[ids] >= last - 1e-6).all() and set(np.flatnonzero(scores > last + 1e-6)) <= set(ids))
    return f"{equal} of {len(queries)}"


if __name__ == "__main__":
    main()
