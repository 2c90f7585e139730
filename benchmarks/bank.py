"""The seed bank at 200,000 documents: build, disk, memory, reopening, fused queries with filters, single upserts.

Vectors are random unit rows of 384 dimensions, put in place of those of the starter, whose encoding is really done and
timed. Beside it, where ``--competitor-python`` names an interpreter that has it: LanceDB, exact search of one route.
"""

import gzip
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common import arguments, heading

DIMENSION = 384
FILTER = 'label = "fraud" and (price < 100 or brand in ("b1", "b2")) and not seller.vip = true'


def documents(data: str, count: int) -> list[dict]:
    """Short Chinese texts: real queries and titles, with suffixes where there are not enough of them."""
    found = []
    for name, file in (("taobao_titles_zh", "titles"), ("taobao_queries_zh", "queries")):
        with gzip.open(Path(data) / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as source:
            found += [json.loads(line)["text"] for line in source]
    chance = random.Random(0)
    labels = ["fraud", "spam", "illegal", "claims", "fine", "other"]
    return [
        {
            "text": found[n] if n < len(found) else f"{found[n % len(found)]} {chance.choice('甲乙丙丁')}{n}",
            "metadata": {
                "id": f"s{n}",
                "label": chance.choice(labels),
                "price": round(chance.random() * 200, 2),
                "brand": f"b{chance.randrange(50)}",
                "seller": {"vip": chance.random() < 0.3, "level": chance.randrange(6)},
            },
        }
        for n in range(count)
    ]


def units(rng: np.random.Generator, rows: int) -> np.ndarray:
    x = rng.standard_normal((rows, DIMENSION), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class Timed:
    """The starter, its seconds summed up, its vectors replaced by random ones."""

    def __init__(self) -> None:
        from ecom_rag import Encoder

        self._encoder = Encoder.from_pretrained("starter")
        self._rng = np.random.default_rng(0)
        self.seconds = 0.0
        for name in ("fingerprint", "settings", "checkpoint", "check_outputs"):
            setattr(self, name, getattr(self._encoder, name))

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        """Random unit rows, after the starter's work was done."""
        from ecom_rag.models.embeddings import Embeddings

        start = time.perf_counter()
        self._encoder.encode(texts, side=side, outputs=outputs)
        self.seconds += time.perf_counter() - start
        return Embeddings(dense=units(self._rng, len(texts)))


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def build(bank: Path, data: str, rows: int, routes: str) -> None:
    from ecom_rag.seeds import bank as banks

    seeds, encoder = documents(data, rows), Timed()
    before = peak()
    start = time.perf_counter()
    settings = banks.BankSettings(routes.split(","), index_keys=("label", "price", "brand"))
    banks.build(bank, seeds, settings, encoder=encoder, model="starter")
    total = time.perf_counter() - start
    parts = {
        name: sum(f.stat().st_size for f in bank.glob(p)) / 1e6
        for name, p in (("record", "bank.db*"), ("indexes", "indexes/*/*"))
    }
    print(
        f"| build | {total:.1f} s, of it encoding {encoder.seconds:.1f} s: **{total / encoder.seconds:.2f}x** |\n"
        f"| peak memory of building | {peak()} ({before} before it began: the model and the records) |\n"
        f"| on disk | {sum(parts.values()):.0f} MB ({', '.join(f'{k} {v:.0f}' for k, v in parts.items())}) |",
        flush=True,
    )


def milliseconds(calls) -> str:
    values = []
    for call in calls:
        start = time.perf_counter()
        call()
        values.append(1e3 * (time.perf_counter() - start))
    return f"p50 {statistics.median(values):.1f} ms, p95 {np.quantile(values, 0.95):.1f} ms"


def use(bank: Path, data: str, rows: int, routes: str) -> None:
    from ecom_rag.models.embeddings import Embeddings
    from ecom_rag.retrieval.fusion import fuse
    from ecom_rag.seeds.bank import SeedBank

    names = routes.split(",")
    seeds = documents(data, rows)
    rng, chance = np.random.default_rng(1), random.Random(1)
    asked = [(chance.choice(seeds)["text"], row[None]) for row in units(rng, 300)]
    fresh = documents(data, rows + 300)[rows:]
    base = peak()
    start = time.perf_counter()
    opened = SeedBank.open(bank)
    opened.refresh()
    first = time.perf_counter() - start
    opened.close()
    start = time.perf_counter()
    opened = SeedBank.open(bank)
    opened.refresh()
    second = time.perf_counter() - start
    print(
        f"| reopen in a new process, until the first search can run | **{first:.2f} s**, of it {first - second:.2f} s to load "
        f"torch and other libraries |",
        flush=True,
    )

    def query(number: int, filter: str | None = None, wanted: str | None = None) -> None:
        text, vector = asked[number % len(asked)]
        with opened.view() as view:
            allowed = view.rows(filter)
            found = {
                name: view.index(name).search(vector if name == "dense" else [text], 100, allowed=allowed)
                for name in names
            }
            top = fuse(found, k=10)
            records = view.records([row for row in top.rows[0].tolist() if row >= 0])
        if wanted is not None:
            assert any(record["metadata"]["id"] == wanted for record in records), wanted

    start = time.perf_counter()
    query(0)
    print(f"| first query, with compiling or loading kernels | {time.perf_counter() - start:.2f} s |")
    for n in range(5):
        query(n)

    def changing(n: int) -> str:
        return f"{FILTER} and price != {n}.001"

    print(
        f"| {' + '.join(names)}, 100 each, fused, 10 records back | **{milliseconds(lambda n=n: query(n) for n in range(200))}** |",
        flush=True,
    )
    start = time.perf_counter()
    query(0, FILTER)
    print(f"| the same with a nested filter, its first use | {1e3 * (time.perf_counter() - start):.1f} ms |")
    print(f"| the same filter again | **{milliseconds(lambda n=n: query(n, FILTER) for n in range(200))}** |")
    print(
        f"| another nested filter each time | {milliseconds(lambda n=n: query(n, changing(n)) for n in range(50))} |",
        flush=True,
    )

    def upsert(n: int) -> None:
        opened.upsert([fresh[n]], embeddings=Embeddings(dense=asked[n][1]), fingerprint=opened.model.fingerprint)

    print(
        f"| one-record upsert, fsynced, encoding not counted | **{milliseconds(lambda n=n: upsert(n) for n in range(100))}** |"
    )

    def both(n: int) -> None:
        upsert(n)
        asked[n] = (fresh[n]["text"], asked[n][1])
        query(n, wanted=fresh[n]["metadata"]["id"])

    print(f"| upsert and the search that finds it | {milliseconds(lambda n=n: both(n) for n in range(100, 200))} |")
    print(
        f"| upsert and a search with the nested filter | {milliseconds(lambda n=n: (upsert(n), query(n, FILTER)) for n in range(200, 300))} |"
    )
    print(
        f"| peak memory of the searching process | {peak()} ({base} before opening: imports and the benchmark's records) |",
        flush=True,
    )
    opened.close()


def main() -> None:
    options = arguments(
        __doc__,
        rows={"type": int, "default": 200_000},
        routes={"default": "bm25,dense,variant"},
        competitor_python={"default": "", "help": "interpreter that has lancedb"},
        phase={"default": "", "help": "for the benchmark itself"},
    )
    work = Path(options.work) / "bank"
    if options.phase:
        {"build": build, "use": use}[options.phase](work / "bank", options.data, options.rows, options.routes)
        return
    heading(f"Seed bank of {options.rows:,} x {DIMENSION}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print("| ecom_rag SeedBank | |\n|---|---|", flush=True)
    for phase in ("build", "use"):  # in processes of their own, for their peak memory
        command = [sys.executable, __file__, "--phase", phase, "--data", options.data, "--work", options.work]
        subprocess.run([*command, "--rows", str(options.rows), "--routes", options.routes], check=True)
    if options.competitor_python:
        with (work / "documents.jsonl").open("w", encoding="utf-8") as sink:
            for document in documents(options.data, options.rows + 300):
                sink.write(json.dumps(document, ensure_ascii=False) + "\n")
        script = str(Path(__file__).with_name("bank_competitors.py"))
        subprocess.run([options.competitor_python, script, str(work), str(options.rows)], check=True)


if __name__ == "__main__":
    main()
