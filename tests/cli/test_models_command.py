"""models lists the families and says how one checkpoint is read; tasks and examples reach the queries of a command."""

import json

import pytest

from ecom_rag.cli import main
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.families import FAMILIES, RERANKERS
from ecom_rag.models.instructions import TASKS
from helpers import decoders, prompted, zoo

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*words: str):
        monkeypatch.setattr("sys.argv", ["ecom-rag", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capfd.readouterr()
        return ended.value.code, shown.out, shown.err

    return call


def test_every_family_reranker_and_task_is_listed(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    for card in [family.card for family in FAMILIES] + [one.card for one in RERANKERS]:
        assert f"\n{card.models}\n" in out
    assert (
        "  query instruction:   Instruct: {task}\\nQuery:{text}\n" in out and "  max length:          32,768\n" in out
    )
    assert all(description in out for description in TASKS.values())
    code, out, err = run("models", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(FAMILIES) + len(RERANKERS) + len(TASKS)
    assert rows[0]["models"] == "BAAI/bge-m3" and rows[0]["outputs"] == "dense, sparse, multivector"


def test_a_checkpoint_is_described_as_it_is_loaded(run, tmp_path, m3_folder, xlmr_reranker):
    folder = decoders.make(tmp_path, "mine", "Qwen3")
    zoo.update(folder / "config_sentence_transformers.json", prompts={"query": "Instruct: x\nQuery:"}, truncate_dim=32)
    code, out, _ = run("models", "mine", "--json")
    assert code == 0
    found, encoder = json.loads(out), Encoder.from_pretrained(folder)
    assert (found["pooling"], found["dimension"], found["outputs"]) == ("last", encoder.dimension, "dense")
    assert found["query_instruction"] == encoder.settings["query_instruction"] == "Instruct: x\nQuery:"
    assert (found["max_length"], found["default_length"]) == (2048, encoder.settings["max_length"])
    assert f"  parameters:          {found['parameters']:,}\n" in run("models", "mine")[1]
    code, out, err = run("models", str(m3_folder), "--json")
    assert json.loads(out)["outputs"] == "dense, sparse, multivector" and "by its name" in err
    found = json.loads(run("models", str(xlmr_reranker), "--json")[1])
    assert (found["kind"], found["logits"]) == ("reranker", 1)
    assert run("models", "nothing")[0] == 2 and run("models", "BAAI/bge-m3")[2].count("\n") == 1


def test_a_language_model_without_pooling_is_a_reranker(run, tmp_path):
    prompted.layerwise(tmp_path / "layerwise")
    found = json.loads(run("models", "layerwise", "--json")[1])
    assert (found["kind"], found["template"], found["exit_layer"]) == ("reranker", "bge", 5)
    prompted.language_model(tmp_path / "mine", "Qwen3", prompted.qwen_tokenizer())
    code, out, err = run("models", "mine", "--json")
    reranker = CrossEncoder.from_pretrained(tmp_path / "mine")
    found = json.loads(out)
    assert code == 0 and found["template"] == "qwen3" and "by its architecture" in err
    assert found["instruction"] == reranker.settings["instruction"] and found["max_length"] == 1024
    prompted.language_model(tmp_path / "qwen3-embedding", "Qwen3", prompted.qwen_tokenizer())
    assert json.loads(run("models", "qwen3-embedding", "--json")[1])["kind"] == "encoder"


def test_tasks_and_examples_reach_the_queries(run, tmp_path):
    folder = decoders.make(tmp_path, "bge-en-icl", "Mistral")
    texts = ["apple iphone case", "加微信私下转账便宜", "free shipping on all orders"]
    for name in ("queries", "seeds"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    shown = [{"query": "加微信", "response": "off-platform payment"}]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in shown))
    asked = ["--query-task", "fraud", "--query-examples", "examples.jsonl"]
    model = ["--model", "bge-en-icl", "--precision", "fp32"]
    code, _, err = run("score", "queries.jsonl", "--seeds", "seeds.jsonl", *model, *asked, "--output", "scored.jsonl")
    assert code == 0, err
    encoder = Encoder.from_pretrained(folder, precision="fp32", query_task="fraud", query_examples=shown)
    expected = (encoder.encode(texts, side="query").dense @ encoder.encode(texts).dense.T).max(axis=1)
    found = [json.loads(line)["topk_sim"][0] for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)

    def best(name):
        return [json.loads(line)["topk_sim"][0] for line in (tmp_path / name).read_text().splitlines()]

    dense = ["--routes", "dense"]
    code, _, err = run(
        "recall", "queries.jsonl", "--seeds", "seeds.jsonl", *model, *asked, *dense, "--output", "recalled.jsonl"
    )
    assert code == 0, err
    code, _, err = run("bank", "build", "bank", "--seeds", "seeds.jsonl", *model, *asked, *dense)
    assert code == 0, err
    code, _, err = run("recall", "queries.jsonl", "--bank", "bank", "--precision", "fp32", "--output", "of_bank.jsonl")
    assert code == 0, err
    assert best("recalled.jsonl") == best("of_bank.jsonl") == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query-task", "x", "--query-instruction", "y"], "expected one of the two"),
        (["--query-examples", "examples.jsonl"], "examples.jsonl: example 1 has query; expected texts under query and"),
        (["--query-examples", "none.jsonl"], "none.jsonl: no such file"),
        (["--query-task", "x"], "in which form it reads a task"),
    ],
)
def test_what_is_wrong_is_one_line(run, tmp_path, bge_folder, words, message):
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "examples.jsonl").write_text('{"query": "a"}\n')
    places = ["texts.jsonl", "--seeds", "texts.jsonl", "--model", str(bge_folder), "--output", "out.jsonl"]
    code, out, err = run("score", *places, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "out.jsonl").exists()
