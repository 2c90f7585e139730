"""A bank in Milvus is, to the last bit, what a bank on disk with the same changes is."""

import itertools
import random
import sys
import time

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ecom_rag import Recall
from ecom_rag.errors import BankBusyError, BankChangedError, BankError, EmbeddingError, RecordError, UsageError
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.pipeline import Pipeline
from ecom_rag.seeds import bank as on_disk
from ecom_rag.seeds import opening
from ecom_rag.seeds.bank import BankSettings, SeedBank
from ecom_rag.seeds.migrating import migrate
from ecom_rag.seeds.milvus import candidates, log, store
from ecom_rag.seeds.opening import open_remote
from helpers.equal_banks import QUERIES, TERMS, Encoder, asked, assert_equal
from helpers.small_banks import WORDS, Hashing, seed

_numbers = itertools.count()


@pytest.fixture(params=["milvus_lite", pytest.param("milvus_standalone", marks=pytest.mark.slow)])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def both(tmp_path_factory, server):
    """A function that makes two empty banks, on disk and in Milvus."""
    made = []

    def make(routes=server.routes):
        settings = BankSettings(routes=routes, index_keys=("label",))
        disk = on_disk.create(tmp_path_factory.mktemp("banks") / "bank", settings, encoder=Encoder())
        there = opening.create(server.url(f"b{next(_numbers)}"), settings, encoder=Encoder())
        made.extend([disk, there])
        return disk, there

    yield make
    for one in made:
        one.close()


def again(bank, **more):
    """Another handle on a bank."""
    return open_remote(f"{bank.engine.address.server}?bank={bank.engine.address.name}", encoder=Encoder(), **more)


def test_a_random_sequence_of_changes_leaves_two_equal_banks(both):
    disk, there = both()
    chance = random.Random(2)
    for turn in range(14):
        kind, numbers = chance.choice(["upsert", "upsert", "copies", "delete", "where", "refresh"]), range(26)
        some = chance.choices(numbers, k=chance.randrange(1, 12))
        for bank in (disk, there):
            if kind == "where":
                bank.delete(filter=f'label != "y" and turn = {turn - 2}', allow_most=True)
            elif kind == "delete":
                bank.delete([f"s{n}" for n in some])
            elif kind != "refresh":
                text = {"text": "全国 销量第一 copy"} if kind == "copies" else {}
                bank.upsert([{**seed(n, turn=turn), **text} for n in some])
            elif bank is there:
                there.refresh()
        assert disk.sequence == there.sequence
        filter = chance.choice([None, 'label = "x"', f"turn > {turn - 3}", "not exists(turn)"])
        assert_equal(disk, there, k=chance.choice([2, 5, 100]), filter=filter, own=chance.random() < 0.5)
    with again(there) as other:
        assert_equal(disk, other)


def test_ties_are_broken_by_the_earlier_row_however_many_the_server_gives(both, monkeypatch):
    disk, there = both()
    batch = [{"text": "replica watch" if n % 3 else f"leather wallet {n}", "metadata": {"n": n}} for n in range(150)]
    for bank in (disk, there):
        bank.upsert(batch)
        bank.delete(filter="n < 20")
    for most in (candidates.MOST, 40):
        monkeypatch.setattr(candidates, "MOST", most)
        for k in (1, 7, 1000):
            assert_equal(disk, there, k=k, queries=["replica watch", "leather wallet 30"], own=k == 7)


def test_a_mean_length_that_has_changed_costs_time_and_no_accuracy(both, milvus_lite, server):
    if server is not milvus_lite:
        pytest.skip("has no bm25")
    disk, there = both(("bm25",))
    for bank in (disk, there):
        bank.upsert([seed(n) for n in range(40)])
        bank.upsert([{"text": " ".join(f"{WORDS[n % 10]}{m}" for m in range(40)), "metadata": {}} for n in range(30)])
    assert opening.stats(there)["drift"]["bm25"] > 1.5
    assert_equal(disk, there)
    there.maintain()
    assert opening.stats(there)["drift"] == {"bm25": 1.0}
    assert_equal(disk, there)


def test_fused_results_labels_and_samples_are_the_same(both, server):
    disk, there = both()
    labels = ["x", 1, 1.0, True, None, 2**70, " x ", 0.5]
    for bank in (disk, there):
        bank.upsert([{**seed(n), "metadata": {"id": n, "label": labels[n % 8], "price": n % 7}} for n in range(120)])
        bank.delete([3, 4])
    assert opening.stats(there)["labels"] == opening.stats(disk)["labels"]
    queries = [{"text": text} for text in QUERIES if text]
    for wanted in (Recall(routes=server.routes), Recall(routes=server.routes, fusion="rrf", filter="price < 3")):
        ours, theirs = (Pipeline(bank, wanted, encoder=Encoder()) for bank in (disk, there))
        assert ours.recall(queries) == theirs.recall(queries)
        assert ours.notes == theirs.notes
    with disk.view() as ours, there.view() as theirs:
        (rows, mine), (others, yours) = ours.sample(10), theirs.sample(10)
        assert ours.records(rows.tolist()) == theirs.records(others.tolist()) and mine.texts == yours.texts
        assert [ours.labels("label")[row] for row in rows] == [theirs.labels("label")[row] for row in others]
        np.testing.assert_array_equal(mine.embeddings.dense, yours.embeddings.dense)


def test_records_come_back_as_they_were_written(both):
    disk, there = both(("dense",))
    odd = [
        {"text": "a\0b", "metadata": {"id": "x\0y", "k\0": "v\0w", "\x01": [1, 2.0, 1e300, -0.0]}, "more": {"a": None}},
        {"text": "\u200b.", "metadata": {"id": "long" * 2000, "big": 10**400, "deep": [[[[{"a": [True]}]]]], "z": 1}},
        {"text": "😀 ﾃｽﾄ \"'\\" * 500, "metadata": {"id": 7}},
        {"text": "no id", "metadata": {}},
    ]
    for bank in (disk, there):
        bank.upsert(odd)
    assert [repr(record) for record in there.documents()] == [repr(record) for record in odd]
    ids = ["x\0y", "long" * 2000, 7, "7", "none"]
    assert there.get(ids) == disk.get(ids)
    assert there.count('"k\\u0000" = "v"') == 1
    with disk.view() as ours, there.view() as theirs:
        queries = [{"text": "no id"}, {"text": "a\0b"}, {"text": "x", "metadata": {"id": "x\0y"}}]
        found = [[rows.tolist() for rows in view.own_rows(queries, "id")] for view in (ours, theirs)]
        assert found[0] == found[1]


def test_a_view_is_one_state_while_others_write(both, server):
    disk, there = both()
    for bank in (disk, there):
        bank.upsert([seed(n) for n in range(60)])
    with disk.view() as ours, there.view() as theirs:
        before = ours.search("dense", asked(), 5)
        with again(there) as other:
            other.delete([f"s{n}" for n in range(50)])
            other.upsert([seed(n, new=True) for n in range(20)])
            other.refresh()
            other.maintain()
            assert other.sequence == 3
        assert theirs.sequence == 1 and theirs.live == 60 and there.filter_notes("new = true") != []
        for route in server.routes:
            a, b = (view.search(route, asked(), 5) for view in (ours, theirs))
            np.testing.assert_array_equal(a.rows, b.rows)
            np.testing.assert_array_equal(a.scores, b.scores)
        assert theirs.records(before.rows[0].tolist()) == ours.records(before.rows[0].tolist())
    with there.view() as now:
        assert now.sequence == 3 and now.live == 30


def test_what_is_gone_is_deleted_in_the_end_and_who_still_reads_it_is_told(both, monkeypatch):
    disk, there = both(("dense",))
    client = there.engine.store.client
    for bank in (disk, there):
        bank.upsert([seed(n) for n in range(30)])
        bank.delete([f"s{n}" for n in range(10)])
    there.maintain()
    assert there.engine.store.client.count(log.read(client).noted.rows, "row >= 0") == 30
    monkeypatch.setattr(store, "GRACE", 0.0)
    with pytest.raises(BankChangedError, match="rows of sequence 2 are deleted by now; search again"):
        with there.view() as view:
            there.delete(["s10"])
            with again(there) as other:
                other.maintain()
            view.search("dense", asked(), 3)
    disk.delete(["s10"])
    there.refresh()
    there.maintain()
    noted = log.read(client).noted
    assert client.count(noted.rows, "row >= 0") == 19 == len(there) and noted.old == []
    assert [name for name in client.names() if name.startswith(f"{there.engine.address.name}_")] == [noted.rows]
    assert_equal(disk, there)


def test_writers_take_turns_and_may_expect_a_sequence(both, monkeypatch):
    _, there = both(("dense",))
    there.upsert([seed(1)])
    with pytest.raises(BankChangedError, match="at sequence 1; the change expected 0"):
        there.upsert([seed(2)], expected_sequence=0)
    with again(there, timeout=0.2) as other, there.engine.writing():
        with pytest.raises(BankBusyError, match=r"writing for 0\.2 s"):
            other.delete(["s1"])
    monkeypatch.setattr(store, "LEASE", -1.0)
    claim = store._Claim(there.engine.store.client, 1.0)
    claim.get()  # of a writer that was killed, and whose turn has ended
    monkeypatch.undo()
    assert there.delete(["s1"], expected_sequence=1).sequence == 2
    assert there.delete(["s1"]).sequence == 2 == there.sequence


def test_a_writer_that_stood_still_while_another_went_on_changes_nothing(both, monkeypatch):
    disk, there = both(("dense",))
    disk.upsert([seed(1)])
    with pytest.raises(BankBusyError, match="another process went on; nothing was written"):
        with there.engine.writing() as held:
            held.note("sizes", {"dense": 8})
            monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
            with again(there) as other:
                other.upsert([seed(1)])
    assert_equal(disk, there)


def test_an_interrupted_change_leaves_nothing(both, server):
    disk, there = both()
    for bank in (disk, there):
        bank.upsert([seed(n) for n in range(8)])
    for wrong in (KeyboardInterrupt, ValueError):
        with pytest.raises(wrong), there.engine.writing() as held:
            rows, _, _ = on_disk.documents.rows_of([{**seed(3), "text": "all new words"}, seed(90)], "id")
            vectors = Encoder().encode([row.text for row in rows])
            held.append(rows, vectors, there.sides, server.routes)
            log.write_gone(held.client, 2, [0, 1, 2])
            raise wrong
        assert_equal(disk, there)
    with pytest.raises(RecordError, match=r"the document takes .* bytes; a bank in Milvus holds up to 65535, cut it"):
        there.upsert([seed(5), {"text": "x" * 70000, "metadata": {"id": "long"}}])
    assert_equal(disk, there)
    for bank in (disk, there):
        bank.upsert([seed(5, new=True)])
    assert_equal(disk, there, filter="new = true")


def test_what_a_bank_in_milvus_cannot_do_is_said(both, server, milvus_lite):
    _, there = both()
    url = f"{there.engine.address.server}?bank={there.engine.address.name}"
    with pytest.raises(BankError, match="already exists; add to a bank"):
        opening.create(url, BankSettings(routes=("dense",)), encoder=Encoder())
    with pytest.raises(UsageError, match="has no route variant; give some of bm25,dense,sparse"):
        opening.create(server.url("other"), BankSettings(routes=("bm25", "variant")))
    with pytest.raises(BankError, match="no such bank; make one with ecom-rag bank build"):
        open_remote(server.url("none"))
    with pytest.raises(UsageError, match=r"is a bank in Milvus, .* here a bank on disk is needed"):
        SeedBank.open(url)
    with pytest.raises(UsageError, match="expected only secure=true"):
        open_remote(f"{url}&tls=1")
    with pytest.raises(BankError, match="holds vectors of the model"):
        there.use(Hashing("another-cls"))
    with pytest.raises(BankError, match="holds no seeds"), there.view() as view:
        view.search("dense", asked(), 5)
    there.upsert([seed(1)])
    wrong = Embeddings(np.ones((1, 9), np.float32), csr_matrix(np.ones((1, TERMS), np.float32)))
    with pytest.raises(EmbeddingError, match="dense vectors are of size 8, these of 9"):
        there.upsert([seed(2)], embeddings=wrong, fingerprint="hashing-cls")
    there.close()
    for question in (lambda: len(there), lambda: there.get(["s1"]), lambda: there.delete(["s1"])):
        with pytest.raises(BankError, match="the bank is closed"):
            question()
    if server is not milvus_lite:
        with pytest.raises(BankError, match=r"is Milvus 2\.3\.5.*, which has no sparse vectors, so no route bm25;"):
            opening.create(server.url("other"), BankSettings(routes=("bm25", "dense")), encoder=Encoder())


def test_an_index_that_may_miss_rows_is_refused(both):
    _, there = both(("dense",))
    there.upsert([seed(n) for n in range(5)])
    client, name = there.engine.store.client._client, log.read(there.engine.store.client).noted.rows
    client.release_collection(name)
    client.drop_index(name, "dense")
    chosen = client.prepare_index_params()
    chosen.add_index(
        "dense", index_type="HNSW", index_name="dense", metric_type="IP", params={"M": 8, "efConstruction": 64}
    )
    client.create_index(name, chosen)
    with pytest.raises(BankError, match=r"is HNSW \(IP\); expected FLAT \(IP\), which misses no row"):
        again(there)


def test_a_server_that_is_not_there_is_one_line_without_the_password():
    pytest.importorskip("pymilvus")
    with pytest.raises(BankError) as caught:
        open_remote("milvus://me:secret@127.0.0.1:1/none?bank=b")
    message = str(caught.value)
    assert message.startswith("milvus://me@127.0.0.1:1/none?bank=b: the server says: ") and "secret" not in message
    assert "\n" not in message


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UsageError, match=r"needs the package pymilvus; .* pip install 'ecom-rag\[milvus\]'"):
        open_remote("milvus://127.0.0.1:1/none?bank=b")


def test_there_and_back_again(server, tmp_path):
    source, url, back = str(tmp_path / "source"), server.url(f"b{next(_numbers)}"), str(tmp_path / "back")
    settings = BankSettings(routes=(*server.routes, "variant"))
    on_disk.build(source, [seed(n, price=n % 7) for n in range(60)], settings, encoder=Encoder())
    with SeedBank.open(source, encoder=Encoder()) as bank:
        bank.delete([f"s{n}" for n in range(0, 30, 3)])
        bank.upsert([seed(n, new=True) for n in range(5)])
    with pytest.raises(UsageError, match="a bank in Milvus has no route variant"):
        migrate(source, url)
    there = migrate(source, url, routes=server.routes)
    home = migrate(url, back)
    assert there.documents == home.documents == 52 and there.sequence == 3
    with SeedBank.open(source) as first, open_remote(url) as middle, SeedBank.open(back) as last:
        assert middle.settings == last.settings and first.model == middle.model == last.model
        assert list(first.documents()) == list(last.documents())
        assert_equal(last, middle, filter="price < 3", own=True)


def test_an_interrupted_copy_is_continued_and_cannot_be_opened_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr("ecom_rag.seeds.migrating._BLOCK", 10)
    source, url = str(tmp_path / "source"), server.url(f"b{next(_numbers)}")
    on_disk.build(source, [seed(n) for n in range(45)], BankSettings(routes=("dense",)), encoder=Encoder())
    copied = []

    def fail(count):
        copied.append(count)
        if len(copied) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(source, url, progress=fail)
    with pytest.raises(BankError, match="no such bank"):
        open_remote(url)
    done = migrate(source, url, resume=True)
    assert (done.documents, done.resumed) == (45, 30)
    with SeedBank.open(source) as first, open_remote(url) as other:
        assert_equal(first, other)
    with pytest.raises(BankError, match="already exists"):
        migrate(source, url)
