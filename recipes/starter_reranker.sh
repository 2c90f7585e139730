#!/usr/bin/env bash
# The packaged starter reranker: the homedepot reranker with 4 of its 6 layers and a vocabulary of what is used, trained
# again on homedepot, shopee and the sample seeds of this project, stored as int8.
# Usage: recipes/starter_reranker.sh DATA [WORK], after homedepot_embedder.sh with MODEL=DIR of MiniLM, and
# homedepot_reranker.sh; the result is WORK/starter_reranker
set -euo pipefail
data=${1:?folder that holds homedepot/, abt_buy/ and shopee/train.jsonl.gz} work=${2:-work}

python -c "import importlib.resources, sys; print((importlib.resources.files('ecom_rag') / 'sample_data' / 'seeds.jsonl').read_text(
  encoding='utf-8'), end='')" > "$work/sample_seeds.jsonl"
ecom-rag mine "$data/shopee/train.jsonl.gz" --route bm25 --range 1-40 --positives 2 --negatives 15 --resume \
  --output "$work/shopee_mined.jsonl"
ecom-rag mine "$work/sample_seeds.jsonl" --route bm25 --range 1-40 --positives 8 --negatives 15 --resume \
  --output "$work/sample_mined.jsonl"

test -e "$work/starter_shrunk" || python - "$work" <<'PY'
import json
import sys
from pathlib import Path

from ecom_rag.training.shrinking import shrink

work = Path(sys.argv[1])
texts = []
for name in ("homedepot_fused", "shopee", "sample"):
    for line in (work / f"{name}_mined.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        texts += [row["query"], *row["pos"], *row["neg"]]
shrink(work / "homedepot_reranker", work / "starter_shrunk", texts, layers=(0, 1, 3, 5), vocabulary=5500)
PY
cat > "$work/starter_trained.toml" <<TOML
model = "$work/starter_shrunk"
output = "$work/starter_trained"
[data]
train = ["$work/homedepot_fused_mined.jsonl", "$work/shopee_mined.jsonl", "$work/sample_mined.jsonl"]
max_length = 64
[sampling]
batch_size = 32
one_source = true
source_alpha = 0.5 # or the 200 sample seeds would hardly be seen
[schedule]
max_steps = ${STEPS:-600}
learning_rate = 1e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
test -e "$work/starter_trained" || ecom-rag train reranker "$work/starter_trained.toml" --resume
python - "$work" <<'PY'
import shutil
import sys
from pathlib import Path

from ecom_rag.models.checkpoints.quantized import pack

work = Path(sys.argv[1])
shutil.rmtree(work / "starter_reranker", ignore_errors=True)
pack(work / "starter_trained", work / "starter_reranker")
for path in sorted((work / "starter_reranker").iterdir()):
    print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
PY

# On the set that it was trained for, and on one that no part of it has seen. The blended results hold the reranker's own
# scores as evidence, so that its order alone needs no second pass.
ecom-rag evaluate --beir "$data/abt_buy" --split test --export-queries "$work/abt_test.jsonl" \
  --export-seeds "$work/abt_seeds.jsonl"
ecom-rag recall "$work/abt_test.jsonl" --seeds "$work/abt_seeds.jsonl" --model starter --routes bm25,dense --top-k 50 \
  --resume --output "$work/abt_fused.jsonl"
for job in "hd_fused_dev homedepot dev" "abt_fused abt_buy test"; do
  set -- $job
  ecom-rag rerank "$work/$1.jsonl" --model "$work/starter_reranker" --blend 0.5 --output "$work/$1_starter_half.jsonl"
  python - "$work/$1_starter" <<'PY'
import sys

from ecom_rag import records

LISTS = ("topk_sim", "topk_seed", "topk_metadata", "topk_evidence")
with open(f"{sys.argv[1]}.jsonl", "wb") as output:
    for result in records.read(f"{sys.argv[1]}_half.jsonl"):
        order = sorted(range(len(result["topk_sim"])), key=lambda i: result["topk_evidence"][i]["reranker"]["rank"])
        output.write(records.dumps(result | {name: [result[name][i] for i in order] for name in LISTS}))
PY
  ecom-rag evaluate "$work/$1.jsonl" "$work/$1_starter.jsonl" "$work/$1_starter_half.jsonl" --beir "$data/$2" \
    --split "$3" --measures nDCG@10 --output "$work/$1_starter.json"
done
