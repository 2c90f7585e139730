"""The guard's memory across batches: counted once, whatever is killed, repeated, damaged or not ours."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from ecom_rag.decision.flood_file import FloodFile
from ecom_rag.errors import UsageError
from helpers.campaigns import variations

TEXTS = variations(120, templates=3, length=80, edits=2, seed=0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.campaigns"


def run(path, texts, batch=None, *, looks=(), cache=None, commit=True, label="spam", **settings):
    with FloodFile(path, batch=batch, cache=cache, **settings) as file:
        guard = file.guard(limit=4, capacity=1000)
        if looks:
            guard.looked(*zip(*looks, strict=True))
        found = guard.admit(texts, [label] * len(texts), np.ones(len(texts), bool))
        if commit:
            file.commit(guard)
    return found.campaigns, found.flooded.tolist()


def rows(path, sql="SELECT campaign, SUM(decisions) FROM automatic GROUP BY campaign"):
    db = sqlite3.connect(path)
    found = db.execute(sql).fetchall()
    db.close()
    return found


def test_counts_go_on_in_the_next_batch(path):
    once = run(path.with_name("other"), TEXTS)
    parts = [run(path, TEXTS[start : start + 5]) for start in range(0, 120, 5)]
    assert tuple([item for part in parts for item in part[column]] for column in (0, 1)) == once
    assert rows(path) == rows(path.with_name("other")) and sum(count for _, count in rows(path)) == 12


def test_the_same_input_again_gives_the_same_and_counts_once(path):
    first = run(path, TEXTS[:6], "a")
    second = run(path, TEXTS[6:12], "b")
    before = rows(path)
    assert (run(path, TEXTS[:6], "a"), run(path, TEXTS[6:12], "b"), run(path, TEXTS[:6], "a")) == (first, second, first)
    assert rows(path) == before
    assert run(path, TEXTS[12:24])[1] == run(path.with_name("all"), TEXTS[:24])[1][12:]


def test_an_input_that_has_changed_its_decisions_replaces_them(path):
    run(path, TEXTS[:60], "a")
    run(path, ["nothing of that kind"], "a")
    assert [count for _, count in rows(path)] == [1]
    assert run(path, TEXTS[:9], "b")[1] == run(path.with_name("new"), TEXTS[:9])[1]


def test_a_stream_counts_each_time(path):
    assert run(path, ["one text"] * 3)[1] == [False] * 3
    assert run(path, ["one text"] * 3)[1] == [False, True, True]
    assert run(path, ["one text"] * 3)[1] == [True] * 3


def test_looks_last_and_keep_the_names(path):
    campaigns, flooded = run(path, TEXTS, "a")
    assert sum(flooded) == 108
    seen = [TEXTS.index(next(t for t, c in zip(TEXTS, campaigns, strict=True) if c == name)) for name in set(campaigns)]
    last = [max(i for i in range(120) if campaigns[i] == campaigns[place]) for place in seen]
    looks = [(TEXTS[place], "spam") for place in last]
    again = run(path, TEXTS, "a", looks=looks)
    assert again == (campaigns, [False] * 120)
    assert run(path, TEXTS, "a") == again  # without naming them once more
    assert run(path, TEXTS[::-1]) == (campaigns[::-1], [False] * 120)
    assert run(path, TEXTS, "z", label="innocent")[1] == [True] * 120


def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(path, tmp_path):
    """Killed once before its end; another run counts in between."""
    expected = run(path.with_name("other"), TEXTS, "a")
    cache = tmp_path / "cache"
    cache.mkdir()
    run(path, TEXTS[:50], "a", cache=cache, commit=False)
    run(path, TEXTS[60:], "b")
    counted = dict(rows(path))
    assert run(path, TEXTS, "a", cache=cache) == expected
    both = dict(rows(path))
    run(path, TEXTS, "a", cache=cache)  # killed after the file was written, before the output had its name
    assert dict(rows(path)) == both
    assert all(both[campaign] >= count for campaign, count in counted.items()) and sum(both.values()) == 24


def test_a_run_that_is_not_committed_leaves_nothing(path):
    run(path, TEXTS, "a", commit=False)
    assert not path.exists()
    run(path, TEXTS, "a")
    before = path.read_bytes()
    run(path, TEXTS[::-1], "b", commit=False)
    assert path.read_bytes() == before


def test_two_runs_at_once(path):
    run(path, TEXTS[:5], "a")
    with FloodFile(path, batch="b"):
        with pytest.raises(UsageError, match=r"policy.campaigns: another run is counting in this file of campaigns"):
            FloodFile(path, batch="c")
    run(path, TEXTS[:5], "c")


def test_the_oldest_campaigns_are_forgotten(path):
    texts = variations(60, templates=60, length=20, edits=0, seed=3)
    for start in range(0, 60, 10):
        run(path, [texts[start], *texts[start : start + 10], texts[0]], keep=15)
    counts = rows(path)
    assert len(counts) == 15 and max(count for _, count in counts) == 4  # the one that was met in each batch
    assert run(path, [texts[0], texts[1], texts[50]] * 2)[1] == [True, False, False, True, False, False]
    assert rows(path, "SELECT COUNT(*) FROM campaigns") == [(16,)]


def test_files_that_are_not_ours(path, tmp_path):
    def refused(words, content=None):
        before = content if content is not None else path.read_bytes()
        path.write_bytes(before)
        with pytest.raises(UsageError, match=words) as told:
            run(path, TEXTS)
        assert "\n" not in str(told.value) and str(path) in str(told.value)
        assert path.read_bytes() == before

    refused("is not a file of campaigns; expected one that an earlier run made, or a free name", b"x")
    for content in (b"a note, and no database\n" * 99, bytes(8192)):
        refused(r"is no whole file of campaigns \(file is not a database\)", content)
    path.unlink()
    rows(path, "CREATE TABLE mine (a)")
    refused("is not a file of campaigns; expected one that an earlier run made")
    path.unlink()
    run(path, TEXTS)
    whole = path.read_bytes()
    refused("is no whole file of campaigns", whole[: len(whole) // 2])
    refused("is no whole file of campaigns", whole[:4096] + bytes(4096) + whole[8192:])
    path.write_bytes(whole)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE automatic SET examples = x'0102030405'")
    refused(r"is no whole file of campaigns \(a sketch is cut off\)")
    db.execute("UPDATE automatic SET examples = 'text', decisions = 'many'")
    refused("is no whole file of campaigns")
    db.execute("DROP TABLE looks")
    refused("is no whole file of campaigns")
    db.execute("PRAGMA user_version = 7")
    refused("has format 7 of a newer ecom_rag; this version reads up to 1; update ecom_rag")
    db.close()
    with pytest.raises(UsageError, match="is not a file; expected the file of campaigns"):
        run(tmp_path, TEXTS)
    with pytest.raises(UsageError, match="unable to open database file; check the folder"):
        run(tmp_path / "none" / "file", TEXTS)


def test_an_empty_file_is_a_new_one(path):
    path.touch()
    run(path, TEXTS[:5])
    assert rows(path)


KILLED = """
import hashlib, sys, numpy as np
from ecom_rag.decision.flood_file import FloodFile
for batch in range(100_000):
    with FloodFile(sys.argv[1], batch=None) as file:
        guard = file.guard(capacity=5000)
        texts = [hashlib.sha256(f"{batch} {number}".encode()).hexdigest() for number in range(300)]
        guard.admit(texts, ["spam"] * 300, np.ones(300, bool))
        file.commit(guard)
    print(batch, flush=True)
"""


def test_kill_at_any_moment_leaves_a_whole_file(path):
    """Every batch is in the file completely or not at all."""
    random = np.random.default_rng(0)
    done = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, env=os.environ)
        process.stdout.readline()
        time.sleep(random.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        done += 1 + len(process.communicate()[0].splitlines())
        with FloodFile(path, batch=None) as file:
            file.guard(capacity=5000)
        batches = rows(path, "SELECT SUM(decisions) FROM automatic GROUP BY batch")
        assert set(batches) == {(300,)} and len(batches) - 4 <= done <= len(batches)


BEGUN = """
import os, signal, sqlite3, sys
from ecom_rag.decision import flood_file
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.executescript("PRAGMA cache_size = 1; BEGIN IMMEDIATE;" + ";".join(flood_file._SCHEMA) if sys.argv[2] == "new" else
                 "PRAGMA cache_size = 1; BEGIN IMMEDIATE; DELETE FROM automatic")
db.executemany("INSERT INTO looks VALUES (?, 'x', ?)", ((number, bytes(500)) for number in range(1000)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["new", "old"])
def test_half_of_a_transaction_is_undone(path, state):
    """Killed when some of its pages are in the file already, the first time too."""
    if state == "old":
        run(path, TEXTS[:5])
    before = path.read_bytes() if state == "old" else b""
    assert subprocess.run([sys.executable, "-c", BEGUN, path, state], env=os.environ).returncode == -signal.SIGKILL
    assert path.read_bytes() != before and path.with_name(path.name + "-journal").stat().st_size
    once = run(path, TEXTS[5:20])
    if state == "old":
        run(path.with_name("other"), TEXTS[:5])
    assert once == run(path.with_name("other"), TEXTS[5:20])
