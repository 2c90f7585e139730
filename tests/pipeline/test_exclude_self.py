"""A query is not among its own results: exact over files, banks and every route, in score, recall and evaluate."""

import json
import sys

import numpy as np
import pytest

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.files import evaluate_files, evaluate_labels
from ecom_rag.files import records
from ecom_rag.merging import validation
from ecom_rag.models import Encoder
from ecom_rag.pipeline import Pipeline, Recall, Seeds, read_settings, score
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.bank import BankSettings, create
from ecom_rag.training import dev
from ecom_rag.training.recipe import make_recipe

pytestmark = pytest.mark.slow

ROUTES = ("bm25", "dense", "sparse", "multivector", "variant")
WORDS = ("茶", "酒", "药", "减肥", "正品", "刷单", "wallet", "leather", "phone", "iphone15", "pro", "best", "3.5mm")


def texts(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(2, 6))) for _ in range(count)]


@pytest.fixture(scope="module")
def seeds():
    """With ids, without, ids that are another's, copies, and one text 90 times without an id."""
    found = [{"text": text, "metadata": {"id": n}} for n, text in enumerate(texts(40, 0))]
    found += [{"text": text, "metadata": {"n": n}} for n, text in enumerate(texts(20, 1))]
    found += [{"text": found[n]["text"], "metadata": {"id": f"copy {n}"}} for n in range(5)]
    return found + [{"text": "best leather wallet", "metadata": {"number": n}} for n in range(90)]


@pytest.fixture(scope="module")
def queries(seeds):
    asked = [{**seed, "metadata": dict(seed["metadata"])} for seed in seeds[:60:4]]
    asked += [{"text": seeds[3]["text"], "metadata": {"id": "3"}}, {"text": seeds[3]["text"], "metadata": {}}]
    asked += [{"text": "wallet pro", "metadata": {"id": 3.0}}, {"text": "best leather wallet", "metadata": {}}]
    return [*asked, {"text": "leather", "metadata": {"id": "nobody"}}]


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return Encoder.from_pretrained(str(m3_folder), runtime="torch", precision="fp32")


@pytest.fixture(scope="module")
def embeddings(seeds, encoder):
    return encoder.encode([seed["text"] for seed in seeds], outputs=("dense", "sparse", "multivector"))


@pytest.fixture(scope="module")
def in_memory(seeds, encoder, embeddings):
    return Seeds(seeds, routes=ROUTES, encoder=encoder, embeddings=embeddings)


@pytest.fixture(scope="module")
def bank(tmp_path_factory, seeds, encoder, embeddings):
    path = tmp_path_factory.mktemp("own") / "bank"
    with create(path, BankSettings(routes=ROUTES), encoder=encoder) as opened:
        opened.upsert(seeds, embeddings=embeddings, fingerprint=encoder.fingerprint)
        opened.upsert([{"text": "another", "metadata": {"id": "gone"}}])
        opened.delete(["gone"])
        yield opened


def own_rows(query, seeds):
    """The rule, word for word."""
    name = query["metadata"].get("id")
    return {
        row
        for row, seed in enumerate(seeds)
        if (
            str(seed["metadata"]["id"]) == str(name).removesuffix(".0")
            if name is not None and "id" in seed["metadata"]
            else seed["text"] == query["text"]
        )
    }


@pytest.mark.parametrize("route", ["bm25", "dense", "sparse", "multivector"])
def test_each_route_finds_what_it_finds_without_the_own_rows(in_memory, encoder, queries, seeds, route):
    asked = [query["text"] for query in queries]
    embeddings = encoder.encode(asked, side="query", outputs=("dense", "sparse", "multivector"))
    pipeline = Pipeline(in_memory, Recall(routes=(route,), depth=10, exclude_self=True), encoder=encoder)
    index = in_memory.index(route)
    everything = index.search(getattr(embeddings, route, asked), len(seeds))
    found = pipeline.search(in_memory, Queries(asked, embeddings), own=in_memory.own_rows(queries, "id"))[route]
    for number, query in enumerate(queries):
        own = own_rows(query, seeds)
        pairs = zip(everything.rows[number].tolist(), everything.scores[number].tolist(), strict=True)
        wanted = [(row, value) for row, value in pairs if row >= 0 and row not in own][:10]
        best = list(zip(found.rows[number].tolist(), found.scores[number].tolist(), strict=True))
        assert [pair for pair in best if pair[0] >= 0] == wanted
    assert (found.rows.shape[1]) == 10


@pytest.mark.parametrize("filter", [None, "not id in (4, 8)"])
def test_a_file_and_a_bank_give_the_same(in_memory, bank, encoder, queries, seeds, filter):
    settings = Recall(routes=ROUTES, weights={"dense": 1}, depth=20, filter=filter, exclude_self=True)
    expected = Pipeline(in_memory, settings, encoder=encoder).recall(queries)
    found = Pipeline(bank, settings, encoder=encoder).recall(queries)
    assert found == expected
    for query, result in zip(queries, expected, strict=True):
        own = [seeds[row] for row in own_rows(query, seeds)]
        gone = [(seed["text"], seed["metadata"]) for seed in own]
        assert not any(one in gone for one in zip(result["topk_seed"], result["topk_metadata"], strict=True))
        ranks = [item["dense"]["rank"] for item in result["topk_evidence"] if "dense" in item]
        assert len(result["topk_sim"]) == 10 and (1 in ranks or not ranks)  # no rank is spent on what is gone


def test_without_a_row_that_is_the_query_nothing_changes(in_memory, encoder):
    asked = [{"text": "leather phone", "metadata": {"id": "x"}}, {"text": "茶 酒 茶 phone 酒 茶 药 药", "metadata": {}}]
    plain, others = (
        Pipeline(in_memory, Recall(routes=ROUTES, exclude_self=on), encoder=encoder).recall(asked)
        for on in (False, True)
    )
    assert plain == others


def test_the_variant_route_is_not_silenced_by_the_query_itself():
    seeds = [{"text": text, "metadata": {"id": n}} for n, text in enumerate(["加微信转账", "加薇信转帐", "纯棉毛巾"])]
    pipeline = Pipeline(Seeds(seeds, routes=["variant"]), Recall(routes=("variant",), exclude_self=True))
    assert pipeline.recall(seeds[:1])[0]["topk_seed"] == ["加薇信转帐"]


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "hybrid"])
def test_score(encoder, seeds, queries, mode):
    """As over the seeds that are not the query: scores, order, and the ranks of the evidence."""
    found = score(queries, seeds, encoder, mode=mode, top_k=5, exclude_self=True)
    for query, result in zip(queries, found, strict=True):
        own = own_rows(query, seeds)
        [alone] = score(
            [query], [seed for row, seed in enumerate(seeds) if row not in own], encoder, mode=mode, top_k=5
        )
        assert result["topk_seed"] == alone["topk_seed"] and result["topk_metadata"] == alone["topk_metadata"]
        np.testing.assert_allclose(result["topk_sim"], alone["topk_sim"], atol=2e-6)
        ranks = [
            [{name: one["rank"] for name, one in item.items()} for item in r.get("topk_evidence", ())]
            for r in (result, alone)
        ]
        assert ranks[0] == ranks[1]


def test_settings(tmp_path, bank):
    (tmp_path / "r.toml").write_text('exclude_self = true\nid_key = "sku"\n')
    settings, _ = read_settings(str(tmp_path / "r.toml"), {})
    assert settings.exclude_self and settings.id_key == "sku"
    with pytest.raises(UsageError, match="the bank keeps its documents by 'id'"):
        Pipeline(bank, Recall(routes=("bm25",), id_key="sku"))


# --- the command line and evaluations ---------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    def go(*arguments):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return go


def write(path, items):
    path.write_bytes(b"".join(map(records.dumps, items)))
    return path


@pytest.mark.parametrize("form", ["score", "recall", "bank"])
def test_a_note_where_own_ids_are_seen(tmp_path, command, bge_folder, form):
    items = [{"text": text, "metadata": {"sku": n}} for n, text in enumerate(texts(12, 3))]
    seeds, out = write(tmp_path / "seeds.jsonl", items), tmp_path / "out.jsonl"
    queries = write(tmp_path / "queries.jsonl", [*items[:5], {"text": "leather", "metadata": {"sku": 7}}])
    place = ("--seeds", seeds, "--id-key", "sku")
    if form == "bank":
        assert (
            command("bank", "build", tmp_path / "bank", "--seeds", seeds, "--routes", "bm25", "--id-key", "sku")[0] == 0
        )
        place = ("--bank", tmp_path / "bank")
    tool = ("score", queries, "--model", bge_folder) if form == "score" else ("recall", queries)
    code, _, said = command(*tool, *place, "--output", out, "--top-k", 12)
    assert code == 0 and "of 6 queries have themselves (a seed of their own id) among their results" in said
    assert "are the ids of queries and seeds one numbering?" in said or form != "score"
    code, _, said = command(*tool, *place, "--output", out, "--top-k", 12, "--exclude-self")
    assert code == 0 and "themselves" not in said
    for result in records.read(str(out)):
        assert result["metadata"]["sku"] not in [metadata["sku"] for metadata in result["topk_metadata"]]


@pytest.fixture
def beir(tmp_path):
    """ArguAna's form: every query is a document, and another one answers it."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = {
        f"{name}{n}": f"{word} is {'not ' * (n - 1)}good"
        for name, word in zip("abc", WORDS[6:9], strict=True)
        for n in (1, 2)
    }
    write(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in documents.items()])
    write(folder / "queries.jsonl", [{"_id": f"{name}1", "text": documents[f"{name}1"]} for name in "abc"])
    (folder / "qrels" / "test.tsv").write_text("q\td\tscore\n" + "".join(f"{name}1\t{name}2\t1\n" for name in "abc"))
    return folder


def test_beir_leaves_the_query_out(beir, command, tmp_path):
    asked = ("--beir", beir, "--measures", "RR@10", "--resamples", 100, "-o", "-")
    searched = ("evaluate", "--routes", "bm25", *asked)
    for options, expected, note in [((), 1.0, "left out of its own results"), (("--keep-self",), 0.5, "count there")]:
        code, out, said = command(*searched, *options)
        [run] = json.loads(out)["runs"]
        assert code == 0 and run["figures"]["RR@10"]["mean"] == expected, said
        assert any(note in one and one.startswith("3 ") for one in run["notes"])
    command(
        "evaluate", "--beir", beir, "--export-queries", tmp_path / "q.jsonl", "--export-seeds", tmp_path / "s.jsonl"
    )
    command("recall", tmp_path / "q.jsonl", "--seeds", tmp_path / "s.jsonl", "--output", tmp_path / "run.jsonl")
    assert (
        command("evaluate", tmp_path / "run.jsonl", *asked, "--keep-self", "--write-run", tmp_path / "run.trec")[0] == 0
    )
    for name in ("run.jsonl", "run.trec"):
        for options, expected in [((), 1.0), (("--keep-self",), 0.5)]:
            _, out, _ = command("evaluate", tmp_path / name, *asked, *options)
            assert json.loads(out)["runs"][0]["figures"]["RR@10"]["mean"] == expected
    code, _, said = command("evaluate", tmp_path / "run.jsonl", "--labels", "--keep-self")
    assert code == 2 and "--keep-self is for --beir" in said


def test_labels_of_chance_are_not_right_in_silence(tmp_path, command):
    rng = np.random.default_rng(0)
    items = [
        {"text": f"{text} {n}", "metadata": {"label": int(rng.integers(4))}} for n, text in enumerate(texts(60, 4))
    ]
    path, out = write(tmp_path / "items.jsonl", items), tmp_path / "out.jsonl"
    command("recall", path, "--seeds", path, "--output", out)
    study, _, _ = evaluate_labels([str(out)], votes=1, resamples=100)
    assert study.runs[0].intervals["accuracy"].mean == 1
    assert "60 of 60 queries have themselves among their results" in study.runs[0].notes[0]
    study, runs, _ = evaluate_labels([str(out)], votes=1, resamples=100, exclude_self=True)
    assert study.runs[0].intervals["accuracy"].mean < 0.6 and "left out" in study.runs[0].notes[0]
    assert {len(found) for found in runs[0].run.values()} == {9}


def test_ranks_close_up_where_a_candidate_is_left_out(tmp_path):
    found = [{"bm25": 1}, {"bm25": 2, "dense": 1}, {"dense": 2}, {"bm25": 3}]
    evidence = [{route: {"score": 1 / rank, "rank": rank} for route, rank in item.items()} for item in found]
    seeds = {"topk_seed": ["t", "a", "b", "t"], "topk_metadata": [{"id": name} for name in ("1", "2", "3", 4)]}
    result = {"text": "t", "metadata": {"id": 1}, "topk_sim": [4, 3, 2, 1], **seeds, "topk_evidence": evidence}
    path = write(tmp_path / "r.jsonl", [result])
    (tmp_path / "qrels").write_text("1 2 1\n")
    _, [run], _ = evaluate_files([str(path)], qrels=str(tmp_path / "qrels"), exclude_self=True, resamples=100)
    assert run.run == {"1": ["2", "3", "4"]}
    ranks = [{route: own["rank"] for route, own in item.items()} for item in run.results["1"]["topk_evidence"]]
    assert ranks == [{"bm25": 1, "dense": 1}, {"dense": 2}, {"bm25": 2}]


def test_measures_during_training_and_merging_leave_the_query_out_too(beir):
    """By BEIR's rule: the one other document about the subject is first."""
    judged = validation.load(validation.ValidationSet("s", beir=str(beir), split="test")).judged
    assert judged.own.tolist() == [0, 2, 4]
    data = {"train": ["t"], "dev": str(beir), "dev_split": "test"}
    recipe = make_recipe({"model": "m", "output": "o", "data": data}, "embedder")
    judged = dev._retrieval_set(recipe)
    assert (judged.own.tolist(), judged.relevance.judged) == ([0, 2, 4], [{1: 1}, {3: 1}, {5: 1}])
    measured = dev.RetrievalDev(judged, measure="RR@10", batch_size=8)
    vectors = np.repeat(np.eye(3, 8, dtype=np.float32), 2, axis=0) + np.float32(0.01) * np.eye(6, 8, dtype=np.float32)

    class Model:
        def encode(self, texts, **_):
            return vectors[[judged.documents.index(text) for text in texts]]

    assert measured(Model()) == {"RR@10": 1.0}
