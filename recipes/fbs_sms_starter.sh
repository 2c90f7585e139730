#!/usr/bin/env bash
# Fine-tunes the starter on fbs_sms_zh (2,777 texts in the largest of 12 classes, 6 in the smallest), with circle loss and
# batches that treat all classes alike: drawn from all (balanced), or from two policy groups a batch (hierarchical); three seeds
# each. Each dev text gets the label that its ten nearest train texts vote for: dense alone, and fused with bm25, by --fusion
# auto and by the weights that auto finds with the starter as it was (see chinese_harm.sh for why).
# Usage: recipes/fbs_sms_starter.sh DATA [WORK]; BATCHES="balanced" trains one kind alone
set -euo pipefail
data=${1:?folder that holds fbs_sms_zh/train.jsonl.gz and dev.jsonl.gz} work=${2:-work} start=${MODEL:-starter}
train=$data/fbs_sms_zh/train.jsonl.gz dev=$data/fbs_sms_zh/dev.jsonl.gz
mkdir -p "$work"

for batches in ${BATCHES:-balanced hierarchical}; do
  case $batches in
    balanced) parent= parents= ;;
    hierarchical) parent='parent = "group"' parents='parents_per_batch = 2' ;; # of advertising, fraud, illegal
  esac
  for seed in ${SEEDS:-1 2 3}; do
    name=sms_${batches}_$seed
    cat > "$work/$name.toml" <<TOML
model = "$start"
output = "$work/$name"
seed = $seed
[data]
train = "$train"
max_length = 128
$parent
[loss]
name = "circle"
[sampling]
classes_per_batch = 6
texts_per_class = 8
alpha = 0.0
$parents
[schedule]
max_steps = ${STEPS:-40}
learning_rate = 1e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
    test -e "$work/$name" || ecom-rag train embedder "$work/$name.toml" --resume
  done
done

for model in "$start" "$work"/sms_{balanced,hierarchical}_?; do
  name=$(basename "$model")
  test "$model" = "$start" -o -e "$model" || continue
  test -e "$work/sms_bank_$name" || ecom-rag bank build "$work/sms_bank_$name" --seeds "$train" --model "$model" \
    --routes bm25,dense --resume
  ecom-rag score "$dev" --bank "$work/sms_bank_$name" --top-k 10 --resume --output "$work/sms_dense_$name.jsonl"
  ecom-rag recall "$dev" --bank "$work/sms_bank_$name" --routes bm25,dense --top-k 10 --resume \
    --output "$work/sms_fused_$name.jsonl"
  test "$model" = "$start" || ecom-rag recall "$dev" --bank "$work/sms_bank_$name" --routes bm25,dense --top-k 10 --resume \
    --weights "${WEIGHTS:-bm25=0.39,dense=0.61}" --output "$work/sms_weighted_$name.jsonl"
done
for kind in dense fused weighted; do
  ecom-rag evaluate "$work"/sms_"$kind"_*.jsonl --labels --measures P@10 --output "$work/sms_$kind.json"
done

# Recall of the classes with fewer than 200 train texts, over their dev texts together.
python - "$train" "$work" <<'PY'
import json
import sys
from collections import Counter
from pathlib import Path

from ecom_rag.files.records import read

train, work = sys.argv[1:]
sizes = Counter(record["metadata"]["label"] for record in read(train))
for kind in ("dense", "fused", "weighted"):
    figures = json.loads(Path(work, f"sms_{kind}.json").read_text(encoding="utf-8"))
    for run in figures["runs"]:
        rare = [one for one in run["classes"] if one["support"] and sizes[one["label"]] < 200]
        found = sum(one["recall"] * one["support"] for one in rare) / sum(one["support"] for one in rare)
        print(f"{run['name']:40} recall of the rare classes {found:.4f}")
PY
