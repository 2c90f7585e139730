"""How runs end: what is kept of them, when they stop, what a resumed one does, and what the finished folder says."""

import json
import multiprocessing
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecom_rag import Encoder
from ecom_rag.errors import EcomRagError, ModelError, RecordError, ResumeError, UsageError
from ecom_rag.evaluation.sets import JudgedSet
from ecom_rag.judging.relevance import Grades
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.training import checkpoints, runs
from ecom_rag.training.averaging import best_average
from ecom_rag.training.callbacks import patience_spent
from ecom_rag.training.collate import GroupCollator, LabelledCollator, single_inputs
from ecom_rag.training.data import Labelled, read_data
from ecom_rag.training.dev import RetrievalDev
from ecom_rag.training.fit import train
from ecom_rag.training.runs import alone
from ecom_rag.training.sampling import row_batches
from helpers.small_runs import grouped, interrupted, labelled, recipe_of, weights

pytestmark = pytest.mark.slow


def test_the_default_loss_goes_with_the_data(mean_folder, bert_reranker, tmp_path):
    labels, queries = labelled(tmp_path / "labels.jsonl"), grouped(tmp_path / "queries.jsonl")
    runs = {
        "circle": (mean_folder, labels, "embedder"),
        "info_nce": (mean_folder, queries, "embedder"),
        "listwise": (bert_reranker, queries, "reranker"),
    }
    for name, (folder, data, task) in runs.items():
        report = train(recipe_of(folder, data, tmp_path / name, task=task, schedule={"max_steps": 1}))
        assert report["recipe"]["loss"]["name"] == name


def log_of(values):
    return [{"step": 2 * (i + 1), "eval_MAP@R": value} for i, value in enumerate(values)]


def test_patience_is_read_from_the_history():
    assert not patience_spent(log_of([0.5, 0.4]), "MAP@R", 2)
    assert patience_spent(log_of([0.5, 0.4, 0.5]), "MAP@R", 2)
    assert not patience_spent(log_of([0.5, 0.4, 0.6]), "MAP@R", 1)
    assert not patience_spent(log_of([0.5, 0.4, 0.3]), "MAP@R", None)
    assert not patience_spent([], "MAP@R", 1)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_run_stops_where_the_whole_one_does(mean_folder, tmp_path, after):
    """The validations without a gain before the kill count; killed after the last one, no step is added."""
    data = labelled(tmp_path / "train.jsonl")
    options = {
        "loss": {"name": "circle"},
        "data_table": {"train": data, "dev": data},
        "schedule": {"epochs": 20, "patience": 2, "learning_rate": 1e-9},
    }
    report = train(recipe_of(mean_folder, data, tmp_path / "whole", **options))
    assert report["steps"] == 6  # validated after 2, 4 and 6: one that is the best, two without a gain
    parts = recipe_of(mean_folder, data, tmp_path / "parts", **options)

    def kill(step, steps, figures, validated):
        if (tmp_path / "parts.partial" / f"checkpoint-{2 * after}" / "complete").exists():
            raise KeyboardInterrupt

    if after == 3:  # the trainer ends before it calls again
        monkey = pytest.MonkeyPatch()
        monkey.setattr("ecom_rag.training.fit._finish_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(parts)
        monkey.undo()
    else:
        with pytest.raises(KeyboardInterrupt):
            train(parts, progress=kill)
    resumed = train(parts, resume=True)
    assert resumed["steps"] == 6 and resumed["dev"] == report["dev"]
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_no_step_is_added_to_the_last_one(mean_folder, tmp_path, monkeypatch):
    """max_steps in the middle of an epoch, killed between the last checkpoint and the finished folder."""
    data = labelled(tmp_path / "train.jsonl")
    options = {"loss": {"name": "circle"}, "schedule": {"max_steps": 2}, "averaging": {"ema_decay": 0.9}}
    train(recipe_of(mean_folder, data, tmp_path / "whole", **options))
    parts = recipe_of(mean_folder, data, tmp_path / "parts", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ecom_rag.training.fit._write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(parts)
    resumed = train(parts, resume=True)
    assert resumed["steps"] == resumed["resumed_at_step"] == 2
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_best_checkpoints_are_kept_and_averaged(mean_folder, tmp_path, monkeypatch):
    """The dev measure falls and recovers a little: the best are the first ones, not the newest."""
    data = labelled(tmp_path / "train.jsonl")
    figures = iter([0.0, 0.9, 0.8, 0.2, 0.1, 0.3, 0.0])  # before, five checkpoints, the average
    monkeypatch.setattr("ecom_rag.training.dev.LabelDev.__call__", lambda self, model: {"MAP@R": next(figures)})
    there = []

    def see(*arguments):
        there.extend(sorted(int(path.name.rpartition("-")[2]) for path in (tmp_path / "out.partial").glob("check*")))
        return best_average(*arguments)

    monkeypatch.setattr("ecom_rag.training.fit.best_average", see)
    recipe = recipe_of(
        mean_folder,
        data,
        tmp_path / "out",
        loss={"name": "circle"},
        data_table={"train": data, "dev": data},
        schedule={"max_steps": 10, "epochs": 20},
        averaging={"best_checkpoints": 2},
    )
    report = train(recipe)
    assert there == [2, 4, 10] and report["dev"]["average"]["steps"] == [2, 4] and report["dev"]["best_step"] == 2


@pytest.mark.parametrize("output", ["out/", "out"])
def test_the_run_lies_beside_its_output(mean_folder, tmp_path, output):
    data = labelled(tmp_path / "train.jsonl")
    recipe = recipe_of(mean_folder, data, f"{tmp_path}/{output}", loss={"name": "circle"})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, progress=interrupted(3))
    assert not (tmp_path / "out").exists()
    work = tmp_path / "out.partial"
    shutil.copytree(work, tmp_path / "kept")
    report = train(recipe, resume=True)
    shutil.copytree(tmp_path / "kept", work)  # as if killed between naming the output and removing this
    assert train(recipe, resume=True)["steps"] == report["steps"] and not work.exists()
    with pytest.raises(UsageError, match="already exists"):
        train(recipe, resume=True)


def test_one_process_at_a_time(tmp_path):
    work = tmp_path / "out.partial"

    def second():
        with pytest.raises(UsageError, match="another run is at work in it"), alone(work):
            pass

    with alone(work):
        process = multiprocessing.get_context("fork").Process(target=second)
        process.start()
        process.join()
        assert process.exitcode == 0
    assert not work.exists()  # nothing was begun


def test_the_length_of_training_is_not_that_of_the_model(mean_folder, bert_reranker, tmp_path):
    """Trained on short texts to save time; the folder reads what the model it began from reads, in either library."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    data = grouped(tmp_path / "train.jsonl")
    for task, folder in (("embedder", mean_folder), ("reranker", bert_reranker)):
        train(recipe_of(folder, data, tmp_path / task, task=task, schedule={"max_steps": 2}))
    before, ours = (Encoder.from_pretrained(str(folder)) for folder in (mean_folder, tmp_path / "embedder"))
    assert ours.checkpoint.max_length == before.checkpoint.max_length > 32
    assert SentenceTransformer(str(tmp_path / "embedder"), device="cpu").max_seq_length == ours.checkpoint.max_length
    assert CrossEncoder(str(tmp_path / "reranker"), device="cpu").max_seq_length > 32


def test_half_precision_checkpoints_are_trained_in_float32(mean_folder, tmp_path):
    """Steps of this size vanish in float16."""
    half = tmp_path / "half"
    shutil.copytree(mean_folder, half)
    save_file(
        {name: value.half() for name, value in load_file(half / "model.safetensors").items()},
        half / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"dtype": "float16", "torch_dtype": "float16"}))
    data = labelled(tmp_path / "train.jsonl")
    train(recipe_of(half, data, tmp_path / "out", loss={"name": "circle"}, schedule={"learning_rate": 1e-6}))
    start, found = weights(half), weights(tmp_path / "out")
    moved = [name for name in found if not torch.equal(found[name], start[name].float())]
    name = next(name for name in moved if name.endswith("attention.self.query.weight"))
    assert found[name].dtype == torch.float32 and not torch.equal(found[name].half(), found[name])


def test_dev_measures_look_as_deep_as_they_say():
    """The relevant document is the 151st."""
    vectors = np.eye(200, dtype=np.float32)
    model = SimpleNamespace(
        encode=lambda texts, **_: np.stack([near if text == "q" else vectors[int(text)] for text in texts])
    )
    near = np.linspace(1, 0.01, 200, dtype=np.float32)
    judged = JudgedSet(["q"], [str(n) for n in range(200)], Grades([{150: 1}], 200))
    for measure, expected in (("R@200", 1.0), ("AP", 1 / 151), ("R@100", 0.0)):
        dev = RetrievalDev(judged, measure=measure, batch_size=8)
        assert dev(model)[measure] == pytest.approx(expected)


@pytest.mark.parametrize(("measure", "message"), [("nDCG@10, R@100", "expected one,"), ("R@1", "no label has two")])
def test_dev_data_and_measure_are_looked_at(mean_folder, tmp_path, measure, message):
    if measure == "R@1":
        train_data, dev = labelled(tmp_path / "train.jsonl"), labelled(tmp_path / "dev.jsonl", rows=3)
    else:
        train_data = dev = grouped(tmp_path / "train.jsonl")
    recipe = recipe_of(
        mean_folder,
        train_data,
        tmp_path / "out",
        data_table={"train": train_data, "dev": dev},
        evaluation={"measure": measure},
    )
    with pytest.raises(UsageError, match=message):
        train(recipe)


def test_of_a_class_every_other_text_is_a_query(mean_folder):
    data = Labelled(["wallet", "card", "case", "watch", "tea", "price"], list("aaabbb"), None, ["f"] * 6, [])
    tokenizer = Tokenizer(mean_folder)
    rows = [{"row": number} for number in (0, 3, 1, 4, 2, 5)]

    def inputs(*instructions):
        return LabelledCollator(data, tokenizer, max_length=32, instructions=instructions)(rows)["texts_input_ids"]

    expected = single_inputs(
        tokenizer, ["leather wallet", "leather watch", "case card", "case tea", "leather case", "leather price"], 32
    )["input_ids"]
    assert torch.equal(inputs("leather ", "case "), expected)


def test_a_class_needs_two_texts_in_each_file_where_batches_are_of_one(mean_folder, tmp_path):
    first = labelled(tmp_path / "first.jsonl")
    second = tmp_path / "second.jsonl"
    line = {"text": "another wallet", "metadata": {"label": "wallet"}}
    second.write_text(json.dumps(line) + "\n")
    recipe = recipe_of(
        mean_folder, first, tmp_path / "out", data_table={"train": [first, str(second)]}, sampling={"one_source": True}
    )
    with pytest.raises(RecordError, match=r'second.jsonl:1: class "wallet" has this one text in its file'):
        train(recipe)


def test_adapters_keep_their_dropout_and_need_a_head(mean_folder, tmp_path):
    data = grouped(tmp_path / "train.jsonl")
    options = {"lora": {"rank": 2, "dropout": 0.25}, "schedule": {"dropout": 0.0}}
    recipe = recipe_of(mean_folder, data, tmp_path / "out", **options)
    model = checkpoints.load(recipe, checkpoints.find_start(recipe))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.0, 0.25}
    with pytest.raises(ModelError, match="its new classification head has no adapter"):
        train(recipe_of(mean_folder, data, tmp_path / "out", task="reranker", **options))


def test_prompts_are_no_part_of_a_rerankers_pairs(bert_reranker, tmp_path):
    data = [
        read_data([grouped(tmp_path / "t.jsonl", **extra)], "train", recipe_of(bert_reranker, "t", "o"))
        for extra in ({}, {"prompt": "leather "})
    ]
    tokenizer = Tokenizer(bert_reranker)
    batches = row_batches(16, batch_size=4)
    options = {"positives": 1, "negatives": 1, "max_length": 32, "instructions": ("", "")}

    def inputs(groups, task):
        collate = GroupCollator(groups, tokenizer, batches, task=task, seed=0, **options)
        found = collate([{"row": 0}, {"row": 1}])
        return found["pairs" if task == "reranker" else "queries_input_ids"]

    without, prompted = (inputs(groups, "reranker")["input_ids"] for groups in data)
    assert torch.equal(without, prompted)
    assert inputs(data[0], "embedder").shape != inputs(data[1], "embedder").shape


def test_a_classifier_is_no_reranker(bert_reranker, tmp_path):
    folder = tmp_path / "classifier"
    shutil.copytree(bert_reranker, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    with pytest.raises(ModelError, match="gives 3 numbers for a pair"):
        train(recipe_of(folder, grouped(tmp_path / "train.jsonl"), tmp_path / "out", task="reranker"))


def test_the_gpu_s_memory_is_too_small(mean_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.Trainer.training_step", full)
    recipe = recipe_of(mean_folder, labelled(tmp_path / "train.jsonl"), tmp_path / "out", loss={"name": "circle"})
    with pytest.raises(EcomRagError, match=r"set schedule\.mini_batch"):
        train(recipe)


@pytest.mark.parametrize("content", [b"[1]", b"null", b"", b"{", b"\xff", b"[" * 100_000, b"{}", b'{"recipe": 1}'])
@pytest.mark.parametrize("name", ["run.json", "train_report.json", "before.json"])
def test_garbage_in_a_runs_notes_is_told_in_one_line(name, content, tmp_path):
    output, work = tmp_path / "out", tmp_path / "out.partial"
    for folder in (output, work):
        folder.mkdir()
    asked = {"recipe": {"model": "a"}, "data": "b"}
    (work / "run.json").write_text('{"recipe": {"model": "a"}, "data": "b"}')
    (output / "train_report.json").write_text('{"recipe": {"model": "a"}, "data": {"digest": "b"}}')
    ((output if name == "train_report.json" else work) / name).write_bytes(content)
    if name == "before.json":
        dev = SimpleNamespace(primary_metric="accuracy")
        with pytest.raises(ResumeError, match=r"before.json") as caught:
            runs.baseline(work, dev, None, work)
        assert "\n" not in str(caught.value)
        return
    assert runs.finished_report(output, work) is None
    if name == "run.json":
        with pytest.raises(ResumeError) as caught:
            runs.open_run(work, asked, resume=True)
        assert "\n" not in str(caught.value)
