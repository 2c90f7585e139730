"""Multi-route recall: the same over files and banks, with every route's evidence, filtered exactly, resumable."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from ecom_rag.errors import BankError, ResumeError, UsageError
from ecom_rag.files import jobs, records
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Pipeline, Recall, Seeds, read_settings, recall_file, score
from ecom_rag.retrieval.fusion import fuse
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.bank import BankSettings, build
from helpers.small_banks import built

pytestmark = pytest.mark.slow

ROUTES = ("bm25", "dense", "sparse", "multivector", "variant")
WORDS = ("茶", "酒", "药", "减肥", "正品", "刷单", "wallet", "leather", "phone", "iphone15", "pro", "best", "3.5mm")


def record(number, rng):
    text = " ".join(rng.choice(WORDS, size=rng.integers(2, 6)))
    metadata = {"id": f"s{number}", "label": str(number % 4), "price": number % 9, "seller": {"vip": number % 2 == 0}}
    return {"text": text, "metadata": metadata}


@pytest.fixture(scope="module")
def seeds():
    rng = np.random.default_rng(0)
    return [record(number, rng) for number in range(120)]


@pytest.fixture(scope="module")
def queries():
    rng = np.random.default_rng(1)
    return [record(number, rng) | {"shop": "x"} for number in range(12)]


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return Encoder.from_pretrained(str(m3_folder), runtime="torch", precision="fp32")


@pytest.fixture(scope="module")
def in_memory(seeds, encoder):
    return Seeds(seeds, routes=ROUTES, encoder=encoder)


@pytest.fixture(scope="module")
def bank(tmp_path_factory, seeds, encoder):
    with built(tmp_path_factory.mktemp("bank") / "bank", seeds, BankSettings(routes=ROUTES), encoder=encoder) as opened:
        yield opened


@pytest.mark.parametrize("filter", [None, 'label = "1" and (price < 5 or seller.vip = true)'])
@pytest.mark.parametrize("fusion", ["rrf", "weighted", "zscore", "dbsf"])
def test_a_file_and_a_bank_give_the_same(in_memory, bank, encoder, queries, fusion, filter):
    settings = Recall(routes=ROUTES, fusion=fusion, depth=30, filter=filter)
    expected = Pipeline(in_memory, settings, encoder=encoder).recall(queries)
    assert Pipeline(bank, settings, encoder=encoder).recall(queries) == expected
    if filter:
        labels = {metadata["label"] for result in expected for metadata in result["topk_metadata"]}
        assert labels == {"1"}


def test_a_filter_tells_one_from_true(tmp_path):
    seeds = [{"text": "a b", "metadata": {"v": value}} for value in (1, True, 0, False)]
    with built(tmp_path / "bank", seeds, BankSettings(routes=["bm25"])) as bank:
        for source in (Seeds(seeds, routes=["bm25"]), bank):
            with source.view() as view:
                found = {text: view.rows(f"v = {text}").tolist() for text in ("1", "true", "0", "false")}
            assert found == {
                text: [text == own for own in ("1", "true", "0", "false")] for text in ("1", "true", "0", "false")
            }


def test_a_result_that_is_asked_again_keeps_nothing_of_before(in_memory, encoder, queries, seeds):
    before = Pipeline(in_memory, Recall(routes=("bm25", "dense")), encoder=encoder).recall(queries)
    assert all("topk_evidence" in result for result in before)
    one = Recall(routes=("bm25",), top_k=2)
    assert Pipeline(in_memory, one).recall(before) == Pipeline(in_memory, one).recall(queries)
    assert score(before, seeds, encoder, top_k=2) == score(queries, seeds, encoder, top_k=2)


def test_settings_are_checked_before_anything_is_loaded(tmp_path):
    LearnedFusion("minmax", {"bm25": 1.0, "variant": 0.5}).save(tmp_path / "w.json")
    fitted = str(tmp_path / "w.json")
    for settings, message in (
        ({"filter": "label ="}, "filter, character"),
        ({"weights": {"bm25": "1"}}, "bm25 '1'.*expected numbers"),
        ({"weights": {"bm25": -1.0}}, "bm25 -1.0.*expected numbers"),
        ({"fusion": fitted, "weights": {"bm25": 1.0}}, "which has its own"),
        ({"fusion": fitted, "routes": ("bm25",)}, "was fitted for the routes bm25, variant"),
    ):
        with pytest.raises(UsageError, match=message):
            Recall(**settings).check()


def test_a_fusion_fitted_anew_is_another_job(tmp_path, queries, seeds, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 5)
    asked, known, fitted = (tmp_path / name for name in ("q.jsonl", "s.jsonl", "w.json"))
    asked.write_bytes(b"".join(map(records.dumps, queries[:7])))
    known.write_bytes(b"".join(map(records.dumps, seeds)))
    settings = Recall(routes=("bm25", "variant"), fusion=str(fitted))
    real = Pipeline.recall

    def run(weight, **options):
        LearnedFusion("minmax", {"bm25": 1.0, "variant": weight}).save(fitted)
        return recall_file(str(asked), str(tmp_path / "o.jsonl"), settings, seeds=str(known), **options)

    def dies(self, block, **progress):
        if len(block) < 5:
            raise KeyboardInterrupt
        return real(self, block, **progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Pipeline, "recall", dies)
        run(0.1)
    with pytest.raises(ResumeError, match="settings"):
        run(0.9, resume=True)
    assert run(0.1, resume=True).resumed == 5


def test_a_banks_model_may_lie_elsewhere(tmp_path, monkeypatch, seeds, queries, bge_folder):
    """Named with --model it is loaded as the bank was built."""
    from ecom_rag.cli import main

    shutil.copytree(bge_folder, tmp_path / "here" / bge_folder.name)
    here = Encoder.from_pretrained(str(tmp_path / "here" / bge_folder.name), truncate_dim=8, max_length=32)
    build(tmp_path / "bank", seeds, BankSettings(routes=["dense"]), encoder=here)
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_bytes(b"".join(map(records.dumps, queries)))
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "ecom-rag",
            "recall",
            "q.jsonl",
            "--bank",
            "bank",
            "-o",
            "o.jsonl",
            "--model",
            str(tmp_path / "there" / bge_folder.name),
        ],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and len(list(records.read(str(tmp_path / "o.jsonl")))) == len(queries)


def test_a_bank_refuses_queries_of_another_model(bank, queries, bge_folder, tmp_path):
    other = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32")
    with pytest.raises(BankError, match="use that model, or build another bank"):
        Pipeline(bank, Recall(routes=("bm25", "dense")), encoder=other)
    asked = tmp_path / "q.jsonl"
    asked.write_bytes(b"".join(map(records.dumps, queries)))
    settings = Recall(routes=("bm25", "dense"))
    with pytest.raises(BankError, match="use that model"):
        recall_file(str(asked), str(tmp_path / "o.jsonl"), settings, bank=str(bank.path), model=other)
    placed = {"runtime": "torch", "precision": "fp16"}
    with pytest.raises(UsageError, match="fp16 needs a GPU"):  # the bank's own encoder is loaded as asked
        recall_file(str(asked), str(tmp_path / "o.jsonl"), settings, bank=str(bank.path), model=ModelSpec(None, placed))
    assert not list(tmp_path.glob("o.jsonl*"))


def test_evidence_is_each_routes_own_search(in_memory, encoder, queries, seeds):
    settings = Recall(routes=ROUTES, depth=20, top_k=7, exact_multivector=True)
    pipeline = Pipeline(in_memory, settings, encoder=encoder)
    results = pipeline.recall(queries)
    rows = {seed["metadata"]["id"]: row for row, seed in enumerate(seeds)}
    embeddings = encoder.encode([query["text"] for query in queries], side="query", outputs=ROUTES[1:4])
    found = pipeline.search(in_memory, Queries([query["text"] for query in queries], embeddings))
    for number, result in enumerate(results):
        assert result["shop"] == "x" and len(result["topk_sim"]) == 7
        assert result["topk_sim"] == sorted(result["topk_sim"], reverse=True)
        for metadata, evidence in zip(result["topk_metadata"], result["topk_evidence"], strict=True):
            row = rows[metadata["id"]]
            for route in ROUTES:
                ids = found[route].rows[number].tolist()
                assert (route in evidence) == (row in ids)
                if route in evidence:
                    rank = evidence[route]["rank"]
                    assert ids[rank - 1] == row
                    assert evidence[route]["score"] == pytest.approx(found[route].scores[number, rank - 1], abs=1e-6)


def test_late_interaction_over_candidates_is_exact_on_them(in_memory, encoder, queries):
    wide = Recall(routes=("bm25", "dense", "multivector"), depth=120, top_k=20)
    exact = Pipeline(in_memory, replace(wide, exact_multivector=True), encoder=encoder).recall(queries)
    assert Pipeline(in_memory, wide, encoder=encoder).recall(queries) == exact  # at full depth all are candidates


def test_one_route_keeps_its_own_scores(in_memory, encoder, queries):
    results = Pipeline(in_memory, Recall(routes=("dense",)), encoder=encoder).recall(queries)
    assert "topk_evidence" not in results[0]
    own = encoder.encode([queries[0]["text"]], side="query").dense @ encoder.encode(results[0]["topk_seed"]).dense.T
    np.testing.assert_allclose(results[0]["topk_sim"], own[0], atol=1e-5)


def test_weights_and_a_fitted_fusion(in_memory, encoder, queries, tmp_path):
    from ecom_rag.retrieval.learned_fusion import LearnedFusion

    settings = Recall(routes=("bm25", "dense"), weights={"bm25": 0.2, "dense": 2.0}, fusion="minmax")
    pipeline = Pipeline(in_memory, settings, encoder=encoder)
    texts = [query["text"] for query in queries]
    found = pipeline.search(in_memory, Queries(texts, encoder.encode(texts, side="query")))
    expected = fuse(found, k=10, method="minmax", weights=settings.weights)
    results = pipeline.recall(queries)
    np.testing.assert_allclose(results[3]["topk_sim"], expected.scores[3], atol=1e-6)
    LearnedFusion(method="minmax", weights={"bm25": 0.2, "dense": 2.0}).save(tmp_path / "fusion.json")
    fitted = Recall(routes=("bm25", "dense"), fusion=str(tmp_path / "fusion.json"))
    assert Pipeline(in_memory, fitted, encoder=encoder).recall(queries) == results
    with pytest.raises(UsageError, match="fitted for the routes bm25, dense"):
        Pipeline(in_memory, replace(fitted, routes=("bm25",)), encoder=encoder)


def test_reranked_recall_is_recall_then_rerank(in_memory, encoder, queries, xlmr_reranker):
    from ecom_rag.pipeline import rerank

    judge = CrossEncoder.from_pretrained(str(xlmr_reranker), runtime="torch", precision="fp32")
    settings = Recall(routes=("bm25", "dense"), depth=15, top_k=4)
    together = Pipeline(in_memory, settings, encoder=encoder, cross_encoder=judge).recall(queries)
    candidates = Pipeline(in_memory, replace(settings, top_k=15), encoder=encoder).recall(queries)
    assert together == rerank(candidates, judge, top_k=4)
    assert "retrieval" in together[0]["topk_evidence"][0]


def test_a_query_that_finds_nothing(in_memory, queries):
    settings = Recall(routes=("bm25", "variant"))
    odd = [queries[0], {"text": "zzzz qqqq", "metadata": {}}]
    found = Pipeline(in_memory, settings).recall(odd)
    assert found[1]["topk_sim"] == found[1]["topk_seed"] == found[1]["topk_evidence"] == []
    nobody = Pipeline(in_memory, replace(settings, filter='label = "none"')).recall(odd)
    assert nobody[0]["topk_seed"] == []
    assert Pipeline(in_memory, settings).recall([]) == []


def test_a_killed_recall_is_resumed(tmp_path, seeds, encoder, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 5)
    rng = np.random.default_rng(2)
    for name, items in (("seeds", seeds), ("queries", [record(i, rng) for i in range(23)])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    settings = Recall(routes=("bm25", "dense", "variant"))
    paths = str(tmp_path / "queries.jsonl"), str(tmp_path / "out.jsonl")
    options = {"seeds": str(tmp_path / "seeds.jsonl"), "model": encoder}
    recall_file(*paths, settings, **options)
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").unlink()
    calls = iter(range(3))
    real = Pipeline.recall

    def dies(self, block, **progress):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(self, block, **progress)

    monkeypatch.setattr(Pipeline, "recall", dies)
    with pytest.raises(KeyboardInterrupt):
        recall_file(*paths, settings, **options)
    monkeypatch.setattr(Pipeline, "recall", real)
    assert not (tmp_path / "out.jsonl").exists()
    summary = recall_file(*paths, settings, resume=True, **options)
    assert summary.resumed == 10 and summary.records == 23
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_settings_come_from_toml_and_options_win(tmp_path):
    path = tmp_path / "recall.toml"
    path.write_text('routes = ["bm25", "variant"]\ndepth = 50\nrerank = "./judge"\n[weights]\nvariant = 0.5\n')
    settings, models = read_settings(str(path), {"depth": 70, "fusion": None})
    assert settings == Recall(routes=("bm25", "variant"), depth=70, weights={"variant": 0.5})
    assert models == {"rerank": "./judge"}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('rotes = ["bm25"]', "key 'rotes' is unknown; did you mean routes?"),
        ("depth = true", "depth is True; expected int"),
        ("depth = ", "not valid TOML"),
        ('routes = ["bm25", "variant"]\ndepth = 5', "depth 5 is less than top-k 10"),
        ('fusion = "magic"', "fusion 'magic' is unknown"),
        ('routes = ["bm25"]\nweights = {dense = 1}', "weights for dense, which is none of the routes bm25"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, toml, message):
    (tmp_path / "recall.toml").write_text(toml)
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        read_settings(str(tmp_path / "recall.toml"), {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--routes", "bm25,bm26"], "route 'bm26' is unknown"),
        (["--routes", "bm25,bm25"], "name one twice"),
        (["--routes", "dense"], "search embeddings; give --model"),
        (["--filter", "label = = 3"], "filter, character 9"),
        (["--routes", "bm25,variant", "--weights", "bm25"], "expected ROUTE=NUMBER"),
        (["--blend", "0.5"], "--blend has no effect without a reranker"),
        (["--normalize"], "--normalize has no effect without a reranker"),
        (["--routes", "bm25,variant", "--fusion", "nowhere.json"], "nowhere.json: no such file"),
        (["--bank", "nowhere"], "give --seeds or --bank"),
        (["--weights", "bm25=1"], "--weights has no effect with one route (bm25); leave it out, or name two --routes"),
        (["--config", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--words", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--top-k", "0"], "top-k is 0"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, seeds, arguments, message):
    from ecom_rag.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.jsonl").write_bytes(b"".join(map(records.dumps, seeds[:5])))
    monkeypatch.setattr(
        sys, "argv", ["ecom-rag", "recall", "s.jsonl", "--seeds", "s.jsonl", "-o", "o.jsonl", *arguments]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "o.jsonl").exists()


def test_the_command_feeds_rerank_unchanged(tmp_path, monkeypatch, seeds, m3_folder, bert_reranker):
    from ecom_rag.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.jsonl").write_bytes(b"".join(map(records.dumps, seeds)))
    base = ["recall", "s.jsonl", "--seeds", "s.jsonl", "--model", str(m3_folder), "--routes", ",".join(ROUTES)]
    for arguments in (
        [*base, "-o", "out.jsonl", "--depth", "20"],
        ["rerank", "out.jsonl", "--model", str(bert_reranker), "-o", "ranked.jsonl", "--top-k", "3"],
    ):
        monkeypatch.setattr(sys, "argv", ["ecom-rag", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    results = [json.loads(line) for line in (tmp_path / "ranked.jsonl").read_text().splitlines()]
    assert len(results) == len(seeds) and all(len(result["topk_sim"]) == 3 for result in results)
    routes = {route for result in results for evidence in result["topk_evidence"] for route in evidence}
    assert {"retrieval", "bm25", "dense", "multivector"} <= routes
