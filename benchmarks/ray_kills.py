"""Kills at random during `recall --ray`: after each, the file must be the one that the command writes alone.

Per round one kill at a random moment: of a worker's process, of its whole process group, of Ray's own process on the
machine (the raylet, as when a machine dies), or of the command. A command that ended is run again with `--resume`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from common import arguments, heading, listings, write

KINDS = ("worker", "group", "raylet", "command")


def main() -> None:
    """Print a line per round, and the verdict."""
    options = arguments(
        __doc__,
        records={"type": int, "default": 200_000},
        seeds={"type": int, "default": 5000},
        routes={"default": "bm25"},
        workers={"default": "2"},
        kills={"type": int, "default": 30},
        kinds={"default": ",".join(KINDS)},
        seed={"type": int, "default": 1, "help": "of the random kills"},
    )
    heading(f"{options.kills} kills during recall of {options.records:,} titles on Ray, seed {options.seed}")
    work = Path(options.work) / "ray_kills"
    work.mkdir(parents=True, exist_ok=True)
    found = listings(options.data, options.records)
    write(work / "listings.jsonl", found)
    write(work / "seeds.jsonl", found[:: max(1, options.records // options.seeds)])
    bank, local, output = work / "bank", work / "local.jsonl", work / "ray.jsonl"
    if not bank.exists():
        _run("bank", "build", bank, "--seeds", work / "seeds.jsonl", "--routes", options.routes)
    command = ["recall", work / "listings.jsonl", "--bank", bank, "--quiet", "--output"]
    _run(*command, local)
    expected, draw = local.read_bytes(), random.Random(options.seed)
    ray = [*command, output, "--ray", "auto", "--workers", options.workers]
    began = time.monotonic()
    _run(*ray)
    usual = time.monotonic() - began
    assert output.read_bytes() == expected
    print(
        f"undisturbed: {usual:.1f} s\n\n| kill | of | after | whole | again | same bytes |\n|---|---|---|---|---|---|"
    )
    equal = number = 0
    while number < options.kills:
        output.unlink()
        began = time.monotonic()
        kind, moment, again = _disturbed(ray, draw.choice(options.kinds.split(",")), draw.uniform(0, usual))
        same = output.read_bytes() == expected
        if kind:  # else it was over before
            number, equal = number + 1, equal + same
            seconds = time.monotonic() - began
            print(f"| {number} | {kind} | {moment:.1f} s | {seconds:.1f} s | {again} | {same} |", flush=True)
    print(f"\n{equal} of {number} files are the local one")
    sys.exit(equal < number)


def _disturbed(ray: list, kind: str, moment: float) -> tuple[str, float, int]:
    """One run to its end: what was killed ("" for nothing), when, and how often the command was run again."""
    started = _start(*ray)
    killed = _kill(kind, started, time.monotonic() + moment)
    again = 0
    while started.wait():
        again += 1
        assert again < 10, "the command does not come to its end"
        started = _start(*ray, "--resume")
    return killed, moment, again


def _kill(kind: str, command: subprocess.Popen, moment: float) -> str:
    """Kill at a moment, or as soon after it as there is something of the kind."""
    while command.poll() is None:
        if time.monotonic() >= moment and (victims := _victims(kind, command.pid)):
            victim = random.Random(moment).choice(victims)
            try:
                (os.killpg if kind == "group" else os.kill)(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return kind
        time.sleep(0.02)
    return ""


def _victims(kind: str, command: int) -> list[int]:
    if kind == "command":
        return [command]
    name = "raylet" if kind == "raylet" else "ray::_Actor"
    found = []
    for one in psutil.Process(command).children(recursive=True):
        try:
            if Path(one.cmdline()[0]).name.startswith(name):
                found.append(os.getpgid(one.pid) if kind == "group" else one.pid)
        except (psutil.Error, IndexError, ProcessLookupError):
            continue
    return found


def _start(*words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "ecom_rag", *map(str, words)], start_new_session=True)


def _run(*words: object) -> None:
    assert _start(*words).wait() == 0, words


if __name__ == "__main__":
    main()
