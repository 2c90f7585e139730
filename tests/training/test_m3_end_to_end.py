"""A tiny bge-m3 by the commands alone: unified fine-tuning, merging, scoring; FlagEmbedding gives the same scores."""

import json
import subprocess
import sys

import pytest
import torch

from ecom_rag.files import records

pytestmark = pytest.mark.slow

TEXTS = {"wallet": "leather wallet card", "watch": "replica watch price", "tea": "减肥 茶 天", "case": "手机壳 case"}


def run(*arguments):
    done = subprocess.run([sys.executable, "-m", "ecom_rag", *map(str, arguments)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_train_merge_score(m3_folder, tmp_path):
    from FlagEmbedding import BGEM3FlagModel

    names = list(TEXTS)
    lines = [
        {
            "query": f"{names[i % 4]} {i}",
            "pos": [TEXTS[names[i % 4]]],
            "neg": [TEXTS[names[(i + j) % 4]] for j in (1, 2)],
        }
        for i in range(16)
    ]
    seeds = [{"text": f"{text} {i}", "metadata": {"id": i}} for i, text in enumerate(TEXTS.values())]
    queries = [{"text": f"{name} 7", "metadata": {}} for name in names]
    for name, items in (("train", lines), ("seeds", seeds), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    (tmp_path / "recipe.toml").write_text(
        f"model = {json.dumps(str(m3_folder))}\noutput = {json.dumps(str(tmp_path / 'tuned'))}\n"
        f"[data]\ntrain = {json.dumps(str(tmp_path / 'train.jsonl'))}\nnegatives = 2\nmax_length = 32\n"
        '[loss]\nname = "m3"\n[sampling]\nbatch_size = 8\n[schedule]\nepochs = 3\n'
        'learning_rate = 1e-3\ndevice = "cpu"\n',
        encoding="utf-8",
    )
    run("train", "embedder", tmp_path / "recipe.toml")
    run("merge", f"{tmp_path / 'tuned'}=0.5", f"{m3_folder}=0.5", "--output", tmp_path / "merged")
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        start, tuned, merged = (
            torch.load(folder / name, weights_only=True)["weight"].float()
            for folder in (m3_folder, tmp_path / "tuned", tmp_path / "merged")
        )
        assert not torch.equal(start, tuned)
        torch.testing.assert_close(merged, (start + tuned) / 2, rtol=1e-5, atol=1e-6)
    run(
        "score",
        tmp_path / "queries.jsonl",
        "--seeds",
        tmp_path / "seeds.jsonl",
        "--model",
        tmp_path / "merged",
        "--mode",
        "hybrid",
        "--precision",
        "fp32",
        "--output",
        tmp_path / "scored.jsonl",
    )
    found = list(records.read(str(tmp_path / "scored.jsonl")))
    pairs = [(result["text"], seed) for result in found for seed in result["topk_seed"]]
    flag = BGEM3FlagModel(str(tmp_path / "merged"), use_fp16=False, devices="cpu")
    theirs = flag.compute_score(pairs, weights_for_different_modes=[1.0, 1.0, 1.0])["colbert+sparse+dense"]
    assert len(pairs) == 16
    assert [sim for result in found for sim in result["topk_sim"]] == pytest.approx(theirs, abs=1e-4)
