#!/usr/bin/env bash
# Merges the fine-tuned homedepot embedder with the starter. The share of each is found on homedepot's train queries, on the
# condition that no more than 0.005 nDCG@10 is lost on scifact's train queries; measured on homedepot dev and scifact test.
# Usage: recipes/homedepot_merge.sh DATA [WORK], after recipes/homedepot_embedder.sh
set -euo pipefail
data=${1:?folder that holds homedepot/ and scifact/} work=${2:-work} start=${MODEL:-starter}

cat > "$work/homedepot_merge.toml" <<TOML
[[sets]]
name = "homedepot"
beir = "$data/homedepot"
split = "train"
weight = 1.0
max_documents = 12000
[[sets]]
name = "scifact"
beir = "$data/scifact"
split = "train"
max_loss = 0.005
max_documents = 1500
TOML
test -e "$work/homedepot_merged" || ecom-rag merge "$start" "$work/homedepot_embedder" \
  --validate "$work/homedepot_merge.toml" --budget 8 --output "$work/homedepot_merged"

ecom-rag evaluate --beir "$data/homedepot" --split dev --export-queries "$work/hd_dev.jsonl" --export-seeds "$work/hd_seeds.jsonl"
ecom-rag evaluate --beir "$data/scifact" --split test --export-queries "$work/sf_test.jsonl" --export-seeds "$work/sf_seeds.jsonl"
for model in "$start" "$work/homedepot_embedder" "$work/homedepot_merged"; do
  for set in "hd dev" "sf test"; do
    read -r short split <<< "$set"
    ecom-rag score "$work/${short}_$split.jsonl" --seeds "$work/${short}_seeds.jsonl" --model "$model" --top-k 100 \
      --resume --output "$work/${short}_$(basename "$model").jsonl"
  done
done
for set in "hd homedepot dev" "sf scifact test"; do
  read -r short name split <<< "$set"
  ecom-rag evaluate "$work/${short}"_{"$(basename "$start")",homedepot_embedder,homedepot_merged}.jsonl --beir "$data/$name" \
    --split "$split" --measures nDCG@10 --output "$work/${short}_merge.json"
done
