#!/usr/bin/env bash
# Fine-tunes the starter on homedepot's train queries and compares it with the starter on the dev queries (dense, all
# documents). Negatives come from the first 50 of the starter's own search among the train queries' documents: those of the
# dev queries would be learned as never relevant.
# Usage: recipes/homedepot_embedder.sh DATA [WORK]; BF16=true where the processor has AMX, or on a GPU;
# MODEL=DIR begins from another encoder, as all-MiniLM-L6-v2, the starter of before
set -euo pipefail
data=${1:?folder that holds homedepot/, a BEIR folder} work=${2:-work} start=${MODEL:-starter}
mkdir -p "$work"

ecom-rag mine "$data/homedepot" --model "$start" --split train --min-grade 3 --judged-only --range 1-50 \
  --negatives 12 --resume --output "$work/homedepot_mined.jsonl"

cat > "$work/homedepot_embedder.toml" <<TOML
model = "$start"
output = "$work/homedepot_embedder"
[data]
train = "$work/homedepot_mined.jsonl"
negatives = 3
max_length = 64
[loss]
name = "info_nce"
temperature = 0.05
[schedule]
epochs = 3
learning_rate = 1e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
test -e "$work/homedepot_embedder" || ecom-rag train embedder "$work/homedepot_embedder.toml" --resume

ecom-rag evaluate --beir "$data/homedepot" --split dev --export-queries "$work/hd_dev.jsonl" --export-seeds "$work/hd_seeds.jsonl"
for model in "$start" "$work/homedepot_embedder"; do
  ecom-rag score "$work/hd_dev.jsonl" --seeds "$work/hd_seeds.jsonl" --model "$model" --top-k 100 --resume \
    --output "$work/hd_$(basename "$model").jsonl"
done
ecom-rag evaluate "$work/hd_$(basename "$start").jsonl" "$work/hd_homedepot_embedder.jsonl" --beir "$data/homedepot" --split dev \
  --measures nDCG@10,R@100 --output "$work/homedepot_embedder.json"
