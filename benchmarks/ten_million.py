"""Exact search over ten million rows within 8 GB: time, memory, disk and proof, and faiss over the same rows.

Rows are embeddings of shop queries (``--encoder``) with noise: each lies as far from its origin as a real text from its
nearest other. They are written to ``--work`` once (15 GB), then the index (rough rows of eight bits, 4 GB). Searching is
done by processes of their own under a memory limit that counts mapped files too, where control groups can be made.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common import arguments, heading
from topk import embedded, near

K = 100
QUERIES = 200  # that are compared with float64
DIM = 384
_CHUNK = 100_000
_GRAPH = 1_000_000  # rows of HNSW, whose graph takes long to build
_GROUPS = Path("/sys/fs/cgroup/memory")
_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    options = arguments(
        __doc__,
        encoder={"default": "starter", "help": "model folder for the shop queries, or starter"},
        rows={"type": int, "default": 10_000_000, "help": "number of rows"},
        limit={"type": float, "default": 8.0, "help": "GB of memory of each process"},
        faiss={
            "nargs": "*",
            "default": ["flat", "SQ8"],
            "help": "kinds of faiss index: flat, SQ8, HNSW (of a million at most)",
        },
        step={"default": "", "help": "used by this script for the processes that it starts"},
    )
    if options.step:
        result = STEPS[options.step](options)
        result["peak GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(result))
        return
    heading(f"{options.rows:,} rows")
    for step in ("rows", "build", "search", *(f"faiss {kind}" for kind in options.faiss)):
        limit = options.limit if step in ("build", "search") else None
        print(f"{step}: {in_a_process(step, limit)}", flush=True)


def make_rows(options) -> dict:
    """The rows and queries, in ``--work``."""
    if rows_file(options).exists():
        return {"rows": "there"}
    vectors = embedded(options.encoder, 100_000, options)
    seeds, queries = vectors[:-1000], vectors[-1000:]
    sample = seeds[:: len(seeds) // 2000]
    scores = sample @ seeds.T
    scores[scores > 1 - 1e-6] = -1  # itself and its copies
    distances = np.sqrt(2 - 2 * scores.max(axis=1))
    rng = np.random.default_rng(0)
    part = rows_file(options).with_suffix(".part")
    with part.open("wb") as output:
        for start in range(0, options.rows, _CHUNK):
            count = min(_CHUNK, options.rows - start)
            origins = seeds[rng.integers(0, len(seeds), count)]
            output.write(near(rng, origins, rng.choice(distances, count)[:, None]).astype(np.float32).tobytes())
    np.save(options.work + "/large-queries.npy", queries)
    part.rename(rows_file(options))
    return {"distance to the nearest other text, median": round(float(np.median(distances)), 3)}


def rows_file(options) -> Path:
    return Path(options.work) / f"large-{options.rows}.f32"


def index_folder(options) -> Path:
    return Path(options.work) / f"large-{options.rows}"


def rows(options) -> np.ndarray:
    return np.memmap(rows_file(options), np.float32, "r", shape=(options.rows, DIM))


def queries(options) -> np.ndarray:
    return np.load(options.work + "/large-queries.npy")


def in_a_process(step: str, limit: float | None) -> str:
    """What a step printed, run under a limit of so many GB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
    group = _GROUPS / "ecom_rag_benchmark"
    limited = limit is not None and os.access(_GROUPS, os.W_OK) and os.access(_CACHES, os.W_OK)
    if limited:
        os.sync()
        _CACHES.write_text("3")  # what is in memory already would not count
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(int(limit * 1e9)))

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=enter if limited else None)
    if done.returncode:
        return f"ended with {done.returncode} (a limit of memory is -9): {done.stderr.strip()[-300:]}"
    return f"{done.stdout.strip().splitlines()[-1]}{f', limited to {limit} GB' if limited else ''}"


def build(options) -> dict:
    """The index of the rows, saved as a bank saves it."""
    from ecom_rag.retrieval import DenseIndex
    from ecom_rag.retrieval.dense_rough import kind_of

    started = time.perf_counter()
    arrays = DenseIndex(rows(options)).arrays()
    seconds = time.perf_counter() - started
    index_folder(options).mkdir(exist_ok=True)
    for name, array in arrays.items():
        if name != "vectors":
            np.save(index_folder(options) / f"{name}.npy", array)
    saved = sum(file.stat().st_size for file in index_folder(options).iterdir())
    return {
        "rough": kind_of(arrays),
        "s": round(seconds, 1),
        "s with saving": round(time.perf_counter() - started, 1),
        "GB on disk": round((saved + rows_file(options).stat().st_size) / 1e9, 2),
    }


def search(options) -> dict:
    """One query and 64, and proof against float64."""
    from ecom_rag.retrieval import DenseIndex

    started = time.perf_counter()
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in index_folder(options).iterdir()}
    index = DenseIndex.from_arrays(arrays | {"vectors": rows(options)})
    asked = queries(options)
    index.search(asked[:1], K)
    first = time.perf_counter() - started
    result = {"s to the first result": round(first, 1)} | timed(lambda part: index.search(part, K), asked)
    found = [index.search(asked[start : start + 50], K).rows for start in range(0, QUERIES, 50)]
    result["equal to float64"] = equal(np.concatenate(found), asked[:QUERIES], rows(options))
    return result


def timed(call, asked: np.ndarray) -> dict:
    """Medians for one query and 64, each on queries that were not asked before."""
    ones, many = [], []
    for number in range(300, 331):
        started = time.perf_counter()
        call(asked[number : number + 1])
        ones.append(time.perf_counter() - started)
    for number in range(400, 720, 64):
        started = time.perf_counter()
        call(asked[number : number + 64])
        many.append(time.perf_counter() - started)
    one, all_64 = (1e3 * statistics.median(seconds[1:]) for seconds in (ones, many))
    return {"ms for one": round(one), "ms for 64": round(all_64), "ms each of 64": round(all_64 / 64, 1)}


def equal(found: np.ndarray, asked: np.ndarray, seeds: np.ndarray) -> str:
    """How many queries have the neighbours of float64, where scores closer than 1e-6 to the last count as ties."""
    best = np.full((len(asked), K), -np.inf)
    own = np.empty(found.shape)
    wide = asked.astype(np.float64)
    for number, ids in enumerate(found):
        own[number] = seeds[np.sort(ids)].astype(np.float64) @ wide[number]
    for start in range(0, len(seeds), _CHUNK // 2):
        scores = wide @ seeds[start : start + _CHUNK // 2].astype(np.float64).T
        together = np.concatenate([best, scores], axis=1)
        best = -np.partition(-together, K - 1, axis=1)[:, :K]
    right = np.abs(np.sort(own, axis=1) - np.sort(best, axis=1)).max(axis=1) < 1e-6
    distinct = np.array([len(set(ids.tolist())) == K for ids in found])
    return f"{int((right & distinct).sum())} of {len(asked)}"


def with_faiss(kind: str, options) -> dict:
    """A faiss index of the rows (HNSW: of a million at most), its times, and the share of the exact neighbours it finds."""
    import faiss

    seeds = rows(options)[: _GRAPH if kind == "HNSW" else None]
    asked = queries(options)
    started = time.perf_counter()
    if kind == "HNSW":
        index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.index_factory(DIM, {"flat": "Flat", "SQ8": "SQ8"}[kind], faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(seeds[:_CHUNK]))
    for start in range(0, len(seeds), _CHUNK):
        index.add(np.ascontiguousarray(seeds[start : start + _CHUNK]))
    if kind == "HNSW":
        index.hnsw.efSearch = 2 * K
    result = {"rows": len(seeds), "s to build": round(time.perf_counter() - started, 1)}
    result |= timed(lambda part: index.search(part, K), asked)
    few = asked[:50]
    scores = np.concatenate([few @ seeds[at : at + _CHUNK].T for at in range(0, len(seeds), _CHUNK)], axis=1)
    exact = np.argpartition(-scores, K - 1, axis=1)[:, :K]
    found = index.search(few, K)[1]
    shares = [len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(exact, found, strict=True)]
    return result | {f"recall@{K}": round(statistics.mean(shares), 4)}


STEPS = {"rows": make_rows, "build": build, "search": search} | {
    f"faiss {kind}": lambda options, kind=kind: with_faiss(kind, options) for kind in ("flat", "SQ8", "HNSW")
}

if __name__ == "__main__":
    main()
