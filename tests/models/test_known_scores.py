"""Scores that are kept from run to run: the same numbers, and each pair read once."""

import sqlite3
import threading

import numpy as np
import pytest

from ecom_rag.errors import UsageError
from ecom_rag.models import CrossEncoder
from ecom_rag.models.known_scores import KnownScores

PAIRS = [("加微信领券", "加 v 信领优惠券"), ("a", "bc"), ("ab", "c"), ("a", "bc"), ("", "x"), ("x", "")]


@pytest.fixture(scope="module")
def judge(xlmr_reranker):
    return CrossEncoder.from_pretrained(str(xlmr_reranker), runtime="torch", precision="fp32")


def test_the_first_run_gives_the_scores_of_the_reranker(tmp_path, judge):
    with KnownScores(tmp_path / "scores.db", judge) as known:
        np.testing.assert_array_equal(known.score(PAIRS), judge.score(PAIRS))
        assert (known.found, known.computed) == (0, 5)  # one of six stands twice
        np.testing.assert_allclose(known.score(PAIRS, normalize=True), judge.score(PAIRS, normalize=True), rtol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.db"]


def test_a_later_run_reads_new_pairs_alone(tmp_path, judge, monkeypatch):
    with KnownScores(tmp_path / "scores.db", judge) as known:
        first = known.score(PAIRS[:3])
    read = []
    score = judge.score
    monkeypatch.setattr(judge, "score", lambda pairs, **options: score(read.extend(pairs) or read, **options))
    done = []
    with KnownScores(tmp_path / "scores.db", judge) as known:
        again = known.score([*PAIRS[:3], ("new", "pair")], progress=done.append)
        assert (known.found, known.computed) == (3, 1)
    assert read == [("new", "pair")]
    np.testing.assert_array_equal(again[:3], first)
    assert sum(done) == 4


def test_many_pairs_at_once(tmp_path, judge):
    pairs = [(f"query {number % 40}", f"document {number}") for number in range(1300)]
    with KnownScores(tmp_path / "scores.db", judge) as known:
        first = known.score(pairs)
        np.testing.assert_array_equal(known.score(pairs[::-1]), first[::-1])
        assert (known.found, known.computed) == (1300, 1300)
        assert known.score([]).shape == (0,)


def test_another_reranker_or_other_settings_have_their_own_scores(tmp_path, judge, xlmr_reranker, bert_reranker):
    shorter = CrossEncoder.from_pretrained(str(xlmr_reranker), runtime="torch", precision="fp32", max_length=32)
    other = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32")
    for model in (judge, shorter, other):
        with KnownScores(tmp_path / "scores.db", model) as known:
            np.testing.assert_array_equal(known.score(PAIRS), model.score(PAIRS))
            assert known.found == 0


def test_several_threads_share_a_file(tmp_path, judge):
    pairs = [(f"q{number}", "document") for number in range(60)]
    expected = judge.score(pairs)
    wrong = []

    def work(start):
        with KnownScores(tmp_path / "scores.db", judge) as known:
            for part in range(start, 60, 7):
                wrong.extend(
                    np.flatnonzero(abs(known.score(pairs[part : part + 9]) - expected[part : part + 9]) > 1e-5)
                )

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, judge):
    text = tmp_path / "results.jsonl"
    text.write_text('{"text": "a"}\n' * 200)
    database = tmp_path / "other.db"
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    newer = tmp_path / "newer.db"
    KnownScores(newer, judge).close()
    with sqlite3.connect(newer) as other:
        other.execute("PRAGMA user_version = 2")
    other.close()
    for path, message in (
        (
            text,
            "cannot be used as a file of known scores .file is not a database.; expected one that an earlier run made",
        ),
        (database, "is not a file of known scores; expected one that an earlier run made"),
        (newer, "has format 2 of a newer ecom_rag"),
        (tmp_path / "no" / "folder.db", "cannot be used as a file of known scores .*check the folder"),
        (tmp_path, "cannot be used as a file of known scores .*check the folder"),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(UsageError, match=message):
            KnownScores(path, judge)
        assert before is None or path.read_bytes() == before


def test_nan_is_not_kept(tmp_path, judge, monkeypatch):
    from ecom_rag.errors import EmbeddingError

    def broken(pairs, **options):
        raise EmbeddingError("the reranker gave NaN")

    with KnownScores(tmp_path / "scores.db", judge) as known:
        monkeypatch.setattr(judge, "score", broken)
        with pytest.raises(EmbeddingError):
            known.score(PAIRS)
        monkeypatch.undo()
        np.testing.assert_array_equal(known.score(PAIRS), judge.score(PAIRS))
        assert known.found == 0
