"""A Ray cluster of three hosts with addresses of their own, one of which is cut off and comes back."""

import itertools
import os
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from ecom_rag.files import records
from ecom_rag.files.jobs import BLOCK_RECORDS
from ecom_rag.seeds.bank import BankSettings, build
from helpers.hosts import Hosts, command_of, missing
from helpers.small_banks import seed

PORT = 6379
TOLD = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # of 15, else: workers would wait for all other tests
    "RAY_AUTH_MODE": "disabled",  # else a head takes the token of this machine's user, which other hosts must have
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "6",
}


@pytest.fixture
def hosts():
    if reason := missing():
        pytest.skip(reason)
    made = Hosts(3)
    try:
        yield made
    finally:
        made.close()


def told():
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | TOLD


def node(hosts, number):
    """Start Ray on a host with one CPU."""
    where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    if number > 1:
        where = [f"--address={hosts.address(1)}:{PORT}"]
    memory = f"--object-store-memory={100 << 20}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", memory]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    hosts.boot(number, [*ray, f"--node-ip-address={hosts.address(number)}", *where], env=told(), **quiet)


def joined(hosts, number):
    return any("/raylet/raylet " in command_of(process) for process in hosts.processes(number))


def works(hosts, number, what):
    return any(what in command_of(process) for process in hosts.processes(number))


def until(what, process, seconds=120.0):
    """Wait for something while a process runs."""
    end = time.monotonic() + seconds
    while not what():
        assert process is None or process.poll() is None, "it came to its end before"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def blocks():
    """Make block after block of records, without an end."""
    for start in itertools.count(step=BLOCK_RECORDS):
        yield b"".join(records.dumps(seed(number)) for number in range(start, start + BLOCK_RECORDS))


def feeding(parts, runs):
    """Write blocks to several runs, in a thread of its own."""

    def feed():
        for part in parts:
            for run in runs:
                run.stdin.write(part)

    feeder = threading.Thread(target=feed)
    feeder.start()
    return feeder


@pytest.mark.slow
def test_a_host_that_is_cut_off_and_comes_back_changes_nothing(hosts, tmp_path):
    bank, local, out, log = (tmp_path / name for name in ("bank", "local.jsonl", "out.jsonl", "log"))
    build(bank, [seed(number) for number in range(60)], BankSettings(routes=["bm25"]))
    command = [sys.executable, "-m", "ecom_rag", "recall", "--bank", str(bank), "--top-k", "1", "-"]
    alone = subprocess.Popen([*command, "-o", str(local)], stdin=subprocess.PIPE)
    for number in (1, 2, 3):
        node(hosts, number)
        until(lambda number=number: hosts.listens(1, PORT) and joined(hosts, number), None)
    ray = ["-o", str(out), "--ray", f"{hosts.address(1)}:{PORT}", "--workers", "3"]
    with log.open("wb") as sink:
        run = hosts.start(1, [*command, *ray], stdin=subprocess.PIPE, stderr=sink, env=told())
    parts, back = blocks(), threading.Event()
    feeder = feeding(itertools.islice(parts, 24), (run, alone))  # two windows of blocks: enough to miss one
    until(lambda: works(hosts, 3, "ray::_Actor.do"), run)
    hosts.connect(3, False)
    until(lambda: b"is gone" in log.read_bytes(), run)
    feeder.join()
    hosts.connect(3, True)
    node(hosts, 3)
    until(lambda: joined(hosts, 3), run)
    feeder = feeding(itertools.takewhile(lambda _: not back.is_set(), parts), (run, alone))
    until(lambda: works(hosts, 3, "ray::_Actor.do"), run)
    back.set()
    feeder.join()
    for process in (run, alone):
        process.stdin.close()
    assert run.wait(timeout=300) == 0, log.read_text()
    assert alone.wait(timeout=300) == 0
    assert out.read_bytes() == local.read_bytes()
