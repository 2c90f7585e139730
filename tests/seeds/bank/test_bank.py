"""A bank equals a file of its documents, whatever was done to it, reopened, compacted, copied or damaged."""

import shutil
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag import Encoder
from ecom_rag.errors import BankError, EmbeddingError, RecordError, UsageError
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import matches
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.variant import VariantIndex
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, create, stats
from helpers.small_banks import Hashing, assert_equals_a_file, seed


@pytest.fixture
def bank(tmp_path):
    with create(tmp_path / "bank", BankSettings(index_keys=["label"]), encoder=Hashing()) as made:
        yield made


def test_all_routes_over_a_file_and_over_a_bank_are_identical(m3_folder, tmp_path):
    encoder = Encoder.from_pretrained(str(m3_folder), runtime="torch")
    seeds = [seed(n, price=n) for n in range(60)]
    routes = ("bm25", "dense", "sparse", "multivector", "variant")
    build(tmp_path / "bank", seeds, BankSettings(routes=routes), encoder=encoder)
    embeddings = encoder.encode([r["text"] for r in seeds], outputs=routes[1:4])
    queries = ["leather wallet", "销量第一 茶", "watch 3", "l3ather w.a.l.l.e.t", "销.量.弟一"]
    asked = encoder.encode(queries, side="query", outputs=routes[1:4])
    fresh = {
        "bm25": (BM25Index([r["text"] for r in seeds]), queries),
        "dense": (DenseIndex(embeddings.dense), asked.dense),
        "sparse": (SparseIndex(embeddings.sparse), asked.sparse),
        "multivector": (MultiVectorIndex(embeddings.multivector), asked.multivector),
        "variant": (VariantIndex([r["text"] for r in seeds]), queries),
    }
    cheap = np.arange(60) < 30
    for reopened in (SeedBank.open(tmp_path / "bank"), rebuilt(tmp_path / "bank")):
        with reopened, reopened.view() as view:
            for route in routes:
                index, form = fresh[route]
                for filter, mask in ((None, None), ("price < 30", cheap)):
                    ours = view.index(route).search(form, 10, allowed=view.rows(filter))
                    theirs = index.search(form, 10, allowed=mask)
                    np.testing.assert_array_equal(ours.rows, theirs.rows)
                    np.testing.assert_array_equal(ours.scores, theirs.scores)
            assert view.records(range(60)) == seeds


def rebuilt(path):
    shutil.rmtree(path / "indexes")
    return SeedBank.open(path)


NUMBERS = st.lists(st.integers(0, 12), min_size=1, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), NUMBERS),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("where"), st.sampled_from(['label = "x"', "turn < 2", 'label != "y" and turn > 3'])),
        st.tuples(st.sampled_from(["search", "save", "compact", "reopen", "rebuild", "other", "pin"]), st.none()),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_sequence_of_changes_leaves_the_bank_equal_to_a_file(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("banks") / "bank"
    bank = create(path, BankSettings(index_keys=["label"]), encoder=Hashing())
    expected = []  # documents in the order they were written
    for turn, (step, what) in enumerate(steps):
        if step == "upsert":
            batch = [seed(number, turn=turn, place=place) for place, number in enumerate(what)]
            last = {record["metadata"]["id"]: record for record in batch}
            kept = [record for record in batch if last[record["metadata"]["id"]] is record]
            before = {record["metadata"]["id"] for record in expected}
            change = bank.upsert(batch)
            assert (change.added, change.removed) == (len(kept), len(before & set(last)))
            assert bool(change.notes) is (len(kept) < len(batch))
            expected = [record for record in expected if record["metadata"]["id"] not in last] + kept
        elif step == "delete":
            gone = {f"s{number}" for number in what}
            change = bank.delete(sorted(gone))
            assert change.removed == sum(record["metadata"]["id"] in gone for record in expected)
            expected = [record for record in expected if record["metadata"]["id"] not in gone]
        elif step == "where":
            tree = parse(what)
            hit = [matches(tree, record["metadata"]) for record in expected]
            assert bank.count(what) == sum(hit) == bank.delete(filter=what, allow_most=True).removed
            expected = [record for record, gone in zip(expected, hit, strict=True) if not gone]
        elif step == "search" and expected:
            assert_equals_a_file(bank, expected, filter='label in ("x", "z")')
        elif step == "pin":  # the background's way to the same state
            bank.pin(pause=lambda: None).end()
        elif step == "save":
            bank.save_indexes()
        elif step == "compact":
            bank.compact()
            assert stats(bank)["removed_rows"] == 0
        elif step == "other":  # another handle changes the bank behind this one's back
            with SeedBank.open(path, encoder=Hashing()) as other:
                other.upsert([seed(20, turn=turn)])
                other.compact()
            expected = [record for record in expected if record["metadata"]["id"] != "s20"] + [seed(20, turn=turn)]
        elif step in ("reopen", "rebuild"):
            bank.close()
            if step == "rebuild":
                shutil.rmtree(path / "indexes", ignore_errors=True)
            bank = SeedBank.open(path, encoder=Hashing())
    assert len(bank) == bank.count() == len(expected)
    assert bank.get([f"s{number}" for number in range(13)]) == [
        next((record for record in expected if record["metadata"]["id"] == f"s{number}"), None) for number in range(13)
    ]
    if expected:
        assert_equals_a_file(bank, expected)
        assert_equals_a_file(bank, expected, filter='label = "x" and not turn = 0')
    bank.close()


def test_an_upsert_moves_a_document_to_the_end_and_the_last_of_a_batch_wins(bank):
    bank.upsert([seed(1), seed(2), seed(3)])
    change = bank.upsert([{"text": "first", "metadata": {"id": "s1"}}, {"text": "茶 last", "metadata": {"id": "s1"}}])
    assert (change.added, change.removed) == (1, 1)
    assert change.notes == ["1 records have the id of a later record (e.g. 's1'); of each id the last was kept"]
    assert_equals_a_file(bank, [seed(2), seed(3), {"text": "茶 last", "metadata": {"id": "s1"}}])


def test_ids(bank):
    bank.upsert(
        [{"text": "a", "metadata": {"id": 7}}, {"text": "b"}, {"text": "b", "metadata": {"id": None}}, {"text": "c"}]
    )
    assert bank.get([7, "7"]) == [{"text": "a", "metadata": {"id": 7}}] * 2
    assert len(bank) == 4
    bank.upsert([{"text": "b", "metadata": {}}])  # the very same document
    assert len(bank) == 4
    for bad in (1.5, True, "", ["x"]):
        with pytest.raises(RecordError, match=r"record 1: the 'id' of its metadata is .*; expected a string"):
            bank.upsert([{"text": "fine"}, {"text": "t", "metadata": {"id": bad}}])
        with pytest.raises(UsageError):
            bank.delete([bad])
    assert bank.count() == 4  # all or none
    assert bank.delete(["not there"]).removed == 0
    with pytest.raises(UsageError, match="ids or a filter"):
        bank.delete()
    with pytest.raises(UsageError, match="expected a list"):
        bank.delete("s1")


def test_another_key_can_hold_the_id(tmp_path):
    with create(tmp_path / "b", BankSettings(routes=["bm25"], id_key="sku")) as bank:
        bank.upsert(
            [{"text": "a", "metadata": {"sku": "k", "id": 1}}, {"text": "b", "metadata": {"sku": "k", "id": 2}}]
        )
        assert [record["text"] for record in bank.get(["k"])] == ["b"]


def test_records_come_back_as_they_were(bank):
    deep = value = {}
    for _ in range(50):
        value["k"] = {}
        value = value["k"]
    odd = {
        "text": "茶" * 100_000,
        "metadata": {
            "id": "odd",
            "a.b": {'q"q': [1, None, {"x": 2.5}]},
            "big": 2**80,
            "deep": deep,
            "nul": "a\0b",
            "": 1,
        },
        "shop": {"name": "s"},
        "rank": 10**25,
    }
    bank.upsert([odd, seed(1)])
    assert bank.get(["odd"]) == [odd]
    assert bank.count('"a.b"."q\\"q" = 1') == 0
    assert bank.count('exists("a.b".\'q"q\')') == 1
    assert bank.count(f"big = {2**80}") == bank.count('"" = 1') == bank.count("exists(deep" + ".k" * 50 + ")") == 1


@pytest.mark.parametrize(
    "bad",
    [7, {}, {"text": ""}, {"text": 1}, {"text": "a", "metadata": []}, {"text": "\ud83d"}, {"text": "a", "x": object()}],
)
def test_what_is_no_record_is_refused_whole(bank, bad):
    with pytest.raises(RecordError, match="record 1"):
        bank.upsert([seed(1), bad])
    assert len(bank) == bank.sequence == 0


def test_vectors_of_another_model_are_refused(bank, tmp_path):
    bank.upsert([seed(1)])
    with pytest.raises(BankError, match=r"hashing-cls.*other-cls"):
        SeedBank.open(bank.path, encoder=Hashing("other-cls"))
    with pytest.raises(BankError, match=r"max_length 512.*99"):
        SeedBank.open(bank.path, encoder=Hashing(max_length=99))
    own = Hashing().encode(["x"])
    with pytest.raises(BankError, match=r"hashing-cls.*other-cls"):
        bank.upsert([seed(2)], embeddings=own, fingerprint="other-cls")
    with pytest.raises(BankError, match="None"):
        bank.upsert([seed(2)], embeddings=own)
    for wrong, reason in (
        (Embeddings(dense=np.zeros((1, 9), np.float32)), "size 8, these of 9"),
        (Embeddings(dense=np.zeros((2, 8), np.float32)), "2 dense embeddings for 1 records"),
        (Embeddings(dense=np.full((1, 8), np.nan, np.float32)), "NaN"),
        (Embeddings(), "no dense"),
    ):
        with pytest.raises(EmbeddingError, match=reason):
            bank.upsert([seed(2)], embeddings=wrong, fingerprint="hashing-cls")
    assert len(bank) == 1
    bank.upsert([seed(2)], embeddings=Hashing().encode([seed(2)["text"]]), fingerprint="hashing-cls")
    assert_equals_a_file(bank, [seed(1), seed(2)])


def test_the_bank_finds_its_model_again(bge_folder, mean_folder, tmp_path):
    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch", max_length=64, truncate_dim=16)
    build(tmp_path / "bank", [seed(n) for n in range(5)], encoder=encoder)
    with SeedBank.open(tmp_path / "bank") as bank:
        assert bank.encoder.fingerprint == encoder.fingerprint
        assert bank.encoder.settings["max_length"] == 64
        bank.upsert([seed(9)])
        assert len(bank) == 6
    other = Encoder.from_pretrained(str(mean_folder), runtime="torch", max_length=64, truncate_dim=16)
    with pytest.raises(BankError, match=other.fingerprint):
        SeedBank.open(tmp_path / "bank", encoder=other)


def test_wrong_folders_and_settings(tmp_path, bank):
    with pytest.raises(BankError, match="no such folder"):
        SeedBank.open(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(BankError, match="not a seed bank"):
        SeedBank.open(tmp_path / "other")
    with pytest.raises(BankError, match="already exists; choose another folder or remove this one"):
        create(bank.path, BankSettings(routes=["bm25"]))
    for routes, reason in (
        ((), "no routes"),
        (("bm25", "bm25"), "each once"),
        (("nope",), "unknown"),
        (("dense",), "encoder"),
    ):
        with pytest.raises(UsageError, match=reason):
            create(tmp_path / "new", BankSettings(routes=routes))
    with pytest.raises(UsageError, match="cannot be indexed"):
        create(tmp_path / "new", BankSettings(routes=["bm25"], index_keys=["'a\"b'"]))
    with bank.view() as view, pytest.raises(UsageError, match="no route 'sparse'; it was built with bm25, dense"):
        view.index("sparse")
    assert not (tmp_path / "new").exists()


def test_an_empty_bank_counts_and_says_so_when_searched(bank):
    assert len(bank) == bank.count("a = 1") == stats(bank)["documents"] == 0
    bank.save_indexes()
    with bank.view() as view, pytest.raises(BankError, match="holds no seeds; add some"):
        view.index("dense")
    bank.upsert([seed(1)])
    assert_equals_a_file(bank, [seed(1)])
    bank.delete(["s1"])
    with bank.view() as view, pytest.raises(BankError, match="holds no seeds"):
        view.index("dense")


# --- several at once --------------------------------------------------------------------------------------------------


def test_readers_beside_a_writer_in_threads_see_whole_states(tmp_path):
    bank = create(tmp_path / "bank", BankSettings(routes=["bm25"]))
    bank.upsert([{"text": f"common v0 n{n}", "metadata": {"id": n, "version": 0}} for n in range(5)])
    failures, seen, over = [], set(), threading.Event()

    def read():
        try:
            while not over.is_set():
                with bank.view() as view:
                    found = view.index("bm25").search(["common"], 10)
                    records = view.records([row for row in found.rows[0].tolist() if row >= 0])
                    versions = {record["metadata"]["version"] for record in records}
                    with bank.view() as inner:  # the same state, and no deadlock
                        assert inner is view
                    allowed = view.rows(f"version = {max(versions)}")
                assert len(records) == 5 and len(versions) == 1, records
                assert allowed.sum() == 5
                seen.add(versions.pop())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 40):
        bank.upsert([{"text": f"common v{version} n{n}", "metadata": {"id": n, "version": version}} for n in range(5)])
        if version % 15 == 0:
            bank.compact()
    with bank.view() as view:  # what is acknowledged is seen
        assert view.record(len(view) - 1)["metadata"]["version"] == 39
    over.set()
    for thread in threads:
        thread.join()
    assert not failures and len(seen) > 1
    bank.close()


def test_a_second_writer_waits_and_then_says_so(bank):
    with SeedBank.open(bank.path, encoder=Hashing(), timeout=0.1) as other:
        with bank.store.writing():
            with pytest.raises(BankError, match=r"another process has been writing for 0\.1 s"):
                other.upsert([seed(1)])
            assert len(other) == 0  # reading goes on
        other.upsert([seed(1)])
    assert len(bank) == 1


def test_an_error_within_a_search_leaves_the_bank_usable(bank):
    bank.upsert([seed(1)])
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bank.view():
            raise ZeroDivisionError
        with pytest.raises(UsageError), bank.view() as view:
            view.rows("a =")
    bank.upsert([seed(2)])
    assert_equals_a_file(bank, [seed(1), seed(2)])
