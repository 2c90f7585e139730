"""The seed bank: build, disk, memory, reopening, fused queries with filters, single upserts.

``--seeds 200000`` or ``--seeds 1000000``. The starter encodes the texts. With ``--vectors FILE.npy`` its vectors are
handed out in place of encoding, with some noise, so that what a build costs beyond it shows, and a million takes
minutes: the time that encoding would take is then estimated from the first texts. Beside it, where
``--competitor-python`` names an interpreter that has it: LanceDB, exact search of one route.
"""

import argparse
import gzip
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from common import arguments, heading

DIMENSION = 384
SAMPLE = 20_000  # texts that tell how fast encoding is on its own
QUERIES = 200
FILTER = 'label = "fraud" and (price < 100 or brand in ("b1", "b2")) and not seller.vip = true'


def documents(data: str, count: int) -> Iterator[dict]:
    """Short Chinese texts: real queries and titles, with suffixes where there are not enough of them."""
    found = texts_of(data)
    chance = random.Random(0)
    labels = ["fraud", "spam", "illegal", "claims", "fine", "other"]
    for n in range(count):
        yield {
            "text": found[n] if n < len(found) else f"{found[n % len(found)]} {chance.choice('甲乙丙丁')}{n}",
            "metadata": {
                "id": f"s{n}",
                "label": chance.choice(labels),
                "price": round(chance.random() * 200, 2),
                "brand": f"b{chance.randrange(50)}",
                "seller": {"vip": chance.random() < 0.3, "level": chance.randrange(6)},
            },
        }


def texts_of(data: str) -> list[str]:
    """Titles and queries of a shop."""
    found = []
    for name, file in (("taobao_titles_zh", "titles"), ("taobao_queries_zh", "queries")):
        with gzip.open(Path(data) / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as source:
            found += [json.loads(line)["text"] for line in source]
    return found


class Timed:
    """The starter, with its seconds and texts summed up; or vectors that are known, handed out one after the other."""

    def __init__(self, vectors: str) -> None:
        from ecom_rag import Encoder

        self._encoder = Encoder.from_pretrained("starter")
        self._vectors = np.load(vectors, mmap_mode="r") if vectors else None
        self._rng = np.random.default_rng(0)
        self.seconds, self.texts = 0.0, 0
        for name in ("fingerprint", "settings", "checkpoint", "check_outputs"):
            setattr(self, name, getattr(self._encoder, name))

    def alone(self, texts: list[str]) -> float:
        """Seconds per text of encoding with nothing beside it."""
        self._encoder.encode(texts[:1000])
        start = time.perf_counter()
        self._encoder.encode(texts)
        return (time.perf_counter() - start) / len(texts)

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        """The vectors of texts."""
        from ecom_rag.models.embeddings import Embeddings

        start = time.perf_counter()
        if self._vectors is None:
            found = self._encoder.encode(texts, side=side, outputs=outputs)
        else:
            rows = (self.texts + np.arange(len(texts))) % len(self._vectors)
            found = Embeddings(dense=noisy(self._vectors[rows], self._rng))
        self.seconds += time.perf_counter() - start
        self.texts += len(texts)
        return found


def noisy(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit rows near others."""
    found = vectors + 0.01 * rng.standard_normal(vectors.shape, dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


class Anonymous:
    """The most memory of a block that is no page of a file, in MB; looked at four times per second (Linux)."""

    def __enter__(self) -> "Anonymous":
        self.most = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.25):
            lines = Path("/proc/self/status").read_text().splitlines()
            self.most = max(self.most, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")))


def build(bank: Path, options: argparse.Namespace) -> None:
    from ecom_rag.seeds import bank as banks

    encoder = Timed(options.vectors)
    sample = [document["text"] for document in documents(options.data, min(options.seeds, SAMPLE))]
    alone = options.seeds * encoder.alone(sample)
    before = peak()
    start, processor = time.perf_counter(), time.process_time()
    settings = banks.BankSettings(options.routes.split(","), index_keys=("label", "price", "brand"))
    with Anonymous() as memory:
        banks.build(bank, documents(options.data, options.seeds), settings, encoder=encoder, model="starter")
    total, processor = time.perf_counter() - start, time.process_time() - processor
    parts = {
        name: sum(f.stat().st_size for f in bank.glob(p)) / 1e6
        for name, p in (("record", "bank.db*"), ("indexes", "indexes/*/*"))
    }
    if options.vectors:
        told = f"{total - encoder.seconds:.1f} s beyond encoding, which would take {alone:.0f} s alone"
        ratio = f"at most {(alone + total - encoder.seconds) / alone:.2f}x (nothing overlapped)"
    else:
        told = f"{total:.1f} s; encoding alone {alone:.0f} s, {encoder.seconds:.0f} s beside the rest"
        ratio = f"{total / alone:.2f}x"
    print(
        f"| build | {told}: **{ratio}** |\n"
        f"| processor time of the build | {processor:.1f} s, encoding included |\n"
        f"| peak memory of building | {peak()}, of it no pages of files {memory.most:.0f} MB ({before} before it) |\n"
        f"| on disk | {sum(parts.values()):.0f} MB ({', '.join(f'{k} {v:.0f}' for k, v in parts.items())}) |",
        flush=True,
    )


def asked_of(options: argparse.Namespace) -> list[tuple[str, np.ndarray]]:
    """Real queries with their vectors."""
    found = texts_of(options.data)
    random.Random(1).shuffle(found)
    texts = found[:300]
    if options.vectors:
        rng = np.random.default_rng(1)
        known = np.load(options.vectors, mmap_mode="r")
        vectors = noisy(known[rng.integers(0, len(known), len(texts))], rng)
    else:
        from ecom_rag import Encoder

        vectors = Encoder.from_pretrained("starter").encode(texts, side="query").dense
    return [(text, row[None]) for text, row in zip(texts, vectors, strict=True)]


def milliseconds(calls) -> str:
    values = []
    for call in calls:
        start = time.perf_counter()
        call()
        values.append(1e3 * (time.perf_counter() - start))
    return f"p50 {statistics.median(values):.1f} ms, p95 {np.quantile(values, 0.95):.1f} ms"


def use(bank: Path, options: argparse.Namespace) -> None:
    from ecom_rag.models.embeddings import Embeddings
    from ecom_rag.retrieval.fusion import fuse
    from ecom_rag.seeds.bank import SeedBank

    names = options.routes.split(",")
    asked = asked_of(options)
    fresh = list(islice(documents(options.data, options.seeds + 300), options.seeds, None))
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
        f"| {' + '.join(names)}, 100 each, fused, 10 records back | **{milliseconds(lambda n=n: query(n) for n in range(QUERIES))}** |",
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
        seeds={"type": int, "default": 200_000},
        vectors={"default": "", "help": "vectors of 384 dimensions (.npy) to hand out in place of encoding"},
        routes={"default": "bm25,dense,variant"},
        competitor_python={"default": "", "help": "interpreter that has lancedb"},
        phase={"default": "", "help": "for the benchmark itself"},
    )
    work = Path(options.work) / "bank"
    if options.phase:
        {"build": build, "use": use}[options.phase](work / "bank", options)
        return
    heading(f"Seed bank of {options.seeds:,} x {DIMENSION}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print("| ecom_rag SeedBank | |\n|---|---|", flush=True)
    for phase in ("build", "use"):  # in processes of their own, for their peak memory
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--phase", phase], check=True)
    if options.competitor_python:
        with (work / "documents.jsonl").open("w", encoding="utf-8") as sink:
            for document in documents(options.data, options.seeds + 300):
                sink.write(json.dumps(document, ensure_ascii=False) + "\n")
        script = str(Path(__file__).with_name("bank_competitors.py"))
        subprocess.run([options.competitor_python, script, str(work), str(options.seeds)], check=True)


if __name__ == "__main__":
    main()
