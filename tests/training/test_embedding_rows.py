"""The rows of the table that occur train as in the whole table; the others lie in the checkpoint as before."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ecom_rag.training import checkpoints, embedding_rows, fit
from ecom_rag.training.embedding_rows import UsedRows, token_ids, train_only
from ecom_rag.training.plan import make_plan
from helpers.small_runs import grouped, interrupted, labelled, recipe_of, weights

pytestmark = pytest.mark.slow

TABLE = "embeddings.word_embeddings.weight"
INSTRUCTED = {"query_instruction": "ask: ", "passage_instruction": "best "}


@pytest.fixture
def pair():
    """A table of ten rows, and what stands in its place where 1, 4, 7 and the padding 0 occur."""
    torch.manual_seed(0)
    table = nn.Embedding(10, 3, padding_idx=0)
    return table, UsedRows(table, torch.tensor([0, 1, 4, 7]))


def test_the_outputs_are_those_of_the_table(pair):
    table, rows = pair
    ids = torch.tensor([[1, 7, 0], [9, 4, 2]])  # 9 and 2 do not occur in training
    assert torch.equal(rows(ids), table(ids))
    with torch.inference_mode():
        assert torch.equal(rows(ids), table(ids))
    assert rows.weight.shape == (4, 3)


def test_the_gradients_are_those_of_the_table(pair):
    table, rows = pair
    ids = torch.tensor([[1, 7, 0, 1], [9, 4, 2, 7]])
    for module in (table, rows):
        (module(ids) * torch.arange(24).reshape(2, 4, 3)).sum().backward()
    assert torch.equal(rows.weight.grad, table.weight.grad[[0, 1, 4, 7]])
    assert (rows.weight.grad[0] == 0).all() and (rows.weight.grad[1:] != 0).all()


def test_the_state_is_the_whole_table(pair):
    table, rows = pair
    before = table.weight.detach().clone()
    assert list(rows.state_dict()) == ["weight"] and torch.equal(rows.state_dict()["weight"], before)
    with torch.no_grad():
        rows.weight += 1
    state = rows.state_dict()
    others = [2, 3, 5, 6, 8, 9]
    assert torch.equal(state["weight"][others], before[others])
    assert torch.equal(state["weight"][[0, 1, 4, 7]], before[[0, 1, 4, 7]] + 1)
    fresh = UsedRows(table, torch.tensor([0, 1, 4, 7]))
    fresh.load_state_dict(state)
    assert torch.equal(fresh.weight, rows.weight) and state["weight"].shape == (10, 3)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "queries", "pairs"])
def test_a_run_ends_as_with_the_whole_table(mean_folder, bert_reranker, tmp_path, monkeypatch, kind, decay):
    """With weight decay too, apart from the rows that do not occur: AdamW on the whole table shrinks those."""
    data = (labelled if kind == "labels" else grouped)(tmp_path / "train.jsonl")
    folder, task = (bert_reranker, "reranker") if kind == "pairs" else (mean_folder, "embedder")
    options = {"task": task, "schedule": {"weight_decay": decay, "dropout": 0.0}}
    if kind == "labels":
        options["data_table"] = INSTRUCTED
    fit.train(recipe_of(folder, data, tmp_path / "rows", **options))
    with monkeypatch.context() as patch:
        patch.setattr(embedding_rows, "train_only", lambda *_: None)
        fit.train(recipe_of(folder, data, tmp_path / "whole", **options))
    start, rows, whole = (weights(path) for path in (folder, tmp_path / "rows", tmp_path / "whole"))
    used = make_plan(recipe_of(folder, data, tmp_path / "plan", **options)).used
    name = next(name for name in start if name.endswith(TABLE))
    others = np.setdiff1d(np.arange(len(start[name])), used)
    assert len(others) > 10 and rows[name].shape == start[name].shape
    assert torch.equal(rows[name][others], start[name][others])
    assert torch.equal(whole[name][others], start[name][others]) == (decay == 0)
    whole[name][others] = start[name][others]
    for key, value in whole.items():
        torch.testing.assert_close(rows[key], value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(rows[name][used], start[name][used])


@pytest.mark.parametrize("kind", ["labels", "queries", "prompts", "pairs"])
def test_every_token_of_a_batch_is_known_beforehand(mean_folder, bert_reranker, tmp_path, kind):
    path = tmp_path / "train.jsonl"
    change = {"prompt": "quick "} if kind == "prompts" else {}
    data = labelled(path) if kind == "labels" else grouped(path, **change)
    folder, task = (bert_reranker, "reranker") if kind == "pairs" else (mean_folder, "embedder")
    table = {"max_length": 32 if kind == "pairs" else 8} | ({} if kind == "pairs" else INSTRUCTED)
    plan = make_plan(recipe_of(folder, data, tmp_path / "out", task=task, data_table=table))
    seen = set()
    for epoch in range(3):
        plan.batches.set_epoch(epoch)
        for rows in plan.batches:
            batch = plan.collator([{"row": row} for row in rows])
            inputs = batch.get("pairs", batch)
            seen |= {i for key, ids in inputs.items() if key.endswith("input_ids") for i in ids.unique().tolist()}
    assert seen <= set(plan.used.tolist()) and len(seen) > 10
    assert np.all(np.diff(plan.used) > 0)


def test_a_checkpoint_under_way_is_complete_and_its_optimizer_small(mean_folder, tmp_path):
    data = labelled(tmp_path / "train.jsonl")
    recipe = recipe_of(mean_folder, data, tmp_path / "out", loss={"name": "circle"})
    with pytest.raises(KeyboardInterrupt):
        fit.train(recipe, progress=interrupted(3))
    folder = tmp_path / "out.partial" / "checkpoint-2"
    shape = load_file(mean_folder / "model.safetensors")[TABLE].shape
    assert load_file(folder / "model.safetensors")[TABLE].shape == shape
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"] == shape[0]
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"].values()
    used = len(make_plan(recipe).used)
    largest = max(moment["exp_avg"].shape[0] for moment in moments if moment["exp_avg"].shape[1:] == shape[1:])
    assert used < shape[0] and largest == max(used, 512)  # 512 positions


def test_dev_texts_may_hold_other_tokens(mean_folder, tmp_path):
    recipe = recipe_of(mean_folder, labelled(tmp_path / "train.jsonl"), tmp_path / "out")
    plan = make_plan(recipe)
    model = checkpoints.load(recipe, plan.start)
    texts = ["全国销量第一的神奇减肥茶", "the quick brown fox", "leather wallet card 1"]
    assert not set(token_ids(plan.tokenizer, texts, 32)) <= set(plan.used)
    expected = model.encode(texts)
    train_only(model, plan.used)
    assert isinstance(model[0].model.get_input_embeddings(), UsedRows)
    np.testing.assert_array_equal(model.encode(texts), expected)


def test_adapters_leave_the_table_alone(mean_folder, tmp_path):
    recipe = recipe_of(mean_folder, labelled(tmp_path / "train.jsonl"), tmp_path / "out", lora={"rank": 2})
    plan = make_plan(recipe)
    model = checkpoints.load(recipe, plan.start)
    train_only(model, plan.used)
    assert type(model[0].model.get_input_embeddings()) is nn.Embedding
