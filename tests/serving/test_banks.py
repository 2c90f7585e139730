"""Banks under a service: searched while they change and are swapped, and never left without an answer."""

import subprocess
import sys
import threading
import time

import pytest

from ecom_rag.errors import BankError, UsageError
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.seeds.bank import BankSettings, SeedBank, create, upkeep
from ecom_rag.serving import watching
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.problems import Problem
from helpers import changes
from helpers.small_banks import Hashing, built, seed

BOTH = BankSettings(routes=["bm25", "dense"])
FAST = 0.01


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ecom-rag banks"]


def make(path, numbers=range(20), **metadata):
    built(path, [seed(number, **metadata) for number in numbers], BOTH, encoder=Hashing()).close()
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "bank")


@pytest.fixture
def banks(path):
    told = []
    with Banks(poll_seconds=FAST, changed=lambda *change: told.append(change)) as made:
        made.told = told
        made.open("seeds", path, encoder=Hashing())
        yield made
    assert not threads()


def test_a_search_sees_what_another_handle_has_written(banks, path):
    with banks.reading("seeds") as reader:
        pipeline = Pipeline(reader.bank, Recall(routes=("bm25", "dense")), encoder=Hashing())
        before = pipeline.recall([seed(77)])
        with SeedBank.open(path, encoder=Hashing()) as other:
            sequence = other.upsert([seed(77)]).sequence
        assert banks.visible("seeds", sequence).result(20) == sequence
        assert pipeline.recall([seed(77)]) == before  # the state of this block
        assert reader.view.sequence == 1
    with banks.reading("seeds") as reader:
        assert pipeline.recall([seed(77)])[0]["topk_seed"][0] == seed(77)["text"]
        assert reader.view.sequence == sequence and reader.bank.view
    assert banks.told == [("seeds", sequence)]
    assert banks.visible("seeds", 1).done()
    health = banks.health()["seeds"]
    assert (health.sequence, health.documents, health.error, health.waiting) == (sequence, 21, None, 0)
    assert banks.names() == ["seeds"] and banks.is_watched


def test_a_reader_keeps_its_state_while_later_ones_come_and_go(banks, path):
    with banks.reading("seeds") as reader, SeedBank.open(path, encoder=Hashing()) as other:
        for number in range(30, 34):
            assert banks.visible("seeds", other.upsert([seed(number)]).sequence).result(20)
        other.delete(["s0"])
        other.compact()
        banks.visible("seeds", other.sequence).result(20)
        assert reader.view.record(0)["metadata"]["id"] == "s0" and len(reader.view) == 20
    with pytest.raises(BankError, match="this view has ended"):
        reader.view.record(0)


def test_names(banks, path, tmp_path):
    with pytest.raises(UsageError, match="open already"):
        banks.open("seeds", path)
    for call in (lambda: banks.visible("x", 1), lambda: banks.swap("x", path), lambda: banks.reading("x").__enter__()):
        with pytest.raises(Problem) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (404, "no_bank")
    with pytest.raises(UsageError, match="poll_seconds"):
        Banks(poll_seconds=0)
    with pytest.raises(BankError, match="no such folder"):
        banks.open("other", tmp_path / "none")
    with pytest.raises(UsageError, match="sparse"):
        banks.open("other", path, routes=["sparse"])
    create(tmp_path / "empty", BOTH, encoder=Hashing()).close()
    banks.open("empty", tmp_path / "empty", encoder=Hashing())  # to be filled
    assert banks.names() == ["seeds", "empty"]


# --- swaps ------------------------------------------------------------------------------------------------------------


def test_swaps_under_load_fail_no_search_and_close_what_was_left(banks, tmp_path):
    paths = [make(tmp_path / f"bank{version}", version=version) for version in range(4)]
    failures, seen, over = [], set(), threading.Event()
    banks.swap("seeds", paths[0])

    def search():
        try:
            while not over.is_set():
                with banks.reading("seeds") as reader:
                    pipeline = Pipeline(reader.bank, Recall(routes=("bm25",), top_k=20))
                    [found] = pipeline.recall([{"text": "leather wallet watch"}])
                    seen.add(frozenset(metadata["version"] for metadata in found["topk_metadata"]))
        except BaseException as error:
            failures.append(error)

    searching = [threading.Thread(target=search) for _ in range(3)]
    for thread in searching:
        thread.start()
    with banks.lease("seeds") as first:
        for turn in range(12):
            banks.swap("seeds", paths[turn % 4])
            time.sleep(0.02)
        assert len(first) == 20  # leased before the first swap
    over.set()
    for thread in searching:
        thread.join()
    assert not failures
    assert seen == {frozenset({version}) for version in range(4)}  # no search saw two banks
    until(lambda: first.store.closed)
    assert len([change for change in banks.told if change[0] == "seeds"]) >= 13


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("none", BankError, "no such folder"),
        ("empty", BankError, "holds no seeds"),
        ("route", UsageError, "'dense'"),
        ("model", BankError, "other-cls; the service has loaded hashing-cls"),
        ("damaged", BankError, "damaged"),
    ],
)
def test_a_bank_that_cannot_take_the_place_leaves_the_old_one(banks, tmp_path, kind, error, message):
    target = tmp_path / "new"
    if kind == "empty":
        create(target, BOTH, encoder=Hashing()).close()
    elif kind == "route":
        built(target, [seed(1)], BankSettings(routes=["bm25"])).close()
    elif kind == "model":
        built(target, [seed(1)], BOTH, encoder=Hashing("other-cls")).close()
    elif kind == "damaged":
        make(target)
        content = bytearray((target / "bank.db").read_bytes())
        content[8192:] = b"\x99" * (len(content) - 8192)
        (target / "bank.db").write_bytes(content)
    with pytest.raises(error, match=message):
        banks.swap("seeds", target)
    with banks.reading("seeds") as reader:
        assert reader.view.live == 20
    assert banks.health()["seeds"].error is None and not banks.told


def test_who_waits_for_a_sequence_of_a_bank_that_is_swapped_gives_up(banks, tmp_path):
    waiting, cancelled = banks.visible("seeds", 99), banks.visible("seeds", 98)
    cancelled.cancel()
    banks.swap("seeds", make(tmp_path / "new"))
    with pytest.raises(BankError, match="was swapped for"):
        waiting.result(20)


# --- trouble in the background ----------------------------------------------------------------------------------------


def test_a_folder_that_vanishes_is_reported_and_the_old_state_is_served(banks, path):
    path.rename(path.with_name("elsewhere"))
    until(lambda: banks.health()["seeds"].error)
    assert "was removed or replaced while it was open" in banks.health()["seeds"].error
    with banks.reading("seeds") as reader:
        assert Pipeline(reader.bank, Recall(routes=("bm25",))).recall([seed(3)])[0]["topk_seed"]
    path.with_name("elsewhere").rename(path)
    until(lambda: banks.health()["seeds"].error is None)
    with SeedBank.open(path, encoder=Hashing()) as other:
        assert banks.visible("seeds", other.upsert([seed(77)]).sequence).result(20) == 2


def test_no_error_ends_the_watching(banks, path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no more")

    monkeypatch.setattr(watching, "pinned", fail)
    banks._changed = fail
    with SeedBank.open(path, encoder=Hashing()) as other:
        waiting = banks.visible("seeds", other.upsert([seed(77)]).sequence)
        until(lambda: banks.health()["seeds"].error == "no more")
        health = banks.health()["seeds"]
        assert (health.sequence, health.waiting) == (1, 1) and banks.is_watched
        monkeypatch.undo()
        assert waiting.result(20) == 2
        until(lambda: banks.health()["seeds"].error is None)


def test_the_log_starts_anew_though_a_state_is_always_pinned(banks, path, monkeypatch):
    monkeypatch.setattr(watching, "LOG_BYTES", 1 << 18)
    largest = 0
    with SeedBank.open(path, encoder=Hashing(), maintain=False) as other:
        for number in range(200):
            change = other.upsert([{"text": "common " * 500, "metadata": {"id": f"s{number % 20}"}}])
            banks.visible("seeds", change.sequence).result(20)
            largest = max(largest, other.store.log_bytes())
    assert largest < 1 << 21  # 200 changes are 8 MB of log


def test_due_maintenance_is_done_in_the_background(banks, path, monkeypatch):
    monkeypatch.setattr(upkeep, "MANY", 3)
    with SeedBank.open(path, encoder=Hashing(), maintain=False) as other:
        other.delete([f"s{number}" for number in range(12)])
        until(lambda: banks.health()["seeds"].sequence == 3)
        with other.store.reading() as (_, state):
            assert (state.removed, state.live) == (0, 8)
    with banks.reading("seeds") as reader:
        assert len(reader.view) == 8


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_leaves_no_thread_and_a_reader_finishes(path):
    banks = Banks(poll_seconds=FAST)
    banks.open("seeds", path)
    with banks.reading("seeds") as reader:
        waiting = banks.visible("seeds", 99)
        banks.close()
        banks.close()
        assert not threads() and not banks.is_watched
        assert reader.view.record(0)["metadata"]["id"] == "s0"
        with pytest.raises(BankError, match="is closed"):
            waiting.result(1)
    assert reader.bank.store.closed
    for call in (lambda: banks.reading("seeds").__enter__(), lambda: banks.lease("seeds").__enter__()):
        with pytest.raises(BankError, match="is closed"):
            call()
    for call in (lambda: banks.open("more", path), lambda: banks.swap("seeds", path)):
        with pytest.raises(BankError, match="clos"):
            call()


# --- with another process ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_that_search_while_another_process_writes_and_compacts(tmp_path):
    path = tmp_path / "bank"
    create(path, encoder=Hashing()).close()
    states = [[]]
    documents = {}
    for number in range(400):
        documents = changes.apply(documents, number)
        states.append(sorted(documents.values(), key=lambda record: record["metadata"]["id"]))
    failures, seen, over = [], set(), threading.Event()

    def search(banks):
        at = 0
        try:
            while not over.is_set() and at < 380:
                with banks.reading("seeds") as reader:
                    view = reader.view
                    rows = [row for row in view.index("bm25").search(["common"], changes.IDS).rows[0] if row >= 0]
                    found = sorted(view.records(rows), key=lambda record: record["metadata"]["id"])
                    assert set(rows) <= {row for row, on in enumerate(view.rows("exists(id)")) if on}
                at = next(number for number in range(at, len(states)) if states[number] == found)
                seen.add(at)
        except BaseException as error:
            failures.append(error)

    writer = subprocess.Popen([sys.executable, changes.__file__, str(path), "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "0\n"
        with Banks(poll_seconds=FAST) as banks:
            banks.open("seeds", path, encoder=Hashing())
            searching = [threading.Thread(target=search, args=(banks,)) for _ in range(3)]
            for thread in searching:
                thread.start()
            until(lambda: failures or max(seen, default=0) > 150, 60)
            over.set()
            for thread in searching:
                thread.join()
            assert banks.health()["seeds"].error is None
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert not failures and len(seen) > 5
    assert not threads()
