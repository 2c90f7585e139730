#!/usr/bin/env bash
# The packaged starter reranker, for Chinese and English: the lower six of the starter's twelve layers and 28,000 of its
# pieces, trained on homedepot's grades, shopee's products, product words and titles of Taobao, and the sample seeds of this project.
# Every query sees texts that a search finds and texts that have nothing to do with it. Stored as int8.
# Usage: recipes/starter_reranker.sh DATA [WORK]; STEPS=1700, BF16=true; the result is WORK/starter_reranker
set -euo pipefail
data=${1:?folder that holds homedepot/, shopee/, taobao_queries_zh/, taobao_titles_zh/, jd_titles_zh/ and abt_buy/} work=${2:-work}
here=$(dirname "$0")
mkdir -p "$work"

ecom-rag evaluate --beir "$data/homedepot" --split train --export-queries "$work/sr_train.jsonl" --export-seeds "$work/sr_seeds.jsonl"
ecom-rag recall "$work/sr_train.jsonl" --seeds "$work/sr_seeds.jsonl" --model starter --routes bm25,dense --top-k 100 \
  --resume --output "$work/sr_fused.jsonl"
ecom-rag mine "$data/homedepot" --run "$work/sr_fused.jsonl" --split train --judged-only --grades \
  --range 1-100 --negatives 24 --resume --output "$work/sr_homedepot_mined.jsonl"
python -c "import importlib.resources, sys; print((importlib.resources.files('ecom_rag') / 'sample_data' / 'seeds.jsonl').read_text(
  encoding='utf-8'), end='')" > "$work/sr_sample_seeds.jsonl"
ecom-rag mine "$data/shopee/train.jsonl.gz" --route bm25 --range 1-40 --positives 2 --negatives 15 --resume \
  --output "$work/sr_shopee_mined.jsonl"
ecom-rag mine "$work/sr_sample_seeds.jsonl" --route bm25 --range 1-40 --positives 8 --negatives 15 --resume \
  --output "$work/sr_sample_mined.jsonl"
python "$here/reranker_groups.py" random "$work/sr_homedepot_mined.jsonl" "$work/sr_homedepot.jsonl"
python "$here/reranker_groups.py" random "$work/sr_shopee_mined.jsonl" "$work/sr_shopee.jsonl" 4000
python "$here/reranker_groups.py" random "$work/sr_sample_mined.jsonl" "$work/sr_sample.jsonl"
python "$here/reranker_groups.py" chinese "$data/taobao_queries_zh/queries.jsonl.gz" "$data/taobao_titles_zh/titles.jsonl.gz" \
  "$work/sr_words.jsonl" "$work/sr_parts.jsonl"

test -e "$work/starter_shrunk" || python - "$work" <<'PY'
import json
import sys
from pathlib import Path

from ecom_rag.models.checkpoints.starter import starter_encoder
from ecom_rag.training.shrinking import shrink

work = Path(sys.argv[1])
texts = []
for name in ("homedepot", "shopee", "sample", "words", "parts"):
    for line in (work / f"sr_{name}.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        texts += [row["query"], *row["pos"], *row["neg"]]
shrink(starter_encoder(), work / "starter_shrunk", texts, layers=range(6), vocabulary=28_000)
PY
cat > "$work/starter_trained.toml" <<TOML
model = "$work/starter_shrunk"
output = "$work/starter_trained"
[data]
train = [$(for name in homedepot words parts shopee sample; do printf '"%s/sr_%s.jsonl", ' "$work" $name; done)]
positives = 2
negatives = 7
max_length = 64
[loss]
name = "none"
distillation = "kl"
teacher_temperature = 1.5
[sampling]
batch_size = 16
one_source = true
source_alpha = 0.5 # or the 200 sample seeds would hardly be seen
[schedule]
max_steps = ${STEPS:-1700}
learning_rate = 1.5e-4
warmup = 0.05
dropout = 0.0
save_every = 200
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
for name in ("tokenizer.json", "tokenizer_config.json"):  # as they were cut; transformers 4 does not know what 5 writes
    shutil.copyfile(work / "starter_shrunk" / name, work / "starter_reranker" / name)
for path in sorted((work / "starter_reranker").iterdir()):
    print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
PY

# On the shop that it was trained for, and on two sets that no part of it has seen.
for job in "hd homedepot dev" "jd jd_titles_zh dev" "abt abt_buy test"; do
  read -r short name split <<< "$job"
  run="$work/sr_$short"
  ecom-rag evaluate --beir "$data/$name" --split "$split" --export-queries "${run}_queries.jsonl" --export-seeds "${run}_seeds.jsonl"
  ecom-rag recall "${run}_queries.jsonl" --seeds "${run}_seeds.jsonl" --model starter --routes bm25,dense --top-k 50 \
    --resume --output "${run}_fused.jsonl"
  for share in 0.3 0.5 1; do
    ecom-rag rerank "${run}_fused.jsonl" --model "$work/starter_reranker" --blend "$share" --reuse "${run}_scores.db" \
      --output "${run}_blended_$share.jsonl"
  done
  ecom-rag evaluate "${run}_fused.jsonl" "${run}"_blended_{0.3,0.5,1}.jsonl --beir "$data/$name" --split "$split" \
    --measures nDCG@10 --output "$run.json"
done
