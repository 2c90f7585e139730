"""A closed bank answers nothing: every question and change is one error, from threads and held views too."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecom_rag.errors import BankError
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.seeds.bank import BankSettings, SeedBank, add, snapshot, stats
from helpers.small_banks import Hashing, built, seed

QUESTIONS = {
    "len": len,
    "count": lambda bank: bank.count('label = "x"'),
    "get": lambda bank: bank.get(["s1"]),
    "documents": lambda bank: next(bank.documents()),
    "filter notes": lambda bank: bank.filter_notes(None),
    "stats": lambda bank: stats(bank),
    "sequence": lambda bank: bank.sequence,
    "note": lambda bank: bank.note,
    "refresh": lambda bank: bank.refresh(),
    "view": lambda bank: bank.view().__enter__(),
    "upsert": lambda bank: bank.upsert([seed(50)]),
    "upsert nothing": lambda bank: bank.upsert([]),
    "add": lambda bank: add(bank, [seed(50)]),
    "delete ids": lambda bank: bank.delete(["s1"]),
    "delete filter": lambda bank: bank.delete(filter='label = "x"'),
    "compact": lambda bank: bank.compact(),
    "save indexes": lambda bank: bank.save_indexes(),
    "checkpoint": lambda bank: bank.store.checkpoint(),
    "snapshot": lambda bank: snapshot(bank, bank.path.parent / "copy"),
    "copy record": lambda bank: bank.store.copy(bank.path.parent / "copy.db"),
    "enter": lambda bank: bank.__enter__(),
    "recall": lambda bank: Pipeline(bank, Recall(routes=("bm25",))).recall([{"text": "leather"}]),
}


@pytest.fixture
def bank(tmp_path):
    return built(tmp_path / "bank", map(seed, range(20)), BankSettings(routes=["bm25", "dense"]), encoder=Hashing())


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_closed_bank_answers_nothing(bank, question):
    bank.close()
    bank.close()
    with pytest.raises(BankError, match="is closed; open it again"):
        QUESTIONS[question](bank)
    with SeedBank.open(bank.path) as again:  # nothing is lost, and nothing was written
        assert len(again) == 20 and again.sequence == 1


def test_a_pipeline_over_a_bank_that_is_closed_later(bank):
    pipeline = Pipeline(bank, Recall(routes=("bm25",)))
    assert pipeline.recall([{"text": "leather"}])
    with bank:
        pass
    with pytest.raises(BankError, match="is closed"):
        pipeline.recall([{"text": "leather"}])
    assert "closed" in repr(bank) and "closed" in repr(pipeline)


def test_a_view_that_is_held_or_over(bank):
    with bank.view() as view:
        index = view.index("bm25")
        bank.close()
        assert index.search(["leather"], 3).rows.shape == (1, 3)  # arrays in memory
        for question in (
            lambda: view.records([0]),
            lambda: view.record(0),
            lambda: view.rows("a = 1"),
            lambda: view.index("bm25"),
        ):
            with pytest.raises(BankError, match="is closed"):
                question()
    with SeedBank.open(bank.path) as again:
        with again.view() as over:
            with again.view():  # the same one
                pass
            assert over.record(0)["metadata"]["id"] == "s0"
        with pytest.raises(BankError, match="this view has ended"):
            over.records([0])


def test_closing_while_threads_search_ends_in_answers_or_one_error(bank):
    """Never a crash of SQLite, never another exception, never a thread that waits for ever."""
    pipeline = Pipeline(bank, Recall(routes=("bm25",), filter='label != "z"'))
    started = threading.Barrier(5)

    def search():
        started.wait()
        answers = 0
        while True:
            try:
                [result] = pipeline.recall([{"text": "leather wallet"}])
            except BankError as error:
                assert "is closed" in str(error)
                return answers
            assert result["topk_seed"]
            answers += 1

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(search) for _ in range(4)]
        started.wait()
        threading.Event().wait(0.2)
        bank.close()
        assert all(one.result(timeout=60) >= 0 for one in running)
    assert not bank.store._idle  # every reader has closed its own connection
