"""``--fusion auto``: weights fitted on the labels of the seeds, of memory and bank alike."""

import json

import numpy as np
import pytest

from ecom_rag.errors import BankError, RecordError, UsageError
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.pipeline import Pipeline, Recall, Seeds, seed_fusion
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, create
from helpers.small_banks import Hashing

ROUTES = ("bm25", "dense")
COUNT = 240


class Telling(Hashing):
    """Vectors that tell the class, which the text's last word names, as far as ``signal`` says."""

    def __init__(self, signal):
        super().__init__()
        self._signal = signal

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        noise = super().encode(texts).dense
        classes = [int(text.split("#")[1]) for text in texts]
        return Embeddings(dense=noise + self._signal * np.eye(8, dtype=np.float32)[classes])


def seeds(words_tell):
    """Texts whose words tell their class, or nothing."""
    drawn = np.random.default_rng(0)
    found = []
    for number in range(COUNT):
        label = number % 8
        of = label if words_tell else int(drawn.integers(8))
        words = [f"w{of}x{drawn.integers(6)}" for _ in range(4)] + [f"n{drawn.integers(40)}" for _ in range(4)]
        metadata = {"id": f"s{number}", "label": f"class {label}", "kind": "x"}
        found.append({"text": f"{' '.join(words)} #{label}", "metadata": metadata})
    return found


def weights(pipeline):
    assert pipeline.fitted is not None
    return pipeline.fitted.weights


@pytest.mark.parametrize(("words_tell", "signal", "better"), [(True, 0.0, "bm25"), (False, 4.0, "dense")])
def test_the_route_that_finds_the_label_weighs_more(words_tell, signal, better):
    source = Seeds(seeds(words_tell), routes=(*ROUTES, "variant"), encoder=Telling(signal))
    pipeline = Pipeline(source, Recall())
    found = weights(pipeline)
    [other] = set(ROUTES) - {better}
    assert found[better] > 2 * found[other] and pipeline.fitted.accepted
    assert found["variant"] == pytest.approx(0.15, abs=1e-3)  # 0.3 of the others' mean, as by default
    [note] = pipeline.notes
    assert note.startswith("fusion auto: bm25 0.") and "among 240 seeds by label" in note
    by_hand = Pipeline(source, Recall(fusion="minmax", weights=found))
    queries = [{"text": f"some {seed['text']}"} for seed in seeds(words_tell)[:5]]
    assert pipeline.recall(queries) == by_hand.recall(queries)


def test_copies_of_a_seed_are_not_its_neighbours(monkeypatch):
    """Every seed stands there twice, under two ids; nothing else tells its class, so that only they would be right."""
    once = seeds(words_tell=False)
    twice = once + [{**seed, "metadata": {**seed["metadata"], "id": f"c{n}"}} for n, seed in enumerate(once)]
    fits = []
    fit = seed_fusion.fit_fusion
    monkeypatch.setattr(seed_fusion, "fit_fusion", lambda *a, **k: (fits.append(fit(*a, **k)), fits[-1])[1])
    for records in (once, twice):
        Pipeline(Seeds(records, routes=ROUTES, encoder=Telling(0.0)), Recall())
    assert all(found.fitted_on["baseline"] < 0.2 for found in fits)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (seeds(True)[:99], "99 of 99 seeds tried share the label 'label' with another, 100 are needed"),
        ([{**seed, "metadata": {}} for seed in seeds(True)], "0 of 240 seeds tried share the label 'label'"),
        ([{**seed, "metadata": {"label": n}} for n, seed in enumerate(seeds(True))], "0 of 240 seeds tried share"),
        (seeds(words_tell=False), "weights fitted on the labels do not beat"),
    ],
)
def test_without_a_reason_the_weights_are_the_default_ones(records, why):
    source = Seeds(records, routes=ROUTES, encoder=Telling(0.0))
    silent, asked = Pipeline(source, Recall()), Pipeline(source, Recall(fusion="auto"))
    assert silent.notes == [] and why in asked.notes[0]
    queries = [{"text": "w1x1 n3 #1"}, {"text": "w2x2 w2x3 #2"}]
    expected = Pipeline(source, Recall(fusion="weighted")).recall(queries)
    assert silent.recall(queries) == asked.recall(queries) == expected
    expected = Pipeline(source, Recall(weights={"bm25": 1, "dense": 0.5})).recall(queries)
    assert silent.recall(queries) == expected


def test_one_route_is_not_fused():
    source = Seeds(seeds(True), routes=("bm25",))
    assert Pipeline(source, Recall()).fitted is None
    two = Pipeline(Seeds(seeds(True), routes=("bm25", "variant")), Recall(fusion="auto"))
    assert two.notes == ["fusion auto: the default weights, since bm25 and variant leave nothing to fit"]


def test_an_empty_bank_has_nothing_to_fit(tmp_path):
    encoder = Telling(0.0)
    with create(tmp_path / "bank", BankSettings(ROUTES), encoder=encoder) as bank:
        assert Pipeline(bank, Recall()).notes == []
        with pytest.raises(BankError, match="holds no seeds"):
            Pipeline(bank, Recall()).recall([{"text": "a #1"}])


def test_another_label_and_a_value_that_is_none():
    source = Seeds(seeds(True), routes=ROUTES, encoder=Telling(0.0))
    assert not Pipeline(source, Recall(label_key="kind")).fitted.accepted  # all have it: nothing tells routes apart
    broken = seeds(True)
    broken[7]["metadata"]["label"] = ["a", "b"]
    with pytest.raises(RecordError, match=r'seed 8: metadata "label" is a list of 2'):
        Pipeline(Seeds(broken, routes=ROUTES, encoder=Telling(0.0)), Recall(fusion="auto"))
    silent = Pipeline(Seeds(broken, routes=ROUTES, encoder=Telling(0.0)), Recall())  # nobody asked for labels
    assert silent.notes == [] and silent.recall([{"text": "w1x1 #1"}])
    with pytest.raises(UsageError, match="weights are given beside the fusion auto"):
        Recall(fusion="auto", weights={"bm25": 1}).check()


def test_a_bank_fits_as_memory_does_and_once_for_each_state(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    encoder, records = Telling(4.0), seeds(words_tell=False)
    build(str(tmp_path / "bank"), records, BankSettings(ROUTES), encoder=encoder)
    expected = weights(Pipeline(Seeds(records, routes=ROUTES, encoder=encoder), Recall()))
    with SeedBank.open(str(tmp_path / "bank"), encoder=encoder) as bank:
        assert weights(Pipeline(bank, Recall())) == expected
        fits = []
        fit = seed_fusion.fit_on_seeds
        monkeypatch.setattr(seed_fusion, "fit_on_seeds", lambda *a, **k: (fits.append(1), fit(*a, **k))[1])
        again = Pipeline(bank, Recall())
        assert weights(again) == expected and again.notes and not fits
        [kept] = (tmp_path / "cache" / "fusions").iterdir()
        one_route = {"fusion": {"method": "minmax", "weights": {"bm25": 1}}, "note": ""}
        for damage in ("{", "[]", "{}", json.dumps(one_route)):
            kept.write_text(damage)
            assert weights(Pipeline(bank, Recall())) == expected
        assert len(fits) == 4
        bank.delete(["s0", "s8"])
        without = Pipeline(bank, Recall())
        assert len(fits) == 5 and "among 238 seeds" in without.notes[0]
        left = [record for record in records if record["metadata"]["id"] not in ("s0", "s8")]
        assert weights(without) == weights(Pipeline(Seeds(left, routes=ROUTES, encoder=encoder), Recall()))


def test_a_sample_is_of_the_seeds_that_are_there(tmp_path):
    encoder, records = Telling(4.0), seeds(words_tell=False)
    build(str(tmp_path / "bank"), records, BankSettings(ROUTES), encoder=encoder)
    with SeedBank.open(str(tmp_path / "bank"), encoder=encoder) as bank:
        bank.delete(["s3"])
        with bank.view() as view:
            rows, queries = view.sample(50)
            assert len(rows) == 50 and 3 not in rows and (np.diff(rows) > 0).all()
            assert list(queries.texts) == [records[row]["text"] for row in rows]
            np.testing.assert_array_equal(queries.embeddings.dense, encoder.encode(queries.texts).dense)
            labels = view.labels("label")
            assert labels[3] is None and labels[4:] == [record["metadata"]["label"] for record in records[4:]]
    with Seeds(records, routes=ROUTES, encoder=encoder).view() as view:
        rows, queries = view.sample(50)
        assert list(queries.texts) == [records[row]["text"] for row in rows]
        np.testing.assert_array_equal(queries.embeddings.dense, encoder.encode(queries.texts).dense)
