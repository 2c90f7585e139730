"""Views that stay while the bank changes: later ones are made beside them, and equal those of a fresh open."""

import shutil
import threading

import numpy as np
import pytest

from ecom_rag.errors import BankError
from ecom_rag.seeds.bank import BankSettings, SeedBank, live
from ecom_rag.seeds.bank import derived as derived_module
from helpers.small_banks import Hashing, assert_equals_a_file, built, seed, texts_found


@pytest.fixture
def bank(tmp_path):
    with built(tmp_path / "bank", map(seed, range(20)), BankSettings(routes=["bm25", "dense"]), encoder=Hashing()) as b:
        yield b


def found(view, query="leather wallet 7"):
    vectors = Hashing().encode([query]).dense
    return [
        [(scores.tobytes(), texts) for scores, texts in zip(hits.scores, texts_found(view, hits), strict=True)]
        for hits in (view.index("bm25").search([query], 10), view.index("dense").search(vectors, 10))
    ]


@pytest.mark.parametrize("how", ["replayed", "across a compaction", "loaded", "built"])
def test_a_pinned_view_stays_and_the_next_one_equals_a_fresh_open(bank, how, monkeypatch):
    pinned = bank.pin()
    before, mask = found(pinned), pinned.rows('label = "x"')
    with SeedBank.open(bank.path, encoder=Hashing()) as other:
        other.upsert([seed(number) for number in range(15, 70)])
        other.delete(["s0", "s33"])
        if how != "replayed":
            other.compact()
    if how == "built":
        shutil.rmtree(bank.path / "indexes")
    if how in ("loaded", "built"):
        monkeypatch.setattr(live, "_MOST_REMOVED", -1)
    pauses = []
    later = bank.pin(pause=lambda: pauses.append(found(pinned) == before))
    assert all(pauses) and (how == "loaded" or len(pauses) >= 2)
    assert found(pinned) == before and pinned.sequence < later.sequence == bank.sequence
    with SeedBank.open(bank.path) as fresh, fresh.view() as view:
        assert view.labels("label") == [label for label in later.labels("label") if label or how == "replayed"]
    assert later.rows('label = "x"').sum() >= sum(label == "x" for label in later.labels("label"))
    np.testing.assert_array_equal(pinned.rows('label = "x"'), mask)
    with SeedBank.open(bank.path) as fresh, fresh.view() as view:
        assert found(later) == found(view)
    with bank.using(later), bank.view() as view:
        assert view is later
    pinned.end()
    pinned.end()
    with pytest.raises(BankError, match="this view has ended"):
        pinned.records([0])
    later.end()
    numbers = [n for n in range(1, 70) if n != 33]
    assert_equals_a_file(bank, [seed(n) for n in [*range(1, 15), *numbers[14:]]])


def test_two_threads_that_make_the_same_state_and_one_that_is_overtaken(bank):
    """A background thread pauses in the middle; a search in the foreground needs a later state, and gets it."""
    with SeedBank.open(bank.path, encoder=Hashing()) as other:
        other.upsert([seed(number) for number in range(20, 40)])
        paused, go, views = threading.Event(), threading.Event(), []

        def pause():
            paused.set()
            go.wait(10)

        threads = [threading.Thread(target=lambda: views.append(bank.pin(pause=pause))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert paused.wait(10)
        other.upsert([seed(50)])
        searching = threading.Thread(target=lambda: views.append(bank.pin()))
        searching.start()
        go.set()
        for thread in [*threads, searching]:
            thread.join(20)
    assert sorted(view.sequence for view in views) in ([2, 2, 3], [2, 3, 3], [3, 3, 3])
    for view in views:
        assert len(found(view)[0][0][1]) == 10
        view.end()
    assert_equals_a_file(bank, [seed(n) for n in [*range(40), 50]])


def test_a_preparation_that_fails_leaves_the_present_state(bank, monkeypatch):
    pinned = bank.pin()
    before = found(pinned)
    with SeedBank.open(bank.path, encoder=Hashing()) as other:
        other.upsert([seed(number) for number in range(20, 40)])

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bank.pin(pause=fail)
    assert found(pinned) == before
    pinned.end()
    monkeypatch.setattr(derived_module, "load", None)  # nothing is loaded anew for that
    assert_equals_a_file(bank, [seed(n) for n in range(40)])
    assert not bank.store.closed
