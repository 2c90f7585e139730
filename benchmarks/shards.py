"""What a shard of a bank takes beside the whole bank: memory, and wall and processor time of the same searches on Ray.

Rows are random vectors of length 1 under texts of random words. Memory is that of a process beyond one that has
searched a bank of a few rows: its own, and what it has touched of mapped files. What the shards find must be what the
whole bank finds.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from common import arguments, heading
from ecom_rag.distribution.ray_actors import RayActors
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.bank import BankSettings, SeedBank, create
from ecom_rag.seeds.sharded.bank import ShardedBank, shards_of

os.environ.setdefault("RAY_worker_niceness", "0")  # of 15, else: on a busy machine they would wait for all others
DIM, K, FEW = 384, 100, 5000
ROUTES = ("dense", "bm25")
_BLOCK = 20_000


def main() -> None:
    options = arguments(
        __doc__,
        rows={"type": int, "default": 400_000, "help": "rows of the bank"},
        shards={"type": int, "default": 4},
        queries={"type": int, "default": 4096},
        step={"default": "", "help": "used by this script for the processes that it starts"},
    )
    if options.step:
        print(json.dumps(STEPS[options.step](options)))
        return
    heading(f"{options.rows:,} rows of {DIM} dimensions, in {options.shards} shards")
    for rows in (FEW, options.rows):
        make(Path(options.work), rows)
    whole, shards = (in_a_process(step) for step in STEPS)
    assert whole["found"] == shards["found"]
    print(
        "| | opened | "
        + " | ".join(f"{options.queries} queries, {route}" for route in ROUTES)
        + " |\n|---|---|---|---|"
    )
    for name, one in (("whole", whole), (f"{options.shards} shards", shards)):
        print(f"| {name} | " + " | ".join(f"{wall:.1f} s, {used:.1f} s" for wall, used in one["seconds"]) + " |")
    print("\n| process | own memory | mapped files |\n|---|---|---|")
    processes = [("whole", whole["memory"]), *((f"shard {n}", own) for n, own in enumerate(shards["memory"], start=1))]
    for name, (own, mapped) in processes:
        print(f"| {name} | {own:.0f} MB | {mapped:.0f} MB |")


def in_a_process(step: str) -> dict:
    """What a step of this script prints."""
    command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def whole(options) -> dict:
    """The bank opened by this process."""
    memories = []
    for rows in (FEW, options.rows):
        began = now()
        bank = SeedBank.open(place(Path(options.work), rows), maintain=False)
        result = searched(bank, options.queries, began)
        memories.append(memory(psutil.Process()))
    return {**result, "memory": [b - a for a, b in zip(*memories, strict=True)]}


def in_shards(options) -> dict:
    """The bank held by actors, and searched from here."""
    cluster, memories = RayActors(workers=1, shards=options.shards), []
    for rows in (FEW, options.rows):
        began = now()
        bank = SeedBank.open(place(Path(options.work), rows), maintain=False)
        seeds = ShardedBank(bank, shards_of(bank, ROUTES, options.shards, cluster.hold))
        result = searched(seeds, options.queries, began)
        holders = [one for one in psutil.Process().children(recursive=True) if "_Holder" in " ".join(one.cmdline())]
        memories.append([memory(one) for one in holders])
    cluster.close()
    base = np.mean(memories[0], axis=0)
    return {**result, "memory": [[b - a for a, b in zip(base, own, strict=True)] for own in memories[1]]}


STEPS = {"whole": whole, "shards": in_shards}


def searched(seeds, count: int, began: tuple[float, float]) -> dict:
    """Seconds to open seeds and of the routes, the better of two, and what was found."""
    chance = np.random.default_rng(1)
    queries = Queries(words(chance, count), Embeddings(unit(chance, count)))
    seconds, found = [], []
    with seeds.view() as view:
        view.search("bm25", queries.take(np.arange(8)), 1)
        seconds.append(since(began))
        for route in ROUTES:
            took = []
            for _ in range(2):
                began = now()
                ranking = view.search(route, queries, K)
                took.append(since(began))
            seconds.append(min(took))
            found.append(hashlib.sha256(ranking.rows.tobytes() + ranking.scores.tobytes()).hexdigest())
    return {"seconds": seconds, "found": found}


def now() -> tuple[float, float]:
    """Seconds on the clock, and processor seconds of this process and all that it started, Ray's own included."""
    own = psutil.Process()
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return time.perf_counter(), sum(one.user + one.system for one in times)


def since(began: tuple[float, float]) -> tuple[float, float]:
    """How much of both has passed."""
    wall, used = now()
    return wall - began[0], used - began[1]


def make(work: Path, rows: int) -> None:
    """A bank of random rows."""
    if place(work, rows).exists():
        return
    encoder, chance = Encoder.from_pretrained("starter"), np.random.default_rng(0)
    with create(place(work, rows), BankSettings(routes=list(ROUTES)), encoder=encoder, model="starter") as bank:
        for start in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - start)
            records = [{"text": text, "metadata": {"id": start + i}} for i, text in enumerate(words(chance, count))]
            bank.upsert(records, embeddings=Embeddings(unit(chance, count)), fingerprint=encoder.fingerprint)
        bank.save_indexes()


def place(work: Path, rows: int) -> Path:
    return work / f"shards_{rows}"


def words(chance, count: int) -> list[str]:
    """Texts of eight words of a hundred thousand, some frequent, most rare."""
    numbers = np.minimum(chance.zipf(1.3, (count, 8)), 100_000)
    return [" ".join(f"w{number}" for number in row) for row in numbers.tolist()]


def unit(chance, count: int):
    vectors = chance.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def memory(process) -> tuple[float, float]:
    """MB of a process: of its own, and of mapped files."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(rest.split()[0]) / 1024 for name, rest in (line.split(":") for line in lines)}
    return found["Anonymous"], found["Rss"] - found["Anonymous"]


if __name__ == "__main__":
    main()
