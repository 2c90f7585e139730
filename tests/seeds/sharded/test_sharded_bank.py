"""A bank in shards against the whole bank: the same rows, scores and results, to the last bit."""

import itertools
import random

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ecom_rag.errors import BankError, UsageError
from ecom_rag.models.embeddings import Embeddings, Ragged
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, derived
from ecom_rag.seeds.sharded.bank import shards_of
from ecom_rag.seeds.sharded.shard import Part, spans_of
from helpers import random_filters
from helpers.equal_banks import Encoder as TwoOutputs
from helpers.local_shards import Here, sharded
from helpers.small_banks import WORDS

ROUTES = ("bm25", "dense", "sparse", "multivector", "variant")
QUERIES = [
    "leather wallet",
    "销量第一 茶",
    "watch",
    "l3ather w.a.l.l.e.t",
    "销.量.弟一",
    "薇信",
    "wx",
    "zzz",
    "",
    "best best 茶",
]


class Encoder(TwoOutputs):
    """Dense vectors, term weights and a vector a word, which depend on the text alone."""

    def check_outputs(self, outputs):
        assert set(outputs) <= {"dense", "sparse", "multivector"}

    def encode(self, texts, *, side="passage", outputs=(), progress=None):
        found = super().encode(texts)
        vectors = [[_unit(word) for word in text.split()] for text in texts]
        ragged = Ragged.of([np.array(rows, np.float32).reshape(-1, 6) for rows in vectors])
        return Embeddings(found.dense, csr_matrix(found.sparse), ragged)


def _unit(word):
    vector = np.random.default_rng(list(word.encode())).standard_normal(6)
    return vector / np.linalg.norm(vector)


def record(chance, number):
    """Few words, so that many texts are equal or nearly so."""
    text = " ".join(chance.choices(WORDS, k=chance.randrange(1, 4)))
    metadata = {"id": f"s{number}", "label": chance.choice("xyz"), "a": random_filters.value(chance)}
    return {"text": text, "metadata": metadata}


def changed_bank(path, chance):
    """A bank that has been through changes: indexes saved before, between or after them, compacted or not."""
    count = chance.choice([1, 2, 7, 60, 150])
    settings = BankSettings(routes=list(ROUTES))
    build(path, [record(chance, number) for number in range(count)], settings, encoder=Encoder())
    bank = SeedBank.open(path, encoder=Encoder(), maintain=False)
    for _ in range(chance.randrange(4)):
        what = chance.randrange(4)
        if what == 0:
            bank.upsert([record(chance, chance.randrange(count + 30)) for _ in range(chance.randrange(1, 30))])
        elif what == 1 and len(bank) > 1:
            names = [one["metadata"]["id"] for one in bank.documents()]
            first = chance.randrange(len(names))
            bank.delete(names[first : first + chance.randrange(len(names) - 1)][: len(names) - 1])
        elif what == 2:
            bank.save_indexes()
        else:
            bank.compact()
    return bank


@pytest.mark.parametrize("seed", range(30))
def test_every_route_finds_what_the_whole_bank_finds(tmp_path, seed):
    chance = random.Random(seed)
    bank = changed_bank(tmp_path / "bank", chance)
    records = [{"text": text, "metadata": {}} for text in QUERIES]
    asked = Queries(QUERIES, Encoder().encode(QUERIES))
    for count in (2, 3, 9 if len(bank) > 20 else 500):
        shards = sharded(bank, count)
        assert len(shards) == len(bank)
        for filter in (None, random_filters.tree(chance)):
            k, own = chance.choice([1, 3, 10, 400]), chance.random() < 0.5
            with bank.view() as whole, shards.view() as parts:
                rows = [view.own_rows(records, "id") if own else None for view in (whole, parts)]
                for route in ROUTES:
                    both = [
                        view.search(route, asked, k, where=filter, own=mine)
                        for view, mine in zip((whole, parts), rows, strict=True)
                    ]
                    assert_same(whole, parts, *both)
                offered = np.array(chance.choices(np.flatnonzero(live(whole)).tolist(), k=40)).reshape(10, 4)
                numbers = whole.derived.rows.rows[offered]
                again = whole.rescore("multivector", asked, offered, 3), parts.rescore("multivector", asked, numbers, 3)
                assert_same(whole, parts, *again)
                assert [one for one in whole.labels("label") if one] == [one for one in parts.labels("label") if one]
                sample = whole.sample(5), parts.sample(5)
                assert sample[0][1].texts == sample[1][1].texts


def live(view):
    mask = view.index("dense").live
    return np.ones(len(view), bool) if mask is None else mask


def assert_same(whole, parts, ours, theirs):
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    expected = np.where(ours.rows >= 0, whole.derived.rows.rows[ours.rows], -1)
    np.testing.assert_array_equal(expected, theirs.rows)
    found = sorted(set(theirs.rows[theirs.rows >= 0].tolist()))
    places = np.searchsorted(whole.derived.rows.rows, found)
    assert whole.records(places.tolist()) == parts.records(found)


@pytest.mark.parametrize("seed", range(12))
def test_results_of_a_pipeline_are_the_same(tmp_path, seed):
    chance = random.Random(seed)
    bank = changed_bank(tmp_path / "bank", chance)
    routes = chance.sample(ROUTES, chance.randrange(1, 6))
    settings = Recall(
        routes=routes,
        fusion=chance.choice(["auto", "rrf", "weighted", "zscore", "dbsf"]) if len(routes) > 1 else None,
        depth=chance.choice([20, 100]) if len(routes) > 1 else 100,
        top_k=chance.choice([1, 5, 15]),
        filter=chance.choice([None, 'label in ("x", "y")']),
        exclude_self=chance.random() < 0.5,
        exact_multivector="multivector" in routes and len(routes) > 1 and chance.random() < 0.5,
    )
    queries = [{"text": text, "metadata": {"id": "s3"}} for text in QUERIES if text]
    expected = Pipeline(bank, settings, encoder=Encoder()).recall(queries)
    for count in (2, 5):
        assert Pipeline(sharded(bank, count), settings, encoder=Encoder()).recall(queries) == expected


def test_fitted_weights_are_the_same(tmp_path):
    """Enough labelled seeds that ``auto`` fits; not by the cache, where the whole bank's fit would lie."""
    from ecom_rag.pipeline.seed_fusion import fit_on_seeds

    chance = random.Random(1)
    items = [record(chance, number) for number in range(400)]
    build(tmp_path / "bank", items, BankSettings(routes=list(ROUTES)), encoder=Encoder())
    bank = SeedBank.open(tmp_path / "bank", encoder=Encoder())
    fits = []
    for seeds in (bank, sharded(bank, 3)):
        pipeline = Pipeline(seeds, Recall(fusion="rrf"), encoder=Encoder())
        with seeds.view() as view:

            def search(routes, queries, own, pipeline=pipeline, view=view):
                return pipeline.search(view, queries, routes=routes, own=own)

            fits.append(fit_on_seeds(view, ROUTES, search, label_key="label", id_key="id"))
    assert fits[0] == fits[1]


def test_many_copies_of_the_query_itself(tmp_path):
    """More than a search asks deeper for: they are left out by a mask, with a filter by a condition."""
    items = [{"text": "leather wallet", "metadata": {"label": "x"}, "number": number} for number in range(90)]
    items += [{"text": f"leather {word}", "metadata": {"label": "x"}} for word in WORDS]
    build(tmp_path / "bank", items, BankSettings(routes=list(ROUTES)), encoder=Encoder())
    bank = SeedBank.open(tmp_path / "bank", encoder=Encoder())
    for filter in (None, 'label = "x"'):
        settings = Recall(exclude_self=True, filter=filter, fusion="rrf", top_k=20)
        found = [
            Pipeline(seeds, settings, encoder=Encoder()).recall([{"text": "leather wallet", "metadata": {}}])
            for seeds in (bank, sharded(bank, 3))
        ]
        assert found[0] == found[1] and found[0][0]["topk_seed"]
        assert "leather wallet" not in found[0][0]["topk_seed"]


def test_a_shard_loads_its_own_rows_alone(tmp_path, monkeypatch):
    """From saved indexes as from the record."""
    chance = random.Random(2)
    items = [record(chance, number) for number in range(100)]
    items[80]["text"] = "unheard-of"
    build(tmp_path / "bank", items, BankSettings(routes=list(ROUTES)), encoder=Encoder())
    part = Part(str(tmp_path / "bank"), (30, 60), SeedBank.open(tmp_path / "bank").sequence)
    with monkeypatch.context() as patch:
        patch.setattr(derived, "items_of", None)  # nothing is read from the record
        saved = part.open()._derived
    monkeypatch.setattr(derived.saved, "newest", lambda *_: [])
    built = part.open()._derived
    for one in (saved, built):
        assert one.rows.rows.tolist() == list(range(30, 60))
        assert {len(index) for index in one.indexes.values()} == {30}
        assert set(one.indexes["bm25"]._vocabulary) == set(
            BM25Index([item["text"] for item in items[30:60]])._vocabulary
        )


def test_a_bank_that_changes_is_refused(tmp_path):
    chance = random.Random(3)
    build(tmp_path / "bank", [record(chance, n) for n in range(20)], BankSettings(routes=["bm25"]))
    bank = SeedBank.open(tmp_path / "bank")
    held = []
    shards = shards_of(bank, ("bm25",), 2, lambda parts: held.extend(parts) or Here(parts))
    seeds = sharded(bank, 2)
    with seeds.view() as view:
        bank.delete(["s1"])
        assert view.search("bm25", Queries(["茶"], Embeddings()), 3).rows.shape == (1, 3)
        with pytest.raises(BankError, match="has changed since the run began"):
            view.search("bm25", Queries(["茶"], Embeddings()), 3, where='label = "x"')
    with pytest.raises(BankError, match="has changed since the run began"), seeds.view():
        pass
    with pytest.raises(BankError, match="has changed since the run began"):
        held[0].open()
    with pytest.raises(BankError, match="has changed since the run began"):
        type(seeds)(bank, shards)


def test_what_has_no_shards_is_refused(tmp_path):
    build(
        tmp_path / "bank",
        [record(random.Random(4), n) for n in range(9)],
        BankSettings(list(ROUTES)),
        encoder=Encoder(),
    )
    bank = SeedBank.open(tmp_path / "bank")
    with pytest.raises(UsageError, match=r"route 'hybrid' ranks all rows .* leave it out, or `shards`"):
        shards_of(bank, ("bm25", "hybrid"), 2, Here)

    class Elsewhere:
        path = "postgresql://host/db"

    with pytest.raises(UsageError, match="a bank in a server has no shards"):
        shards_of(Elsewhere(), ("bm25",), 2, Here)


def test_an_emptied_bank(tmp_path):
    build(tmp_path / "bank", [record(random.Random(5), n) for n in range(3)], BankSettings(routes=["bm25"]))
    bank = SeedBank.open(tmp_path / "bank")
    bank.delete(["s0", "s1", "s2"])
    with sharded(bank, 4).view() as view, pytest.raises(BankError, match="holds no seeds"):
        view.search("bm25", Queries(["茶"], Embeddings()), 3)


@pytest.mark.parametrize(("count", "rows"), [(1, 5), (3, 10), (7, 3), (4, 4)])
def test_spans_hold_every_row_once(count, rows):
    numbers = np.cumsum(np.random.default_rng(0).integers(1, 5, rows))
    spans = spans_of(numbers, count, int(numbers[-1]) + 3)
    assert spans[0][0] == 0 and spans[-1][1] == numbers[-1] + 3
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    sizes = [int(((numbers >= low) & (numbers < high)).sum()) for low, high in spans]
    assert len(sizes) == min(count, rows) and sum(sizes) == rows and max(sizes) - min(sizes) <= 1
