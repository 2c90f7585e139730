#!/usr/bin/env bash
# Circle loss, InfoNCE and supervised contrastive on shopee at an equal budget: the same batches, steps and learning
# rate, each loss with the defaults of its paper, three seeds each. Dev measures: MAP@R and R@1 among unseen products.
# Usage: recipes/shopee_losses.sh DATA [WORK]
set -euo pipefail
data=${1:?folder that holds shopee/train.jsonl.gz and dev.jsonl.gz} work=${2:-work}
mkdir -p "$work"

for seed in 1 2 3; do
  for loss in circle info_nce supervised_contrastive; do
    name=shopee_${loss}_$seed
    cat > "$work/$name.toml" <<TOML
model = "starter"
output = "$work/$name"
seed = $seed
[data]
train = "$data/shopee/train.jsonl.gz"
dev = "$data/shopee/dev.jsonl.gz"
single_texts = "drop"
max_length = 64
[loss]
name = "$loss"
[sampling]
classes_per_batch = 32
texts_per_class = 2
[schedule]
max_steps = ${STEPS:-500}
save_every = ${STEPS:-500}
learning_rate = 5e-5
bf16 = true
TOML
    test -e "$work/$name" || ecom-rag train embedder "$work/$name.toml" --resume
  done
done
python - "$work" <<'PY'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("shopee_*_?/train_report.json")):
    report = json.loads(path.read_text())
    print(path.parent.name, json.dumps(report["dev"]))
PY
