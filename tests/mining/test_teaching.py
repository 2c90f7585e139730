"""Teacher scores: those of the models themselves, every other key kept, kills and mistakes."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from ecom_rag import CrossEncoder, Encoder
from ecom_rag.cli import app
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import jobs
from ecom_rag.mining import teaching
from ecom_rag.mining.teaching import teach, teach_file
from ecom_rag.training.fit import train as train_recipe
from helpers import decoders, prompted
from helpers.jsonl import lines as read
from helpers.small_runs import grouped, recipe_of

pytestmark = pytest.mark.slow

ITEMS = [
    {
        "query": "leather wallet",
        "pos": ["genuine leather"],
        "neg": ["watch", "手机壳"],
        "prompt": "p: ",
        "id": 7,
    },
    {"query": "手机壳", "pos": ["手机壳 case", "case"], "neg": [], "neg_scores": []},
    {"query": "watch", "pos": ["replica watch"], "neg": ["genuine leather"], "pos_scores": [9], "neg_scores": [8]},
]


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    return str(path)


def test_a_reranker_teaches(train, xlmr_reranker, tmp_path):
    cross_encoder = CrossEncoder.from_pretrained(str(xlmr_reranker), runtime="torch", precision="fp32")
    summary = teach_file(train, str(tmp_path / "out.jsonl"), cross_encoder)
    taught = read(tmp_path / "out.jsonl")
    assert (summary.records, summary.counts["pairs"]) == (3, 7)
    for before, after in zip(ITEMS, taught, strict=True):
        for side in ("pos", "neg"):
            expected = cross_encoder.score([(before["query"], text) for text in before[side]])
            np.testing.assert_allclose(after.pop(f"{side}_scores"), expected, atol=1e-5)
        assert after == {key: value for key, value in before.items() if not key.endswith("_scores")}


def test_bge_m3_teaches_by_its_hybrid_score(train, m3_folder, bge_folder, tmp_path):
    from FlagEmbedding import BGEM3FlagModel

    encoder = Encoder.from_pretrained(str(m3_folder), runtime="torch", precision="fp32")
    teach_file(train, str(tmp_path / "out.jsonl"), encoder)
    pairs = [(item["query"], text) for item in ITEMS for text in (*item["pos"], *item["neg"])]
    theirs = BGEM3FlagModel(str(m3_folder), use_fp16=False, devices="cpu").compute_score(pairs)
    found = [score for item in read(tmp_path / "out.jsonl") for score in (*item["pos_scores"], *item["neg_scores"])]
    np.testing.assert_allclose(found, theirs["colbert+sparse+dense"], atol=1e-4)
    sparse = teach(ITEMS, encoder, mode="sparse")
    np.testing.assert_allclose(sparse[0]["neg_scores"], theirs["sparse"][1:3], atol=1e-4)
    plain = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32")
    cosine = (plain.encode(["watch"], side="query").dense @ plain.encode(["replica watch"]).dense.T).item()
    assert teach(ITEMS, plain)[2]["pos_scores"] == [pytest.approx(cosine, abs=1e-5)]


def test_a_killed_run_goes_on(train, bert_reranker, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 1)
    load = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32")
    teach_file(train, str(tmp_path / "whole.jsonl"), load)
    calls = []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return teach(*arguments, **options)

    monkeypatch.setattr(teaching, "teach", dies)
    output = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        teach_file(train, str(output), load)
    monkeypatch.setattr(teaching, "teach", teach)
    summary = teach_file(train, str(output), load, resume=True)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (summary.resumed, summary.records) == (2, 3)


def test_bad_data_is_told_before_the_model_is_loaded(tmp_path):
    never = "a/model-that-is-not-there"
    path, output = tmp_path / "bad.jsonl", str(tmp_path / "out.jsonl")
    for line, message in [
        ('{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": [NaN]}', "bad.jsonl:2: NaN is not JSON"),
        ('{"query": "q", "pos": [], "neg": ["b"]}', 'bad.jsonl:2: "pos" is missing or empty'),
        ('{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [1, 2]}', 'bad.jsonl:2: "pos_scores" has 2 entries'),
        ("[1]", "bad.jsonl:2: is not an object"),
    ]:
        path.write_text(json.dumps(ITEMS[0]) + "\n" + line + "\n")
        with pytest.raises(RecordError, match=message):
            teach_file(str(path), output, never)
    with pytest.raises(UsageError, match="unknown file type"):
        teach_file(str(path), "out.parquet", never)
    with pytest.raises(UsageError, match="also an input"):
        teach_file(str(path), str(path), never)
    with pytest.raises(UsageError, match="`mode` 'magic'"):
        teach_file(str(path), output, never, mode="magic")


def test_command(train, bert_reranker, tmp_path, monkeypatch, capsys):
    from ecom_rag import cli

    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(
        "sys.argv", ["ecom-rag", "teach", train, "--model", str(bert_reranker), "--runtime", "torch", "-o", str(out)]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0 and "scored 7 pairs of 3 queries" in capsys.readouterr().err
    assert all(len(item["neg_scores"]) == len(item["neg"]) for item in read(out))
    for idle, needs in ((["--mode", "dense"], "embedder"), (["--teacher", "embedder", "--normalize"], "reranker")):
        monkeypatch.setattr("sys.argv", ["ecom-rag", "teach", train, "--model", "m", "-o", f"{out}l", *idle])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr().err
        assert caught.value.code == 2 and f"or choose --teacher {needs}" in shown and shown.count("\n") == 1


@pytest.mark.parametrize("kind", ["Gemma", "Qwen3"])
def test_a_language_model_teaches_by_its_answer(train, tmp_path, kind):
    tokenizer = prompted.gemma_tokenizer() if kind == "Gemma" else prompted.qwen_tokenizer()
    prompted.language_model(tmp_path / kind, kind, tokenizer)
    asked = {"precision": "fp32", "instruction": "Does B break the rule of A?"}
    words = ["teach", train, "--model", str(tmp_path / kind), "--output", str(tmp_path / "out.jsonl")]
    result = CliRunner().invoke(app, [*words, "--precision", "fp32", "--instruction", asked["instruction"]])
    assert result.exit_code == 0, result.output
    teacher = CrossEncoder.from_pretrained(tmp_path / kind, **asked)
    other = CrossEncoder.from_pretrained(tmp_path / kind, precision="fp32")
    for item in read(tmp_path / "out.jsonl"):
        pairs = [(item["query"], text) for text in (*item["pos"], *item["neg"])]
        found = [*item["pos_scores"], *item["neg_scores"]]
        np.testing.assert_allclose(found, teacher.score(pairs), atol=1e-5)
        assert np.abs(found - other.score(pairs)).max() > 1e-3


def test_a_decoder_teaches_by_the_cosine_of_its_task(train, tmp_path):
    folder = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3")
    words = ["teach", train, "--model", str(folder), "--teacher", "embedder", "--output", str(tmp_path / "out.jsonl")]
    result = CliRunner().invoke(app, [*words, "--precision", "fp32", "--query-task", "fraud"])
    assert result.exit_code == 0, result.output
    teacher = Encoder.from_pretrained(folder, precision="fp32", query_task="fraud")
    for item in read(tmp_path / "out.jsonl"):
        [query] = teacher.encode([item["query"]], side="query").dense
        documents = teacher.encode([*item["pos"], *item["neg"]]).dense
        np.testing.assert_allclose([*item["pos_scores"], *item["neg_scores"]], documents @ query, atol=1e-5)


def test_a_small_encoder_learns_from_large_teachers(tmp_path, mean_folder):
    """Decoder, or reranker that is a language model; scores by ``teach``, then a training on nothing else."""
    data = grouped(tmp_path / "train.jsonl")
    large = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3")
    prompted.language_model(tmp_path / "large", "Gemma", prompted.gemma_tokenizer())
    teachers = {
        "embedder": Encoder.from_pretrained(large, precision="fp32"),
        "reranker": CrossEncoder.from_pretrained(tmp_path / "large", precision="fp32"),
    }
    for name, teacher in teachers.items():
        teach_file(data, tmp_path / f"{name}.jsonl", teacher)
        taught = read(tmp_path / f"{name}.jsonl")
        report = train_recipe(
            recipe_of(
                mean_folder,
                str(tmp_path / f"{name}.jsonl"),
                tmp_path / name,
                data_table={"negatives": 3},
                loss={"name": "none", "distillation": "kl", "teacher_temperature": 0.05 if name == "embedder" else 1.0},
                schedule={"epochs": 12},
            )
        )
        losses = [entry["loss"] for entry in report["log"] if "loss" in entry]
        assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
        agreed = [agreement(folder, taught) for folder in (mean_folder, tmp_path / name)]
        assert agreed[1] > agreed[0] + 0.1


def agreement(student, taught):
    """Mean rank correlation of the student's cosines with the teacher's scores, over queries."""
    encoder, found = Encoder.from_pretrained(student, precision="fp32"), []
    for item in taught:
        [query] = encoder.encode([item["query"]], side="query").dense
        scores = encoder.encode([*item["pos"], *item["neg"]]).dense @ query
        found.append(spearmanr(scores, [*item["pos_scores"], *item["neg_scores"]]).statistic)
    return np.mean(found)
