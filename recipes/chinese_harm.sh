#!/usr/bin/env bash
# Fine-tunes the starter on chinese_harm (six classes of about equal size), with circle loss and batches of all classes,
# three seeds. Each dev text gets the label that its ten nearest train texts vote for: dense alone, fused with bm25 by
# --fusion auto, and by the weights that auto finds with the starter as it was. Among texts that an encoder was trained on, its
# route looks better than it is among new ones, and auto gives it too much.
# Usage: recipes/chinese_harm.sh DATA [WORK]; a run of 120 steps takes about ten minutes of one core
set -euo pipefail
data=${1:?folder that holds chinese_harm/train.jsonl.gz and dev.jsonl.gz} work=${2:-work} start=${MODEL:-starter}
train=$data/chinese_harm/train.jsonl.gz dev=$data/chinese_harm/dev.jsonl.gz
mkdir -p "$work"

for seed in ${SEEDS:-1 2 3}; do
  cat > "$work/harm_$seed.toml" <<TOML
model = "$start"
output = "$work/harm_$seed"
seed = $seed
[data]
train = "$train"
max_length = 128
[loss]
name = "circle"
[sampling]
classes_per_batch = 6
texts_per_class = 8
[schedule]
max_steps = ${STEPS:-120}
learning_rate = 1e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
  test -e "$work/harm_$seed" || ecom-rag train embedder "$work/harm_$seed.toml" --resume
done

for model in "$start" "$work"/harm_?; do
  name=$(basename "$model")
  test -e "$work/harm_bank_$name" || ecom-rag bank build "$work/harm_bank_$name" --seeds "$train" --model "$model" \
    --routes bm25,dense --resume
  ecom-rag score "$dev" --bank "$work/harm_bank_$name" --top-k 10 --resume --output "$work/harm_dense_$name.jsonl"
  ecom-rag recall "$dev" --bank "$work/harm_bank_$name" --routes bm25,dense --top-k 10 --resume \
    --output "$work/harm_fused_$name.jsonl"
  ecom-rag recall "$dev" --bank "$work/harm_bank_$name" --routes bm25,dense --top-k 10 --resume \
    --fusion weighted --weights "${WEIGHTS:-bm25=0.46,dense=0.54}" --output "$work/harm_weighted_$name.jsonl"
done
for kind in dense fused weighted; do
  ecom-rag evaluate "$work"/harm_"$kind"_{"$(basename "$start")",harm_?}.jsonl --labels --measures P@10 \
    --output "$work/harm_$kind.json"
done
