"""Small data and recipes for training runs of tiny models."""

import json
from pathlib import Path

from safetensors.torch import load_file

from ecom_rag.training.recipe import make_recipe

WORDS = {
    "wallet": "leather wallet card",
    "watch": "replica watch price",
    "tea": "减肥 茶 天",
    "case": "手机壳 case 3.5mm",
}


def labelled(path, rows=24, **extra):
    """Texts of four classes that are easily told apart."""
    names = list(WORDS)
    lines = [
        {"text": f"{WORDS[names[i % 4]]} {i}", "metadata": {"label": names[i % 4], "policy": names[i % 4][0], **extra}}
        for i in range(rows)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def grouped(path, rows=16, **change):
    """Queries in FlagEmbedding's format."""
    names = list(WORDS)
    lines = []
    for i in range(rows):
        own, other = WORDS[names[i % 4]], [WORDS[names[(i + j) % 4]] for j in (1, 2, 3)]
        line = {
            "query": f"{names[i % 4]} {i}",
            "pos": [f"{own} {i}", own],
            "neg": [f"{text} {i}" for text in other],
            "pos_scores": [4.0, 3.0],
            "neg_scores": [0.5, -1.0, -2],
        }
        lines.append(line | change)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def recipe_of(folder, data, output, *, task="embedder", **tables):
    table = {"model": str(folder), "output": str(output), "data": {"train": data, "max_length": 32}}
    table["schedule"] = {"epochs": 2, "device": "cpu", "log_every": 1, "learning_rate": 1e-3, "save_every": 2}
    texts = Path(data).is_file() and b'"query"' not in Path(data).read_bytes()[:200]
    table["sampling"] = {"classes_per_batch": 2, "texts_per_class": 3} if texts else {"batch_size": 4}
    for name, values in tables.items():
        name = name.removesuffix("_table")
        table[name] = table.get(name, {}) | values if isinstance(values, dict) else values
    if "max_steps" in table["schedule"]:
        del table["schedule"]["epochs"]
    return make_recipe(table, task)


def weights(folder):
    return load_file(folder / "model.safetensors")


def interrupted(at):
    """A progress callback that stops the run as Ctrl-C does, after a step."""

    def progress(step, steps, figures, validated):
        if step == at and not validated:
            raise KeyboardInterrupt

    return progress
