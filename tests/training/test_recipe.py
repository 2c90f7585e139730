"""Recipes: strict, with the nearest known key in the message; and the command over them."""

import pytest
from typer.testing import CliRunner

from ecom_rag.errors import UsageError
from ecom_rag.training.recipe import make_recipe, read_recipe

LEAST = {"model": "starter", "output": "out", "data": {"train": "train.jsonl"}}


def test_a_small_recipe_and_its_defaults(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('model = "starter"\noutput = "out"\n[data]\ntrain = ["a.jsonl", "b.gz"]\n[loss]\nmargin = 0\n')
    recipe = read_recipe(str(path), "embedder")
    assert recipe.data.train == ("a.jsonl", "b.gz")
    assert recipe.loss.margin == 0.0 and recipe.loss.gamma == 80.0 and recipe.schedule.keep == 2
    assert recipe.as_dict()["sampling"]["alpha"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": "x"}, "unknown key modle; did you mean model?"),
        ({"loss": {"tempratur": 1}}, "unknown key loss.tempratur; did you mean loss.temperature?"),
        ({"schedule": {"zzz": 1}}, "unknown key schedule.zzz; known are schedule.epochs, schedule.max_steps"),
        ({"loss": {"name": "triplet"}}, "loss.name is 'triplet'; expected one of circle, supervised_contrastive"),
        ({"seed": -1}, "seed is -1; expected from 0 to 4294967295"),
        ({"loss": {"gamma": -1}}, "loss.gamma is -1.0; expected above 0"),
        ({"loss": {"distillation": "mse"}}, "loss.distillation is 'mse'; expected one of none, kl, margin_mse"),
        ({"loss": {"name": "none"}}, "loss.distillation is 'none'; expected kl or margin_mse with loss \"none\""),
        ({"schedule": {"epochs": 1.5}}, "schedule.epochs is 1.5; expected a whole number"),
        ({"schedule": {"bf16": 1}}, "schedule.bf16 is 1; expected true or false"),
        ({"schedule": {"epochs": True}}, "schedule.epochs is True; expected a whole number"),
        ({"schedule": {"keep": 1}}, "schedule.keep is 1; expected at least 2"),
        ({"schedule": {"patience": 3}}, "schedule.patience has no effect without validation data; leave it"),
        ({"averaging": {"best_checkpoints": 1}}, "averaging.best_checkpoints has no effect without validation data"),
        ({"schedule": 3}, r"schedule is 3; expected a table \[schedule\]"),
        ({"data": {"train": [1]}}, "data.train is .*; expected a string or a list of strings"),
        ({"data": {}}, "the key data.train is missing"),
        ({"output": None}, "output is None; expected a string"),
        ({"task": "reranker"}, 'task is "reranker", but the command trains a embedder'),
        ({"averaging": {"best_checkpoints": 3}, "data": {"train": "a", "dev": "b"}}, "expected at most schedule.keep"),
        ({"sampling": {"texts_per_class": 1}}, "sampling.texts_per_class is 1; expected at least 2"),
        (
            {"loss": {"in_batch": False}, "data": {"train": "a", "negatives": 0}},
            "data.negatives is 0; expected at least",
        ),
        ({"sampling": {"batch_size": 1}, "data": {"train": "a", "negatives": 0}}, "sampling.batch_size is 1; expected"),
        ({"loss": {"distillation": "kl"}, "data": {"train": "a", "negatives": 0}}, "no differences to learn"),
    ],
)
def test_a_wrong_recipe_is_one_line(change, message):
    with pytest.raises(UsageError, match=message):
        make_recipe({**LEAST, **change}, "embedder")


@pytest.mark.parametrize("key", ["query_instruction", "passage_instruction"])
def test_rerankers_have_no_instructions(key):
    with pytest.raises(UsageError, match=f"data.{key} is 'q: '; expected none for a reranker"):
        make_recipe({**LEAST, "data": {"train": "a", key: "q: "}}, "reranker")


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('\ufeffmodel = "starter"\noutput = "out"\n[data]\ntrain = "a.jsonl"\n', encoding="utf-8")
    assert read_recipe(str(path), "embedder").model == "starter"


def test_a_missing_table_and_file_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"the table \[data\] is missing"):
        make_recipe({"model": "a", "output": "b"}, "embedder")
    with pytest.raises(UsageError, match="no such file; expected a recipe"):
        read_recipe(str(tmp_path / "none.toml"), "embedder")
    (tmp_path / "bad.toml").write_text("model = \n")
    with pytest.raises(UsageError, match=r"bad.toml: not valid TOML \(.*line 1"):
        read_recipe(str(tmp_path / "bad.toml"), "embedder")


def test_every_key_is_documented():
    """docs/training.md and its Chinese twin name each key of each table."""
    from dataclasses import fields, is_dataclass
    from pathlib import Path
    from typing import get_type_hints

    from ecom_rag.training.recipe import Recipe

    hints = get_type_hints(Recipe)
    tables = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    for document in ("training.md", "training.zh-CN.md"):
        text = (Path(__file__).parents[2] / "docs" / document).read_text(encoding="utf-8")
        for table, kind in tables.items():
            assert f"`[{table}]`" in text
            for item in fields(kind):
                assert f"`{item.name}`" in text, f"{document} does not name {table}.{item.name}"


def test_without_the_extra_the_message_says_what_to_install(monkeypatch, tmp_path):
    import importlib.util

    from ecom_rag.training.start import require_extra

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(UsageError, match=r"\(peft\); install them in the checkout with pip install .*\[train\]"):
        require_extra()


@pytest.mark.slow
def test_the_command_trains(mean_folder, tmp_path, monkeypatch):
    from ecom_rag.cli import app
    from helpers.small_runs import labelled

    monkeypatch.chdir(tmp_path)
    data = labelled(tmp_path / "train.jsonl")
    (tmp_path / "recipe.toml").write_text(
        f'model = "{mean_folder}"\noutput = "tuned"\n[data]\ntrain = "train.jsonl"\ndev = "{data}"\n'
        '[loss]\nname = "circle"\n[sampling]\nclasses_per_batch = 2\n[schedule]\nepochs = 1\ndevice = "cpu"\n'
    )
    done = CliRunner().invoke(app, ["train", "embedder", "recipe.toml"])
    assert done.exit_code == 0, done.output
    assert "trained 3 steps" in done.stderr and "MAP@R" in done.stderr and "-> tuned" in done.stderr
    assert (tmp_path / "tuned" / "model.safetensors").exists() and done.stdout == ""


def _keys():
    from dataclasses import fields, is_dataclass
    from typing import get_type_hints

    from ecom_rag.training.recipe import _NO_KEYS, Recipe

    hints = get_type_hints(Recipe)
    names = [item.name for item in fields(Recipe) if item.name not in _NO_KEYS]
    return [
        key
        for name in names
        for key in ([f"{name}.{item.name}" for item in fields(hints[name])] if is_dataclass(hints[name]) else [name])
    ]


def test_every_key_is_in_the_table_of_idle_keys():
    from ecom_rag.training.idle import TABLE

    assert sorted(TABLE) == sorted(_keys())


IDLE = {  # without anything else in the recipe, over labelled records and over queries
    "labels": "data.template data.train_split data.min_grade data.dev_split data.positives data.negatives"
    " loss.in_batch loss.mask_false_negatives loss.self_distillation loss.positive_weight loss.distillation"
    " loss.distillation_weight loss.teacher_temperature sampling.batch_size sampling.parents_per_batch"
    " sampling.source_alpha sampling.one_source sampling.duplicate_cap evaluation.measure evaluation.batch_size"
    " lora.alpha lora.dropout averaging.best_checkpoints",
    "queries": "data.template data.train_split data.min_grade data.dev_split data.label data.single_texts loss.margin"
    " loss.gamma loss.self_distillation loss.positive_weight loss.distillation_weight loss.teacher_temperature"
    " sampling.classes_per_batch sampling.texts_per_class sampling.alpha sampling.parents_per_batch"
    " sampling.source_alpha sampling.one_source sampling.duplicate_cap evaluation.measure evaluation.batch_size"
    " lora.alpha lora.dropout averaging.best_checkpoints",
}


@pytest.mark.parametrize("kind", IDLE)
def test_a_key_that_changes_nothing_is_refused_its_default_too(tmp_path, kind):
    from ecom_rag.training import fit
    from helpers.small_runs import grouped, labelled

    data = (labelled if kind == "labels" else grouped)(tmp_path / "train.jsonl")
    defaults = make_recipe({"model": "no/such", "output": str(tmp_path / "o"), "data": {"train": data}}, "embedder")
    refused = []
    for key in _keys():
        table, _, name = key.partition(".")
        value = getattr(getattr(defaults, table), name) if name else None
        if value is None:
            continue
        value = {"evaluation.measure": "MAP@R", "data.train": data}.get(key, value)
        given = {"model": str(tmp_path / "none"), "output": str(tmp_path / "o"), "data": {"train": data}}
        given[table] = given.get(table, {}) | {name: value}
        with pytest.raises(Exception, match=r"has no effect|no such folder") as caught:
            fit.train(make_recipe(given, "embedder"))
        if "has no effect" in str(caught.value):
            assert f"recipe: {key} has no effect" in str(caught.value) and "; leave it out, or" in str(caught.value)
            refused.append(key)
    assert sorted(refused) == sorted(IDLE[kind].split())
