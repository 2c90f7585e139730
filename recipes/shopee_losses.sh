#!/usr/bin/env bash
# Circle loss, InfoNCE and supervised contrastive on shopee at an equal budget: the same batches, steps and learning
# rate, each loss with the defaults of its paper, three seeds each. Dev measures: MAP@R and R@1 among unseen products.
# Usage: recipes/shopee_losses.sh DATA [WORK]
set -euo pipefail
data=${1:?folder that holds shopee/train.jsonl.gz and dev.jsonl.gz} work=${2:-work} start=${MODEL:-starter}
mkdir -p "$work"

for seed in ${SEEDS:-1 2 3}; do
  for loss in circle info_nce supervised_contrastive; do
    name=shopee_${loss}_$seed
    cat > "$work/$name.toml" <<TOML
model = "$start"
output = "$work/$name"
seed = $seed
[data]
train = "$data/shopee/train.jsonl.gz"
single_texts = "drop"
max_length = 64
[loss]
name = "$loss"
[sampling]
classes_per_batch = 32
texts_per_class = 2
[schedule]
max_steps = ${STEPS:-200}
learning_rate = 5e-5
dropout = 0.0
bf16 = ${BF16:-false}
TOML
    test -e "$work/$name" || ecom-rag train embedder "$work/$name.toml" --resume
  done
done
python - "$data" "$work" "$start" <<'PY'
import sys
from pathlib import Path

import numpy as np
from ecom_rag import Encoder
from ecom_rag.files.records import read
from ecom_rag.training.dev import same_class_figures

data, work, start = sys.argv[1:]
dev = list(read(f"{data}/shopee/dev.jsonl.gz"))
texts, labels = [r["text"] for r in dev], [r["metadata"]["label"] for r in dev]
found = {}
for model in [start, *map(str, sorted(Path(work).glob("shopee_*_?/")))]:
    vectors = Encoder.from_pretrained(model, max_length=64).encode(texts, outputs=("dense",)).dense
    name = Path(model).name.removeprefix("shopee_").rstrip("_0123456789")
    found.setdefault(name, []).append(same_class_figures(vectors, labels))
for name, runs in found.items():
    for measure in ("MAP@R", "R@1"):
        values = [run[measure] for run in runs]
        each = " ".join(f"{value:.4f}" for value in values)
        print(f"{name:24} {measure:6} {np.mean(values):.4f} +- {np.std(values):.4f}  ({each})")
PY
