"""Exact top-100 of inner products against faiss, and neighbour sets against float64 brute force.

Rows that are synthetic, and rows as banks have them: embeddings of shop queries (``--encoder``), near copies of them,
floods of 2,000 near copies, and Chinese texts under a model of English (``--english``), which lie close together. One
kind of rows is in memory at a time; embeddings are made once and kept in ``--work``.
"""

import random
from collections import Counter
from pathlib import Path

import numpy as np

from common import arguments, checkpoint, heading, in_turn, texts

K = 100
QUERIES = 1000
KINDS = (
    "white noise",
    "clustered",
    "shop queries",
    "ten near copies each",
    "50 floods",
    "flood of exact copies",
    "blind",
)


def synthetic(rng: np.random.Generator, rows: int, clustered: bool) -> np.ndarray:
    """Unit rows of 384 dimensions: white noise, or clusters with a common direction, as embeddings of texts are."""
    x = rng.standard_normal((rows, 384), dtype=np.float32)
    if clustered:
        centres = np.random.default_rng(7).standard_normal((2000, 384), dtype=np.float32)
        x *= np.float32(0.6)
        x += centres[rng.integers(0, 2000, rows)]
        x += 1.5 * np.float32(np.random.default_rng(8).standard_normal(384))
    return unit(x)


def unit(x: np.ndarray) -> np.ndarray:
    x /= np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return x


def near(rng: np.random.Generator, rows: np.ndarray, distance: float) -> np.ndarray:
    """Unit rows at about a distance from given ones."""
    moved = rng.standard_normal(rows.shape, dtype=np.float32)
    moved *= np.float32(distance / np.sqrt(rows.shape[1]))
    moved += rows
    return unit(moved)


def embedded(model: str, count: int, options) -> np.ndarray:
    """Embeddings of ``count`` Chinese texts: shop queries, then halves of titles joined; from a file if it exists."""
    file = Path(options.work) / f"topk-{Path(model).name}-{count}.npy"
    if not file.exists():
        from ecom_rag import Encoder

        found = texts(options.data, "taobao_queries_zh", count)
        titles = texts(options.data, "taobao_titles_zh", count) if len(found) < count else []
        rng = random.Random(0)
        while len(found) < count:
            one, other = rng.choice(titles), rng.choice(titles)
            found.append(one[: len(one) // 2] + other[len(other) // 2 :])
        folder = checkpoint(model, options.data, options.work) if model in ("starter", "minilm") else model
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, Encoder.from_pretrained(folder).encode(found).dense)
    return np.load(file)


def rows_and_queries(kind: str, rows: int, options) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a kind, and queries of which none is a row."""
    rng = np.random.default_rng(0)
    if kind in KINDS[:2]:
        return synthetic(rng, rows, kind == KINDS[1]), synthetic(rng, QUERIES, kind == KINDS[1])
    real = {"shop queries": rows, "ten near copies each": rows // 10, "blind": rows}.get(kind, 100_000)
    model = options.english if kind == "blind" else options.encoder
    vectors = embedded(model, real, options)
    seeds, queries = vectors[:-QUERIES], vectors[-QUERIES:].copy()
    if kind == "ten near copies each":
        seeds = near(rng, np.repeat(seeds, 10, axis=0), 0.01)
    if "flood" in kind:  # queries near some of the floods, among others
        of = rng.choice(len(seeds), 50, replace=False)
        queries[:50] = near(rng, seeds[of], 0.1)
        copies = np.repeat(seeds[of], 2000, axis=0)
        seeds = rng.permutation(np.concatenate([seeds, copies if "exact" in kind else near(rng, copies, 0.01)]))
    return seeds, queries


def main() -> None:
    options = arguments(
        __doc__,
        encoder={"default": "starter", "help": "model folder for the shop queries, or starter"},
        english={"default": "minilm", "help": "model folder of a model that knows no Chinese, or minilm"},
        kinds={"nargs": "*", "choices": KINDS, "default": KINDS, "help": "kinds of rows"},
        rows={"type": int, "nargs": "*", "default": [200_000, 1_000_000], "help": "numbers of synthetic rows"},
        blind_rows={"type": int, "default": 200_000, "help": "texts under --english"},
    )
    heading("Exact top-100")
    print(
        "| rows | vectors | queries | ours ms | faiss knn ms | vs knn | searched again: fp32, all rows |"
        " sets equal to float64 |\n|---|---|---|---|---|---|---|---|"
    )
    sizes = {"shop queries": [100_000], "ten near copies each": [1_000_000], "blind": [options.blind_rows]}
    for kind in options.kinds:
        for rows in options.rows if kind in KINDS[:2] else sizes.get(kind, [200_000]):
            measure(kind, *rows_and_queries(kind, rows, options), options.rounds)


def measure(kind: str, seeds: np.ndarray, queries: np.ndarray, rounds: int) -> None:
    """Print the lines of one kind of rows: one query, and all of them."""
    import faiss

    from ecom_rag.retrieval import DenseIndex

    index = DenseIndex(seeds)
    again = count_passes(index)
    for count in (1, QUERIES):
        asked = queries[:count]
        seconds = in_turn(
            {
                "ours": lambda a=asked: index.search(a, K),
                "knn": lambda a=asked: faiss.knn(a, seeds, K, metric=faiss.METRIC_INNER_PRODUCT),
            },
            max(rounds, 15) if count == 1 else rounds,
        )
        again.clear()
        found = index.search(asked, K)
        passes = f"{again['fp32']}, {again['scores']}"
        same = equal_sets(found.rows[:100], asked[:100], seeds)
        print(
            f"| {len(seeds):,} | {kind} | {count} | {1e3 * seconds['ours']:.1f} | {1e3 * seconds['knn']:.1f} "
            f"| **{seconds['knn'] / seconds['ours']:.1f}x** | {passes} | {same} |",
            flush=True,
        )


def count_passes(index) -> Counter:
    """Counts the queries of each pass of an index's searches from now on."""
    counts: Counter = Counter()
    search_tile = index._search_tile

    def counting(queries, which, mask, found, kind, rows=None):
        counts[kind] += len(which)
        return search_tile(queries, which, mask, found, kind, rows)

    index._search_tile = counting
    return counts


def equal_sets(found: np.ndarray, queries: np.ndarray, seeds: np.ndarray) -> str:
    """How many queries have the neighbours of float64, where scores closer than 1e-6 to the last count as ties."""
    scores = np.empty((len(queries), len(seeds)))
    for start in range(0, len(seeds), 20_000):
        part = seeds[start : start + 20_000].astype(np.float64)
        scores[:, start : start + 20_000] = queries.astype(np.float64) @ part.T
    equal = 0
    for ids, own in zip(found, scores, strict=True):
        last = np.partition(own, len(own) - K)[len(own) - K]
        equal += bool((own[ids] >= last - 1e-6).all() and set(np.flatnonzero(own > last + 1e-6)) <= set(ids.tolist()))
    return f"{equal} of {len(queries)}"


if __name__ == "__main__":
    main()
