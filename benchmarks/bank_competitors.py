"""LanceDB with the bank benchmark's documents and vectors: one route (exact dense), with and without the filter.

Run by ``bank.py`` under an interpreter of its own, since its dependencies need not suit the toolkit's.
"""

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

DIMENSION = 384
FILTER = "label = 'fraud' AND (price < 100 OR brand IN ('b1', 'b2')) AND NOT seller.vip"


def units(rng: np.random.Generator, rows: int) -> np.ndarray:
    x = rng.standard_normal((rows, DIMENSION), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def milliseconds(calls) -> str:
    values = []
    for call in calls:
        start = time.perf_counter()
        call()
        values.append(1e3 * (time.perf_counter() - start))
    return f"p50 {statistics.median(values):.1f} ms, p95 {np.quantile(values, 0.95):.1f} ms"


def main() -> None:
    import lancedb
    import pyarrow as pa

    work, rows = Path(sys.argv[1]), int(sys.argv[2])
    with (work / "documents.jsonl").open(encoding="utf-8") as source:
        documents = [json.loads(line) for line in source]
    rng = np.random.default_rng(0)

    def table_of(part: list[dict], vectors: np.ndarray) -> pa.Table:
        columns = {key: [d["metadata"][key] for d in part] for key in ("id", "label", "price", "brand", "seller")}
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
        return pa.table({**columns, "text": [d["text"] for d in part], "vector": fixed})

    def query(filter: str | None = None, wanted: str | None = None) -> None:
        search = table.search(vector).distance_type("dot").limit(100)
        found = (search.where(filter, prefilter=True) if filter else search).to_arrow()
        if wanted is not None:
            assert wanted in found["id"].to_pylist()

    print(f"\n| LanceDB {lancedb.__version__}, dense route alone, exact | |\n|---|---|")
    folder = work / "lance"
    start = time.perf_counter()
    lancedb.connect(folder).create_table("seeds", table_of(documents[:rows], units(rng, rows)))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    print(f"| write {rows:,} rows | {time.perf_counter() - start:.1f} s |\n| on disk | {size:.0f} MB |")
    start = time.perf_counter()
    table = lancedb.connect(folder).open_table("seeds")
    vector = units(rng, 1)[0]
    query()
    print(f"| reopen and first query | {time.perf_counter() - start:.2f} s |")
    print(f"| one query, 100 rows back | {milliseconds(query for _ in range(50))} |")
    print(f"| with the nested filter | {milliseconds(lambda: query(FILTER) for _ in range(50))} |", flush=True)

    def upsert(number: int) -> None:
        new = table_of(documents[rows + number : rows + number + 1], vector[None])
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(new)

    print(f"| one-record upsert (merge_insert) | {milliseconds(lambda n=n: upsert(n) for n in range(20))} |")
    print(
        f"| upsert and the search that finds it | {milliseconds(lambda n=n: (upsert(n), query(wanted=f's{rows + n}')) for n in range(20, 40))} |"
    )
    print(f"| peak memory | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
