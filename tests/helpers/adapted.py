"""Small runs that train adapters of decoders: an encoder, and rerankers that answer a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from ecom_rag.training import adapters
from ecom_rag.training.fit import train
from ecom_rag.training.recipe import Recipe
from helpers.small_runs import grouped, recipe_of

RANK = 4


def parts(folder: Path) -> tuple[str, str]:
    """Queries to train on, and others of the same classes to validate on."""
    data = grouped(folder / "train.jsonl")
    every = Path(grouped(folder / "all.jsonl", rows=24)).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "dev.jsonl").write_text("".join(every[16:]), encoding="utf-8")
    return data, str(folder / "dev.jsonl")


def recipe(model: Path, data: tuple[str, str], output: Path, *, length: int = 64, **tables: object) -> Recipe:
    """Of a short run with an adapter; a table that is given replaces keys of ours."""
    ours = {
        "data": {"dev": data[1], "max_length": length, "negatives": 3},
        "schedule": {"epochs": 6, "learning_rate": 2e-3, "save_every": 8},
        "lora": {"rank": RANK, "alpha": 8},
    }
    given = {name.removesuffix("_table"): values for name, values in tables.items()}
    task = given.pop("task", "embedder")
    both = {name: {**ours.get(name, {}), **given.get(name, {})} for name in {*ours, *given}}
    return recipe_of(model, data[0], output, task=task, **{f"{name}_table": both[name] for name in both})


def trained_and_merged(asked: Recipe) -> tuple[dict, dict]:
    """The report of a run, and the weights that it had before its adapter was merged."""
    before: dict[str, Any] = {}
    merge = adapters.merge

    def watched(model: Any) -> None:
        before.update({key: value.clone() for key, value in model[0].model.state_dict().items()})
        merge(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecom_rag.training.fit.adapters.merge", watched)
        return train(asked), before


def losses(report: dict) -> list[float]:
    """Of each step."""
    return [entry["loss"] for entry in report["log"] if "loss" in entry]


def adapter_of(folder: Path) -> dict:
    """What peft reads beside the adapter's weights."""
    return json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
