"""Scoring is recall by one route: over a file or a bank, with filters, hybrid too."""

import json
import pickle

import numpy as np
import pytest

from ecom_rag.errors import BankError, UsageError
from ecom_rag.files import jobs, records
from ecom_rag.models import Encoder
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Pipeline, Recall, Seeds, score, score_file
from ecom_rag.seeds.bank import BankSettings, build

pytestmark = pytest.mark.slow

WORDS = ("茶", "酒", "药", "减肥", "正品", "wallet", "leather", "phone", "iphone15", "best")
MODES = ("dense", "sparse", "multivector", "hybrid")


def made(count, seed):
    rng = np.random.default_rng(seed)
    return [
        {
            "text": " ".join(rng.choice(WORDS, size=rng.integers(2, 6))),
            "metadata": {"id": f"{seed}-{n}", "label": str(n % 3)},
        }
        for n in range(count)
    ]


SEEDS, QUERIES = made(40, 1), made(9, 2)


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return Encoder.from_pretrained(str(m3_folder), runtime="torch", precision="fp32")


@pytest.fixture(scope="module")
def places(tmp_path_factory, encoder, m3_folder):
    folder = tmp_path_factory.mktemp("score")
    for name, items in (("seeds", SEEDS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    for mode in MODES:  # what is encoded together with other outputs may differ in the last digits
        routes = MODES[:3] if mode == "hybrid" else (mode,)
        build(folder / f"bank_{mode}", SEEDS, BankSettings(routes=routes), encoder=encoder, model=m3_folder)
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_a_file_a_bank_and_python_score_the_same(places, encoder, tmp_path, mode):
    options = {"mode": mode, "weights": (1, 0.3, 2), "top_k": 5, "filter": 'label != "1"'}
    files = {
        "file": {"seeds": places / "seeds.jsonl", "model": encoder},
        "bank": {"bank": places / f"bank_{mode}", "model": encoder},
        "bank's own": {
            "bank": places / f"bank_{mode}",
            "model": ModelSpec(None, {"runtime": "torch", "precision": "fp32"}),
        },
    }
    written = []
    for name, where in files.items():
        summary = score_file(places / "queries.jsonl", tmp_path / f"{name}.jsonl", **where, **options)
        assert (summary.records, summary.seeds) == (9, 40)
        written.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert written[0] == written[1] == written[2]
    left = [seed for seed in SEEDS if seed["metadata"]["label"] != "1"]
    in_memory = score(QUERIES, left, encoder, mode=mode, weights=(1, 0.3, 2), top_k=5)
    found = [json.loads(line) for line in written[0].splitlines()]
    assert [one["topk_seed"] for one in found] == [one["topk_seed"] for one in in_memory]
    for one, other in zip(found, in_memory, strict=True):
        np.testing.assert_allclose(one["topk_sim"], other["topk_sim"], atol=2e-6)
        assert ("topk_evidence" in one) == (mode == "hybrid")


def test_hybrid_is_one_route_among_others(places, encoder):
    settings = Recall(routes=("bm25", "hybrid"), hybrid_weights=[1, 0.5, 1], top_k=4)
    found = Pipeline(Seeds(SEEDS, routes=("bm25", "hybrid"), encoder=encoder), settings).recall(QUERIES)
    alone = score(QUERIES, SEEDS, encoder, mode="hybrid", weights=(1, 0.5, 1), top_k=40)
    for one, other in zip(found, alone, strict=True):
        scores = {item["id"]: sim for item, sim in zip(other["topk_metadata"], other["topk_sim"], strict=True)}
        for item, evidence in zip(one["topk_metadata"], one["topk_evidence"], strict=True):
            assert evidence["hybrid"]["score"] == pytest.approx(scores[item["id"]], abs=2e-6)
    with pytest.raises(UsageError, match="`hybrid_weights` has no effect with the routes bm25; leave it out"):
        Pipeline(Seeds(SEEDS, routes=("bm25",)), Recall(routes=("bm25",), hybrid_weights=(1, 2, 3)))


def test_seeds_that_lack_a_part_of_hybrid_say_so(places, encoder):
    with pytest.raises(UsageError, match=r"route 'hybrid' searches sparse, multivector, which is not among"):
        Pipeline(Seeds(SEEDS, routes=("dense",), encoder=encoder), Recall(routes=("hybrid",)), encoder=encoder)


def test_queries_of_another_model_than_the_seeds_are_refused(encoder, bge_folder):
    other = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32")
    seeds = Seeds(SEEDS, routes=("dense",), encoder=encoder)
    with pytest.raises(BankError, match="use one model for both"):
        Pipeline(seeds, encoder=other)
    same = Encoder.from_pretrained(str(encoder.checkpoint.folder), runtime="torch", precision="fp32")
    assert Pipeline(seeds, encoder=same).recall(QUERIES) == Pipeline(seeds).recall(QUERIES)


def test_what_was_counted_outlives_a_kill(places, encoder, tmp_path, monkeypatch):
    """The note on queries that find themselves counts those of before the kill."""
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 10)
    real, calls = Pipeline.recall, []

    def dies(self, block, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, block, **options)

    asked = places / "seeds.jsonl", tmp_path / "o.jsonl"
    options = {"seeds": places / "seeds.jsonl", "model": encoder}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pipeline, "recall", dies)
        score_file(*asked, **options)
    summary = score_file(*asked, **options, resume=True)
    assert summary.resumed == 20 and summary.counts["own"] == 40
    assert any(note.startswith("40 of 40 queries have themselves") for note in summary.notes)


def test_one_place_to_search_and_a_model(places, tmp_path):
    asked = places / "queries.jsonl", tmp_path / "o.jsonl"
    for options, message in (
        ({}, "one place to search is needed"),
        ({"seeds": places / "seeds.jsonl", "bank": places / "bank_dense"}, "one place to search is needed"),
        ({"seeds": places / "seeds.jsonl"}, "give `model`"),
        ({"bank": places / "bank_dense", "mode": "bm25"}, "`mode` 'bm25'"),
    ):
        with pytest.raises(UsageError, match=message):
            score_file(*asked, **options)
    assert not list(tmp_path.iterdir())


def test_what_a_job_is_made_of_can_be_sent():
    for one in (ModelSpec("starter", {"precision": "fp32"}), Recall(routes=("bm25",), filter='a = "b"')):
        assert pickle.loads(pickle.dumps(one)) == one
