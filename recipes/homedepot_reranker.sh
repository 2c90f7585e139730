#!/usr/bin/env bash
# A cross-encoder on homedepot's train queries, begun from the fine-tuned embedder's weights, against the fused routes that it
# re-orders: bm25 and the fine-tuned embedder, first 100 documents of each dev query. It learns the order of the grades, of
# documents that are judged for train queries alone. From MiniLM's six layers, six epochs took about two hours on one core.
# Usage: recipes/homedepot_reranker.sh DATA [WORK], after recipes/homedepot_embedder.sh; BF16=true as there. START names other
# weights to begin from, e.g. what recipes/starter_reranker.sh has trained (half the layers), EPOCHS how many (6).
set -euo pipefail
data=${1:?folder that holds homedepot/, a BEIR folder} work=${2:-work}
start=${START:-$work/homedepot_embedder}

ecom-rag evaluate --beir "$data/homedepot" --split train --export-queries "$work/hd_train.jsonl" \
  --export-seeds "$work/hd_seeds.jsonl"
for split in train dev; do
  ecom-rag recall "$work/hd_$split.jsonl" --seeds "$work/hd_seeds.jsonl" --model "$work/homedepot_embedder" \
    --routes bm25,dense --top-k 100 --resume --output "$work/hd_fused_$split.jsonl"
done
ecom-rag mine "$data/homedepot" --run "$work/hd_fused_train.jsonl" --split train --judged-only --grades \
  --range 1-100 --negatives 24 --resume --output "$work/homedepot_fused_mined.jsonl"

cat > "$work/homedepot_reranker.toml" <<TOML
model = "$start"
output = "$work/homedepot_reranker"
[data]
train = "$work/homedepot_fused_mined.jsonl"
positives = 2
negatives = 6
max_length = 64
[loss]
name = "none"
distillation = "kl"
teacher_temperature = 1.5
[sampling]
batch_size = 32
[schedule]
epochs = ${EPOCHS:-6}
learning_rate = 1e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
test -e "$work/homedepot_reranker" || ecom-rag train reranker "$work/homedepot_reranker.toml" --resume

ecom-rag rerank "$work/hd_fused_dev.jsonl" --model "$work/homedepot_reranker" --resume --output "$work/hd_reranked.jsonl"
ecom-rag rerank "$work/hd_fused_dev.jsonl" --model "$work/homedepot_reranker" --blend 0.5 --resume \
  --output "$work/hd_blended.jsonl"
ecom-rag evaluate "$work/hd_fused_dev.jsonl" "$work/hd_reranked.jsonl" "$work/hd_blended.jsonl" --beir "$data/homedepot" \
  --split dev --measures nDCG@10 --output "$work/homedepot_reranker.json"
