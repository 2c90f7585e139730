"""What `--ray` costs beside the command alone at equal cores: one worker on one core, and a worker per core.

Wall time and processor time of all processes of a run, Ray's own included, in turn. What a run costs at all (loading,
start and end of the cluster) is that of a run over one block; what the records cost is the rest.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import arguments, heading, listings, write

BLOCK = 4096


def main() -> None:
    """Print a table for each job."""
    options = arguments(
        __doc__,
        records={"type": int, "default": 200_000},
        dense_records={"type": int, "default": 20_000},
        seeds={"type": int, "default": 5000},
        routes={"default": "bm25,dense"},
        cores={"type": int, "help": "by default one, then all"},
    )
    heading("Ray beside the command alone")
    work = Path(options.work) / "ray_overhead"
    work.mkdir(parents=True, exist_ok=True)
    found = listings(options.data, options.records)
    write(work / "seeds.jsonl", found[:: max(1, options.records // options.seeds)])
    for route in options.routes.split(","):
        count = options.dense_records if route == "dense" else options.records
        for name, number in (("all", count), ("one", BLOCK)):
            write(work / f"{name}.jsonl", found[:number])
        bank = work / f"bank_{route}"
        if not bank.exists():
            model = ["--model", "starter"] if route == "dense" else []
            _command(["bank", "build", bank, "--seeds", work / "seeds.jsonl", "--routes", route, *model], None)
        cores = sorted(os.sched_getaffinity(0))
        for few in sorted({1, len(cores)}) if not options.cores else [options.cores]:
            print(f"\n{route}, {count:,} titles, {few} of {len(cores)} cores\n", flush=True)
            _table(bank, work, set(cores[:few]), options.rounds)


def _table(bank: Path, work: Path, cores: set[int], rounds: int) -> None:
    took: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for size in ("one", "all"):
            for kind, extra in (("alone", []), ("ray", ["--ray", "auto", "--workers", len(cores)])):
                output = work / f"{kind}.jsonl"
                words = ["recall", work / f"{size}.jsonl", "--bank", bank, "--quiet", "-o", output, *extra]
                took.setdefault((kind, size), []).append(_command(words, cores))
            assert (work / "ray.jsonl").read_bytes() == (work / "alone.jsonl").read_bytes()
    median = {key: [statistics.median(column) for column in zip(*values, strict=True)] for key, values in took.items()}
    print("| | one block: wall, processor | all | the records after the first block |\n|---|---|---|---|")
    rest = {
        kind: [a - b for a, b in zip(median[kind, "all"], median[kind, "one"], strict=True)]
        for kind in ("alone", "ray")
    }
    for kind in ("alone", "ray"):
        cells = (median[kind, "one"], median[kind, "all"], rest[kind])
        print(f"| {kind} | " + " | ".join(f"{wall:.1f} s, {processor:.1f} s" for wall, processor in cells) + " |")
    wall, processor = (rest["ray"][i] / rest["alone"][i] - 1 for i in (0, 1))
    print(f"\nthe records cost {wall:+.1%} wall time and {processor:+.1%} processor time on Ray", flush=True)


def _command(words: list, cores: set[int] | None) -> tuple[float, float]:
    """Wall and processor seconds of a command and of all that it started."""
    held, began = os.sched_getaffinity(0), time.monotonic()
    os.sched_setaffinity(0, cores or held)  # what is started has the same
    started = subprocess.Popen([sys.executable, "-m", "ecom_rag", *map(str, words)], start_new_session=True)
    os.sched_setaffinity(0, held)
    ticks: dict[int, int] = {}
    while started.poll() is None:
        ticks |= _ticks(started.pid)
        time.sleep(0.1)
    assert started.returncode == 0, words
    return time.monotonic() - began, sum(ticks.values()) / os.sysconf("SC_CLK_TCK")


def _ticks(session: int) -> dict[int, int]:
    """Processor time of each process of a session so far; that of ended ones is nobody's under Ray."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found[int(process.name)] = int(fields[11]) + int(fields[12])
    return found


if __name__ == "__main__":
    main()
