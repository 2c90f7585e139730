"""A training ends with weights that are numbers and have changed, or with an error and without a folder."""

import math

import pytest
import torch
from safetensors.torch import load_file

from ecom_rag.errors import EcomRagError, EmbeddingError, ModelError
from ecom_rag.mining import teaching
from ecom_rag.training import fit, health
from ecom_rag.training.averaging import best_average
from ecom_rag.training.fit import train
from helpers.small_runs import grouped, labelled, recipe_of

pytestmark = pytest.mark.slow

KINDS = {
    "labels": {"loss": {"name": "circle"}},
    "queries": {"loss": {"name": "info_nce"}},
    "average": {"loss": {"name": "circle"}, "averaging": {"ema_decay": 0.5}},
    "adapter": {"loss": {"name": "circle"}, "lora": {"rank": 2}},
    "m3": {"loss": {"name": "m3"}},
    "reranker": {"loss": {"name": "listwise"}},
    "accumulated": {"loss": {"name": "info_nce"}, "schedule": {"gradient_accumulation": 2}},
}


@pytest.mark.parametrize("rate", [1e-60, 1e-3, 1e25])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_numbers_and_new_or_nothing_is_written(mean_folder, m3_folder, bert_reranker, tmp_path, kind, rate):
    data = (labelled if KINDS[kind]["loss"]["name"] == "circle" else grouped)(tmp_path / "train.jsonl")
    start = {"m3": m3_folder, "reranker": bert_reranker}.get(kind, mean_folder)
    schedule = {"max_steps": 6, "learning_rate": rate, "log_every": 4, **KINDS[kind].get("schedule", {})}
    tables = {**KINDS[kind], "schedule": schedule}
    if KINDS[kind]["loss"]["name"] != "circle":
        tables["data_table"] = {"train": data, "negatives": 2}
    task = "reranker" if kind == "reranker" else "embedder"
    recipe = recipe_of(start, data, tmp_path / "out", task=task, **tables)
    if rate == 1e-3:
        train(recipe)
        parts = [load_file(tmp_path / "out" / "model.safetensors")]
        parts += [torch.load(path, weights_only=True) for path in (tmp_path / "out").glob("*_linear.pt")]
        assert len(parts) == (3 if kind == "m3" else 1)
        assert all(torch.isfinite(value).all() for part in parts for value in part.values())
        return
    with pytest.raises(ModelError, match=r"\d steps|in step \d") as caught:
        train(recipe)
    assert "learning_rate" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_step_is_named_and_weights_are_looked_at_whatever_gave_them(mean_folder, tmp_path, monkeypatch):
    data = labelled(tmp_path / "train.jsonl")
    losses = {0: 1.0, 1: math.nan}
    for done, loss in losses.items():
        watched = health.watching(lambda loss=loss: torch.tensor(loss), lambda done=done: done, tmp_path)
        if done == 0:
            assert watched() == 1.0
    with pytest.raises(ModelError, match="the loss is nan in step 2"):
        watched()
    monkeypatch.setattr(fit.adapters, "merge", lambda model: model[0].model.pooler.dense.weight.data.fill_(math.inf))
    with pytest.raises(ModelError, match=r"1 tensors hold NaN or infinity \(e.g. .*pooler"):
        train(recipe_of(mean_folder, data, tmp_path / "out", lora={"rank": 2}))
    assert not (tmp_path / "out").exists()


def test_an_average_of_nan_is_no_gain(tmp_path):
    class Dev:
        primary_metric = "m"

        def __call__(self, model):
            return {"m": math.nan}

    model = torch.nn.Linear(1, 1)
    before = model.weight.detach().clone()
    found = best_average(model, lambda path: None, tmp_path, [], 2, Dev(), 0.5)
    assert not found["kept"] and torch.equal(model.weight, before)


def test_a_single_step_is_no_warm_up(mean_folder, tmp_path):
    data = labelled(tmp_path / "train.jsonl")
    assert train(recipe_of(mean_folder, data, tmp_path / "out", schedule={"max_steps": 1}))["steps"] == 1


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_teacher_gives_numbers(monkeypatch, score, bge_folder):
    import numpy as np

    from ecom_rag import Encoder

    encoder = Encoder.from_pretrained(str(bge_folder))
    monkeypatch.setattr(teaching, "_embedder_scores", lambda pairs, *_: np.full(len(pairs), score, np.float32))
    with pytest.raises(EmbeddingError, match="the teacher gave NaN"):
        teaching.teach([{"query": "q", "pos": ["a"], "neg": ["b"]}], encoder)


@pytest.mark.parametrize("key", ["sampling.alpha", "loss.gamma", "schedule.learning_rate", "averaging.ema_decay"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_every_number_of_a_recipe_is_one(key, value):
    table, name = key.split(".")
    with pytest.raises(EcomRagError, match=rf"{key} is .*; expected a (finite number|number of at most)"):
        recipe_of("m", "d.jsonl", "o", **{table: {name: value}})
