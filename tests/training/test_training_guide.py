"""The whole recipes of docs/training.md: valid as they stand, equal in both languages, and each runs on tiny models."""

import re
import tomllib
from pathlib import Path

import pytest

from ecom_rag.training.fit import train
from ecom_rag.training.recipe import make_recipe
from helpers import decoders, prompted
from helpers.small_runs import grouped

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"


def recipes(page):
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return [found for found in map(tomllib.loads, blocks) if "task" in found]


RECIPES = recipes("training.md")


def test_both_languages_show_the_same():
    assert recipes("training.zh-CN.md") == RECIPES and len(RECIPES) == 3


@pytest.mark.parametrize("number", range(len(RECIPES)), ids=[found["output"] for found in RECIPES])
def test_a_recipe_of_the_guide_runs(number, tmp_path, mean_folder):
    table = recipes("training.md")[number]
    asked = make_recipe(table)
    if asked.model == "Qwen/Qwen3-Embedding-0.6B":
        model = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3")
    elif asked.model == "Qwen/Qwen3-Reranker-0.6B":
        prompted.language_model(model := tmp_path / "Qwen3-Reranker-0.6B", "Qwen3", prompted.qwen_tokenizer())
    else:
        model = mean_folder
    data = grouped(tmp_path / "data.jsonl")
    table["data"] |= {"train": data, "dev": data}
    table["schedule"] |= {"max_steps": 1}
    del table["schedule"]["epochs"]
    report = train(make_recipe(table | {"model": str(model), "output": str(tmp_path / "out")}))
    assert report["steps"] == 1 and (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out" / "adapter").exists() == ("lora" in table)
