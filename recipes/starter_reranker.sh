#!/usr/bin/env bash
# The packaged starter reranker: 4 of the starter encoder's 12 layers and 30,000 of its pieces, trained as a reranker on
# homedepot, shopee, the sample seeds of this project and Chinese shop queries, with hard and random negatives; int8.
# Usage: recipes/starter_reranker.sh DATA [WORK]; the result is WORK/starter_reranker. About an hour on two cores.
set -euo pipefail
data=${1:?folder that holds homedepot/, jd_titles_zh/, abt_buy/, shopee/, taobao_queries_zh/ and taobao_titles_zh/} work=${2:-work}
mkdir -p "$work"

python -c "import importlib.resources, sys; print((importlib.resources.files('ecom_rag') / 'sample_data' / 'seeds.jsonl').read_text(
  encoding='utf-8'), end='')" > "$work/sample_seeds.jsonl"
ecom-rag mine "$data/homedepot" --route bm25 --split train --judged-only --grades --range 1-100 --negatives 12 --resume \
  --output "$work/rr_homedepot.jsonl"
ecom-rag mine "$data/shopee/train.jsonl.gz" --route bm25 --range 1-40 --positives 2 --negatives 8 --resume \
  --output "$work/rr_shopee.jsonl"
ecom-rag mine "$work/sample_seeds.jsonl" --route bm25 --range 1-40 --positives 4 --negatives 8 --resume \
  --output "$work/rr_sample.jsonl"
# Chinese shop queries have no judgements: what the fused routes say of them is taught, and that other titles do not fit.
gzip -dc "$data"/taobao_queries_zh/*.gz | awk 'NR % 14 == 0' > "$work/rr_queries_zh.jsonl"
ecom-rag recall "$work/rr_queries_zh.jsonl" --seeds "$data"/taobao_titles_zh/*.gz --model starter --routes bm25,dense \
  --weights bm25=1,dense=1 --top-k 40 --resume --output "$work/rr_recalled_zh.jsonl"
python "$(dirname "$0")/starter_reranker.py" "$data" "$work"

cat > "$work/rr_trained.toml" <<TOML
model = "$work/rr_shrunk"
output = "$work/rr_trained"
[data]
train = ["$work/rr_train_homedepot.jsonl", "$work/rr_train_shopee.jsonl", "$work/rr_train_sample.jsonl", "$work/rr_train_zh.jsonl"]
positives = 1
negatives = 6
max_length = 64
[loss]
name = "none"
distillation = "kl"
teacher_temperature = 1.5
[sampling]
batch_size = 32
one_source = true
source_alpha = 0.7
[schedule]
max_steps = ${STEPS:-700}
learning_rate = 1e-4
dropout = 0.0
save_every = 100
bf16 = ${BF16:-false}
TOML
test -e "$work/rr_trained" || ecom-rag train reranker "$work/rr_trained.toml" --resume
python - "$work" <<'PY'
import shutil
import sys
from pathlib import Path

from ecom_rag.models.checkpoints.quantized import pack

work = Path(sys.argv[1])
shutil.rmtree(work / "starter_reranker", ignore_errors=True)
pack(work / "rr_trained", work / "starter_reranker")
for path in sorted((work / "starter_reranker").iterdir()):
    print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
PY

# What it adds to the fused routes, on dev and test queries that training has not seen. The blended results hold the
# reranker's own scores as evidence, so that its order alone needs no second pass.
for job in "homedepot dev" "jd_titles_zh dev" "abt_buy test"; do
  set -- $job
  ecom-rag evaluate --beir "$data/$1" --split "$2" --export-queries "$work/$1_queries.jsonl" --export-seeds "$work/$1_seeds.jsonl"
  ecom-rag recall "$work/$1_queries.jsonl" --seeds "$work/$1_seeds.jsonl" --model starter --routes bm25,dense --top-k 50 \
    --resume --output "$work/$1_fused.jsonl"
  ecom-rag rerank "$work/$1_fused.jsonl" --model "$work/starter_reranker" --blend 0.5 --output "$work/$1_half.jsonl"
  python - "$work/$1" <<'PY'
import sys

from ecom_rag import records

LISTS = ("topk_sim", "topk_seed", "topk_metadata", "topk_evidence")
with open(f"{sys.argv[1]}_alone.jsonl", "wb") as output:
    for result in records.read(f"{sys.argv[1]}_half.jsonl"):
        order = sorted(range(len(result["topk_sim"])), key=lambda i: result["topk_evidence"][i]["reranker"]["rank"])
        output.write(records.dumps(result | {name: [result[name][i] for i in order] for name in LISTS}))
PY
  ecom-rag evaluate "$work/$1_fused.jsonl" "$work/$1_alone.jsonl" "$work/$1_half.jsonl" --beir "$data/$1" \
    --split "$2" --measures nDCG@10 --output "$work/$1_starter.json"
done
