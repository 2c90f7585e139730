"""A bank equals a file of its documents, whatever was done to it, reopened, compacted, copied or damaged."""

import json
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag import Encoder
from ecom_rag.errors import BankError, EmbeddingError, RecordError, UsageError
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.bank import SeedBank
from ecom_rag.retrieval.bank.expressions import parse
from ecom_rag.retrieval.bank.filters import matches
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.variant import VariantIndex

WORDS = ["手机壳", "leather", "wallet", "全国", "销量第一", "微信", "replica", "watch", "茶", "best"]


class Hashing:
    """Vectors that depend on the text alone, without a network."""

    fingerprint = "hashing-cls"
    checkpoint = SimpleNamespace(folder=Path("nowhere"), pooling="cls")

    def __init__(self, fingerprint="hashing-cls", max_length=512):
        self.fingerprint = fingerprint
        self.settings = {"max_length": max_length, "query_instruction": "", "passage_instruction": ""}

    def check_outputs(self, outputs):
        assert set(outputs) <= {"dense"}

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        rows = [np.random.default_rng(list(text.encode())).standard_normal(8) for text in texts]
        return Embeddings(dense=np.array(rows, np.float32))


def seed(number, **metadata):
    text = f"{WORDS[number % 10]} {WORDS[number * 7 % 9]} {number}"
    return {"text": text, "metadata": {"id": f"s{number}", "label": "xyz"[number % 3], **metadata}}


def texts_found(view, found):
    return [[view.record(row)["text"] for row in ids if row >= 0] for ids in found.ids.tolist()]


def assert_equals_a_file(bank, expected, queries=("leather wallet", "茶 3", "全国 销量第一 watch"), filter=None):
    """The routes over the bank and over a list of the same documents: the same scores, the same order."""
    encoder = Hashing()
    dense = encoder.encode([record["text"] for record in expected]).dense.reshape(-1, 8)
    asked = encoder.encode(queries).dense
    fresh = {"bm25": (BM25Index([r["text"] for r in expected]), queries), "dense": (DenseIndex(dense), asked)}
    with bank.view() as view:
        assert view.live == len(expected)
        allowed = view.rows(filter)
        mask = None if filter is None else np.array([matches(parse(filter), r["metadata"]) for r in expected], bool)
        for route, (index, form) in fresh.items():
            theirs = index.search(form, 5, allowed=mask)
            ours = view.index(route).search(form, 5, allowed=allowed)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            wanted = [[expected[row] for row in ids if row >= 0] for ids in theirs.ids.tolist()]
            assert [view.records([row for row in ids if row >= 0]) for ids in ours.ids.tolist()] == wanted


@pytest.fixture
def bank(tmp_path):
    with SeedBank.create(tmp_path / "bank", encoder=Hashing(), index_keys=["label"]) as made:
        yield made


def test_all_routes_over_a_file_and_over_a_bank_are_identical(m3_folder, tmp_path):
    encoder = Encoder.from_pretrained(str(m3_folder), runtime="torch")
    seeds = [seed(n, price=n) for n in range(60)]
    routes = ("bm25", "dense", "sparse", "multivector", "variant")
    built = SeedBank.build(tmp_path / "bank", seeds, encoder=encoder, routes=routes)
    built.close()
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
                    np.testing.assert_array_equal(ours.ids, theirs.ids)
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
        st.tuples(st.sampled_from(["search", "save", "compact", "reopen", "rebuild", "other"]), st.none()),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_sequence_of_changes_leaves_the_bank_equal_to_a_file(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("banks") / "bank"
    bank = SeedBank.create(path, encoder=Hashing(), index_keys=["label"])
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
            assert bank.count(what) == sum(hit) == bank.delete(filter=what).removed
            expected = [record for record, gone in zip(expected, hit, strict=True) if not gone]
        elif step == "search" and expected:
            assert_equals_a_file(bank, expected, filter='label in ("x", "z")')
        elif step == "save":
            bank.save_indexes()
        elif step == "compact":
            bank.compact()
            assert bank.stats()["removed_rows"] == 0
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
    with SeedBank.create(tmp_path / "b", routes=["bm25"], id_key="sku") as bank:
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
    SeedBank.build(tmp_path / "bank", [seed(n) for n in range(5)], encoder=encoder).close()
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
    with pytest.raises(BankError, match="is there already"):
        SeedBank.create(bank.path, routes=["bm25"])
    for routes, reason in (
        ((), "none"),
        (("bm25", "bm25"), "each once"),
        (("nope",), "unknown"),
        (("dense",), "encoder"),
    ):
        with pytest.raises(UsageError, match=reason):
            SeedBank.create(tmp_path / "new", routes=routes)
    with pytest.raises(UsageError, match="cannot be indexed"):
        SeedBank.create(tmp_path / "new", routes=["bm25"], index_keys=["'a\"b'"])
    with bank.view() as view, pytest.raises(UsageError, match="no route 'sparse'; it was built with bm25, dense"):
        view.index("sparse")
    assert not (tmp_path / "new").exists()


def test_an_empty_bank_counts_and_says_so_when_searched(bank):
    assert len(bank) == bank.count("a = 1") == bank.stats()["documents"] == 0
    bank.save_indexes()
    with bank.view() as view, pytest.raises(BankError, match="holds no seeds; add some"):
        view.index("dense")
    bank.upsert([seed(1)])
    assert_equals_a_file(bank, [seed(1)])
    bank.delete(["s1"])
    with bank.view() as view, pytest.raises(BankError, match="holds no seeds"):
        view.index("dense")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path):
    """A bank with saved indexes, and what is in it."""
    seeds = [seed(n) for n in range(40)]
    SeedBank.build(tmp_path / "bank", seeds, encoder=Hashing()).close()
    return tmp_path / "bank", seeds


def saved_file(path, name="dense.vectors.npy"):
    return next(path.glob(f"indexes/*/{name}"))


def damage_truncate(path):
    file = saved_file(path)
    file.write_bytes(file.read_bytes()[:-100])


def damage_flip(path):
    file = saved_file(path, "bm25.lengths.npy")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def damage_manifest(path):
    saved_file(path, "manifest.json").write_text('{"header":')


def damage_missing(path):
    saved_file(path).unlink()


def damage_no_manifest(path):
    saved_file(path, "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_truncate, "dense.vectors.npy has .* bytes instead of"),
        (damage_flip, "bm25.lengths.npy has another checksum"),
        (damage_manifest, "cannot be used"),
        (damage_missing, "dense.vectors.npy is missing"),
        (damage_no_manifest, "manifest.json is missing"),
    ],
)
def test_damaged_indexes_are_built_anew_with_one_line(closed, caplog, damage, reason):
    path, seeds = closed
    damage(path)
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
        assert [r.message for r in caplog.records if "built anew" in r.message and "\n" not in r.message]
        assert len(caplog.records) == 1
        assert re.search(reason, caplog.text)


def test_missing_indexes_are_built_without_a_word(closed, caplog):
    path, seeds = closed
    shutil.rmtree(path / "indexes")
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
    assert not caplog.records


def test_indexes_of_another_bank_or_analyzer_are_not_taken(closed, caplog, tmp_path):
    path, _ = closed
    other = [seed(n + 100) for n in range(40)]
    SeedBank.build(tmp_path / "other", other, encoder=Hashing()).close()
    shutil.rmtree(tmp_path / "other" / "indexes")
    shutil.copytree(path / "indexes", tmp_path / "other" / "indexes")
    with SeedBank.open(tmp_path / "other") as bank:
        assert_equals_a_file(bank, other)
    assert "other settings" in caplog.text


@pytest.mark.parametrize("where", ["start", "schema", "middle", "empty", "other"])
def test_a_damaged_record_is_one_line(closed, where):
    path, _ = closed
    file = path / "bank.db"
    content = bytearray(file.read_bytes())
    if where == "empty":
        content = bytearray()
    elif where == "other":
        content[68:72] = b"abcd"  # the application id
    else:
        place = {"start": 0, "schema": 100, "middle": 8192}[where]
        content[place : place + 4000] = b"\xff" * 4000
        if where == "middle":
            content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(BankError, match=r"bank.db: is (damaged|another program's)") as caught:
        with SeedBank.open(path) as bank:
            bank.get(["s1"])
    assert "\n" not in str(caught.value)


# --- several at once --------------------------------------------------------------------------------------------------


def test_readers_beside_a_writer_in_threads_see_whole_states(tmp_path):
    bank = SeedBank.create(tmp_path / "bank", routes=["bm25"])
    bank.upsert([{"text": f"common v0 n{n}", "metadata": {"id": n, "version": 0}} for n in range(5)])
    failures, seen, over = [], set(), threading.Event()

    def read():
        try:
            while not over.is_set():
                with bank.view() as view:
                    found = view.index("bm25").search(["common"], 10)
                    records = view.records([row for row in found.ids[0].tolist() if row >= 0])
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
        with bank._store.writing():
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


# --- upkeep and copies ------------------------------------------------------------------------------------------------


def test_upkeep_is_done_when_due(bank, monkeypatch):
    from ecom_rag.retrieval.bank import bank as module

    monkeypatch.setattr(module, "_MANY", 10)
    for turn in range(4):
        bank.upsert([seed(n, turn=turn) for n in range(8)])
    folders = list((bank.path / "indexes").glob("*-*"))
    assert len(folders) == 1  # older ones are dropped
    assert bank.stats()["removed_rows"] <= 10
    assert_equals_a_file(bank, [seed(n, turn=3) for n in range(8)])


def test_failed_upkeep_does_not_hide_a_change(bank, monkeypatch):
    from ecom_rag.retrieval.bank import bank as module

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_MANY", 1)
    monkeypatch.setattr(SeedBank, "save_indexes", full)
    change = bank.upsert([seed(n) for n in range(8)])
    assert change.added == 8 and len(bank) == 8 and "No space left" in change.notes[-1]
    change = bank.delete(["s1"])
    assert change.removed == 1 and len(bank) == 7 and "the change is written" in change.notes[-1]


def test_unusable_saved_indexes_are_written_anew(bank):
    bank.upsert([seed(n) for n in range(8)])
    bank.save_indexes()
    (manifest,) = (bank.path / "indexes").glob("*/manifest.json")
    sound = manifest.read_text()
    manifest.write_text(sound.replace('"header": {', '"header": {"version": "older", '))
    with SeedBank.open(bank.path) as again:
        again.refresh()
        again.save_indexes()
    assert manifest.read_text() == sound


def test_labels_are_counted_as_they_are_shown(tmp_path):
    labels = ["1", 1, 1, True, "true", None]
    records = [{"text": f"t{n}", "metadata": {"policy": {"label": label}}} for n, label in enumerate(labels)]
    with SeedBank.build(tmp_path / "bank", records, routes=["bm25"], label_key="policy.label") as bank:
        assert bank.stats()["labels"] == {"1": 3, "true": 2, "null": 1}


def test_stats(bank):
    bank.upsert([seed(n) for n in range(7)] + [{"text": "t", "metadata": {"label": True}}, {"text": "u"}])
    bank.delete(["s0"])
    stats = bank.stats()
    assert stats["labels"] == {"y": 2, "z": 2, "x": 2, "true": 1} and stats["documents"] == 8
    assert stats["removed_rows"] == 1 and stats["sequence"] == 2 and stats["model"]["fingerprint"] == "hashing-cls"
    assert stats["bytes"] > 8192 and stats["index_keys"] == ["label"]
    json.dumps(stats)


def test_a_snapshot_is_one_state_and_restores_to_an_equal_bank(bank, tmp_path):
    bank.upsert([seed(n) for n in range(20)])
    bank.delete(["s3"])
    expected = [seed(n) for n in range(20) if n != 3]
    note = bank.snapshot(tmp_path / "copy")
    assert (note["sequence"], note["documents"]) == (2, 19)
    bank.upsert([seed(50)])
    with SeedBank.restore(tmp_path / "copy", tmp_path / "again") as again:
        assert_equals_a_file(again, expected)
        assert list((tmp_path / "again" / "indexes").glob("2-*"))  # they came along
    with pytest.raises(BankError, match="is there already"):
        bank.snapshot(tmp_path / "copy")
    with pytest.raises(BankError, match="is there already"):
        SeedBank.restore(tmp_path / "copy", bank.path)
    with pytest.raises(BankError, match="not a snapshot"):
        SeedBank.restore(bank.path, tmp_path / "third")
    content = bytearray((tmp_path / "copy" / "bank.db").read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy" / "bank.db").write_bytes(content)
    with pytest.raises(BankError, match="damaged"):
        SeedBank.restore(tmp_path / "copy", tmp_path / "third")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["again", "bank", "copy"]


def test_a_copy_leaves_an_unfinished_build_of_its_name_alone(bank, tmp_path):
    bank.upsert([seed(1)])
    bank.snapshot(tmp_path / "copy")
    unfinished = tmp_path / "third.partial"
    unfinished.mkdir()
    (unfinished / "bank.db").write_bytes(b"blocks that are done")
    SeedBank.restore(tmp_path / "copy", tmp_path / "third").close()
    assert (unfinished / "bank.db").read_bytes() == b"blocks that are done"


def test_a_build_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    from ecom_rag.errors import ResumeError
    from ecom_rag.retrieval.bank import build, building

    monkeypatch.setattr(building, "_BLOCK_RECORDS", 8)
    seeds = [seed(n) for n in range(30)]

    def cut(count):
        yield from seeds[:count]
        raise KeyboardInterrupt

    path = tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        build(path, cut(5), encoder=Hashing())
    assert not list(tmp_path.iterdir())  # nothing to keep yet
    with pytest.raises(KeyboardInterrupt):
        build(path, cut(20), encoder=Hashing())
    assert [item.name for item in tmp_path.iterdir()] == ["bank.partial"]
    for others in (seeds[:6], seeds[:16][::-1], seeds[1:]):
        with pytest.raises(ResumeError, match="16 records"):
            build(path, others, encoder=Hashing(), resume=True)
    with pytest.raises(ResumeError, match="id_key: id, now sku"):
        build(path, seeds, encoder=Hashing(), id_key="sku", resume=True)
    with pytest.raises(BankError, match="other-cls"):
        build(path, seeds, encoder=Hashing("other-cls"), resume=True)
    built = build(path, seeds, encoder=Hashing(), resume=True)
    assert (built.records, built.resumed, built.added) == (30, 16, 14)
    assert [item.name for item in tmp_path.iterdir()] == ["bank"]
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
    with pytest.raises(BankError, match="is there already"):
        build(path, seeds, encoder=Hashing())
    with pytest.raises(UsageError, match="does not exist"):
        build(tmp_path / "no" / "bank", seeds, encoder=Hashing())
