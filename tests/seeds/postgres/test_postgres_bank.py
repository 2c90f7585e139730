"""A bank in PostgreSQL is, to the last bit, what a bank on disk with the same changes is."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from ecom_rag import Recall
from ecom_rag.errors import BankBusyError, BankChangedError, BankError, EmbeddingError, RecordError, UsageError
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.pipeline import Pipeline
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds import bank as on_disk
from ecom_rag.seeds import opening
from ecom_rag.seeds.bank import BankSettings
from ecom_rag.seeds.opening import open_remote
from ecom_rag.seeds.postgres import candidates
from ecom_rag.seeds.remote.bounds import asked_terms
from helpers.equal_banks import QUERIES, ROUTES, TERMS, Encoder, asked, assert_equal
from helpers.small_banks import WORDS, Hashing, seed

pytestmark = pytest.mark.slow


@pytest.fixture
def both(tmp_path_factory, postgres_url):
    """A function that makes two empty banks, on disk and in PostgreSQL."""
    made = []

    def make(settings=None):
        settings = settings or BankSettings(routes=ROUTES, index_keys=("label",))
        disk = on_disk.create(tmp_path_factory.mktemp("banks") / "bank", settings, encoder=Encoder())
        server = opening.create(postgres_url(), settings, encoder=Encoder())
        made.extend([disk, server])
        return disk, server

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["the server orders", "the rows pass by"])
def way(request, monkeypatch):
    """Both ways to find candidates."""
    monkeypatch.setattr(candidates, "FEW", 10**6 if request.param == "the server orders" else 0)


NUMBERS = st.lists(st.integers(0, 25), min_size=1, max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), NUMBERS),
        st.tuples(st.just("copies"), NUMBERS),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("where"), st.sampled_from(['label = "x"', "turn < 2", 'label != "y" and turn > 3'])),
        st.tuples(st.just("refresh"), st.none()),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_sequence_of_changes_leaves_two_equal_banks(both, way, steps):
    disk, server = both()
    for turn, (kind, what) in enumerate(steps):
        if kind == "refresh":
            server.refresh()
            continue
        for bank in (disk, server):
            if kind == "where":
                bank.delete(filter=what, allow_most=True)
            elif kind == "delete":
                bank.delete([f"s{n}" for n in what])
            else:
                text = {"text": "全国 销量第一 copy"} if kind == "copies" else {}
                bank.upsert([{**seed(n, turn=turn), **text} for n in what])
        assert disk.sequence == server.sequence
    for k, filter, own in ((3, None, False), (100, 'label = "x"', False), (2, "turn > 1", True)):
        assert_equal(disk, server, k=k, filter=filter, own=own)


def test_ties_among_many_copies_are_broken_by_the_earlier_row(both, way):
    disk, server = both()
    batch = [{"text": "replica watch" if n % 3 else f"leather wallet {n}", "metadata": {"n": n}} for n in range(300)]
    for bank in (disk, server):
        bank.upsert(batch)
        bank.delete(filter="n < 20")
    for k in (1, 7, 60, 1000):
        assert_equal(disk, server, k=k, queries=["replica watch", "r3plica watch", "leather wallet 30"])
        assert_equal(disk, server, k=k, own=True, queries=["replica watch", "leather wallet 30"])


def test_a_mean_length_that_has_changed_costs_time_and_no_accuracy(both, way):
    disk, server = both()
    for bank in (disk, server):
        bank.upsert([seed(n) for n in range(40)])
        bank.upsert([{"text": " ".join(f"{WORDS[n % 10]}{m}" for m in range(40)), "metadata": {}} for n in range(30)])
    assert opening.stats(server)["drift"]["bm25"] > 1.5
    assert_equal(disk, server)
    server.maintain()
    assert set(opening.stats(server)["drift"].values()) == {1.0}
    assert_equal(disk, server)


def test_fused_results_are_the_same_lists(both):
    disk, server = both()
    batch = [seed(n, price=n % 7) for n in range(250)]
    for bank in (disk, server):
        bank.upsert(batch)
    queries = [{"text": text} for text in QUERIES if text]
    for wanted in (Recall(), Recall(fusion="rrf", filter="price < 3", exclude_self=True), Recall(routes=("dense",))):
        ours, theirs = (Pipeline(bank, wanted, encoder=Encoder()) for bank in (disk, server))
        assert ours.recall(queries) == theirs.recall(queries)
        assert ours.fitted == theirs.fitted and ours.notes == theirs.notes


def test_records_come_back_as_they_were_written(both):
    disk, server = both(BankSettings(routes=("bm25",)))
    odd = [
        {"text": "a\0b", "metadata": {"id": "x\0y", "k\0": "v\0w", "\x01": [1, 2.0, 1e300, -0.0]}, "more": {"a": None}},
        {
            "text": "\u200b.",
            "metadata": {"id": "long" * 2000, "big": 10**400, "deep": [[[[{"a": [True]}]]]], "z": 1, "a": 2},
        },
        {"text": "😀 ﾃｽﾄ" * 2000, "metadata": {"id": 7}},
        {"text": "no id", "metadata": {}},
    ]
    for bank in (disk, server):
        bank.upsert(odd)
    assert [repr(record) for record in server.documents()] == [repr(record) for record in odd]
    ids = ["x\0y", "long" * 2000, 7, "7", "none"]
    assert server.get(ids) == disk.get(ids)
    assert server.count('"k\\u0000" = "v"') == 1  # texts are compared up to their first NUL
    with disk.view() as ours, server.view() as theirs:
        for queries in ([{"text": "no id"}, {"text": "a\0b"}, {"text": "x", "metadata": {"id": "x\0y"}}],):
            assert [rows.tolist() for rows in theirs.own_rows(queries, "id")] == [
                rows.tolist() for rows in ours.own_rows(queries, "id")
            ]


def test_labels_samples_and_figures_are_those_of_a_bank_on_disk(both):
    disk, server = both()
    labels = ["x", 1, 1.0, True, None, 2**70, " x ", 0.5]
    for bank in (disk, server):
        bank.upsert([{**seed(n), "metadata": {"id": n, "label": labels[n % 8]}} for n in range(40)])
        bank.delete([3, 4])
    assert opening.stats(server)["labels"] == opening.stats(disk)["labels"]
    with disk.view() as ours, server.view() as theirs:
        live, others = (view.sample(1000)[0] for view in (ours, theirs))
        found = [ours.labels("label")[row] for row in live], [theirs.labels("label")[row] for row in others]
        assert found[0] == found[1] and len(theirs.labels("label")) - len(others) == 2
        (rows, mine), (others, yours) = ours.sample(10), theirs.sample(10)
        assert ours.records(rows.tolist()) == theirs.records(others.tolist()) and mine.texts == yours.texts
        np.testing.assert_array_equal(mine.embeddings.dense, yours.embeddings.dense)
        assert (mine.embeddings.sparse != yours.embeddings.sparse).nnz == 0


def test_a_view_is_one_state_while_others_write(both):
    disk, server = both()
    for bank in (disk, server):
        bank.upsert([seed(n) for n in range(60)])
    with disk.view() as ours, server.view() as theirs:
        before = ours.search("bm25", asked(), 5)
        with open_remote(server_url(server), encoder=Encoder()) as other:
            other.delete([f"s{n}" for n in range(50)])
            other.upsert([seed(n, new=True) for n in range(20)])
            other.refresh()
            assert other.sequence == 3
        assert theirs.sequence == 1 and theirs.live == 60 and server.filter_notes("new = true") != []
        for route in ROUTES:
            a, b = (view.search(route, asked(), 5) for view in (ours, theirs))
            np.testing.assert_array_equal(a.rows, b.rows)
            np.testing.assert_array_equal(a.scores, b.scores)
        assert theirs.records(before.rows[0].tolist()) == ours.records(before.rows[0].tolist())
    with server.view() as now:
        assert now.sequence == 3 and now.live == 30


def server_url(bank):
    return f"{bank.engine.address.server}?bank={bank.engine.address.name}"


def test_writers_take_turns_and_may_expect_a_sequence(both):
    _, server = both()
    server.upsert([seed(1)])
    with pytest.raises(BankChangedError, match="at sequence 1; the change expected 0"):
        server.upsert([seed(2)], expected_sequence=0)
    with open_remote(server_url(server), encoder=Encoder(), timeout=0.2) as other, server.engine.writing():
        with pytest.raises(BankBusyError, match=r"writing for 0\.2 s"):
            other.delete(["s1"])
    assert server.delete(["s1"], expected_sequence=1).sequence == 2
    assert server.delete(["s1"]).sequence == 2 == server.sequence


def test_a_batch_is_written_completely_or_not_at_all(both):
    _, server = both(BankSettings(routes=("bm25",)))
    server.upsert([seed(1)])
    with pytest.raises(RecordError, match=r"16001 different terms for the route bm25; .* holds texts of up to 16000"):
        server.upsert([seed(2), {"text": " ".join(map(str, range(100000, 116001))), "metadata": {"id": "long"}}])
    assert len(server) == 1 and server.sequence == 1 and server.count('id = "s2"') == 0
    assert opening.stats(server)["drift"]["bm25"] == 1.0


def test_what_a_bank_in_postgresql_cannot_do_is_said(both, postgres_url, tmp_path):
    _, server = both()
    url = server_url(server)
    with pytest.raises(BankError, match="already exists; add to a bank"):
        opening.create(url, BankSettings(routes=("bm25",)))
    with pytest.raises(UsageError, match="has no route multivector; give some of bm25,dense,sparse,variant"):
        opening.create(postgres_url(), BankSettings(routes=("bm25", "multivector")), encoder=Hashing())
    with pytest.raises(BankError, match="no such bank; make one with ecom-rag bank build"):
        open_remote(postgres_url())
    with pytest.raises(UsageError, match=r"is a bank in PostgreSQL, .* here a bank on disk is needed"):
        on_disk.SeedBank.open(url)
    with pytest.raises(BankError, match="holds vectors of the model"):
        server.use(Hashing("another-cls"))
    with pytest.raises(BankError, match="holds no seeds"), server.view() as view:
        view.search("bm25", asked(), 5)
    server.upsert([seed(1)])
    with pytest.raises(UsageError, match="has no route 'multivector'"), server.view() as view:
        view.search("multivector", asked(), 5)
    wrong = Embeddings(np.ones((1, 9), np.float32), csr_matrix(np.ones((1, TERMS), np.float32)))
    with pytest.raises(EmbeddingError, match="dense vectors are of size 8, these of 9"):
        server.upsert([seed(2)], embeddings=wrong, fingerprint="hashing-cls")
    below = Embeddings(np.ones((1, 8), np.float32), csr_matrix(-np.ones((1, TERMS), np.float32)))
    with pytest.raises(EmbeddingError, match=r"weight of -1\.0"):
        server.upsert([seed(2)], embeddings=below, fingerprint="hashing-cls")
    server.upsert([seed(n) for n in range(30)])
    with pytest.raises(UsageError, match=r"the filter matches 30 of 30 documents; .* pass `allow_most`"):
        server.delete(filter='id != "none"')
    with pytest.raises(UsageError, match="the filter is empty"):
        server.delete(filter={})
    with pytest.raises(UsageError, match="delete takes ids or a filter"):
        server.delete()
    server.close()
    for question in (lambda: len(server), lambda: server.get(["s1"]), lambda: server.delete(["s1"])):
        with pytest.raises(BankError, match="the bank is closed"):
            question()


def test_terms_of_another_version_are_refused_until_they_are_made_anew(both, monkeypatch):
    disk, server = both()
    for bank in (disk, server):
        bank.upsert([seed(n) for n in range(30)])
    with monkeypatch.context() as patch:
        patch.setattr("ecom_rag.seeds.remote.bank.__version__", "9.9")
        for change in (lambda: server.upsert([seed(1)]), lambda: server.delete(["s1"])):
            with pytest.raises(BankError, match=r"made by ecom_rag .*, this is 9\.9; make them anew"):
                change()
        with server.view() as view:
            view.search("dense", asked(), 3)
            with pytest.raises(BankError, match="make them anew with ecom-rag bank refresh"):
                view.search("bm25", asked(), 3)
        server.refresh()
        assert_equal(disk, server)


def test_a_server_that_is_not_there_is_one_line_without_the_password():
    with pytest.raises(BankError) as caught:
        open_remote("postgresql://me:secret@127.0.0.1:1/none?bank=b")
    message = str(caught.value)
    assert message.startswith("postgresql://me@127.0.0.1:1/none?bank=b: the server says: ") and "secret" not in message
    assert "\n" not in message


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("largest_ratio", [1.0, 1.3])
def test_no_candidate_is_missed(negative, largest_ratio):
    """Scores that are apart as far as the bound allows, in the worst direction: the k best of ours are among them."""
    chance = random.Random(3)
    for _ in range(300):
        n, k = chance.randrange(1, 40), chance.randrange(1, 12)
        ours = [chance.choice([0.0, round(chance.random() * 3, 1)]) for _ in range(n)]
        weights = np.array([1.0, -0.5] if negative else [1.0, 0.5], np.float32)
        one = asked_terms(np.array([1, 2]), weights, largest=1.0, ratio=largest_ratio)
        apart = one.bound
        ratio, slack = 1 + (apart.ratio - 1) * 0.999, apart.slack * 0.999
        theirs = [s if s == 0 else chance.choice([s / ratio - slack, s * ratio + slack]) for s in ours]
        kth = sorted(theirs, reverse=True)[k - 1] if n >= k else -np.inf
        kept = one.kept(np.array(theirs), kth)
        best = sorted((row for row in range(n) if ours[row] > 0), key=lambda row: (-ours[row], row))[:k]
        assert all(kept[row] or theirs[row] == 0 for row in best)
        assert not any(kept[row] for row in range(n) if ours[row] == 0 and theirs[row] == 0)


def test_pairs_of_numbers_that_differ_are_rounded_as_bounded(both):
    """The dense bound, against rows that are almost equal."""
    disk, server = both(BankSettings(routes=("dense",)))
    base = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    rows = np.stack([np.nextafter(base, base + sign, dtype=np.float32) for sign in (1, -1) for _ in range(40)])
    rows += np.random.default_rng(1).integers(0, 3, rows.shape).astype(np.float32) * np.float32(1e-7)
    batch = [seed(n) for n in range(len(rows))]
    for bank in (disk, server):
        bank.upsert(batch, embeddings=Embeddings(rows), fingerprint="hashing-cls")
    queries = Queries(["q"] * 3, Embeddings(np.stack([base, -base, rows[3]])))
    for k, few in itertools.product((1, 5, 30), (0, 10)):
        candidates.FEW, before = few, candidates.FEW
        with disk.view() as ours, server.view() as theirs:
            a, b = (view.search("dense", queries, k) for view in (ours, theirs))
        candidates.FEW = before
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.scores, b.scores)
