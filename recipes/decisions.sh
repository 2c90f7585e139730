#!/usr/bin/env bash
# A policy on a labelled set, from seeds to decisions: 70 % of train by campaign become the bank, the other 30 % calibrate,
# dev is decided and compared with its labels. The page of the calibration and the decided listings stay in WORK.
# Usage: recipes/decisions.sh DATA [WORK] [SET]; SET is fbs_sms_zh (the default) or chinese_harm, whose innocents are 不违规
set -euo pipefail
data=${1:?folder that holds fbs_sms_zh/ and chinese_harm/} work=${2:-work} set=${3:-fbs_sms_zh}
out="$work/decisions_$set"
mkdir -p "$out"
innocent=() && [ "$set" = chinese_harm ] && innocent=(--innocent 不违规)

# Near-duplicates stay together: a text whose copy is in the bank says nothing of new ones.
test -e "$out/labelled.jsonl" || python - "$data/$set/train.jsonl.gz" "$out" <<'PY'
import sys

import numpy as np
from ecom_rag.files import writing
from ecom_rag.files.records import read
from ecom_rag.text.near_duplicates import near_duplicates

items = list(read(sys.argv[1]))
campaigns = near_duplicates([item["text"] for item in items])
names = np.random.default_rng(0).permutation(np.unique(campaigns))
bank = np.isin(campaigns, names[: int(0.7 * len(names))])
for name, chosen in (("seeds", bank), ("labelled", ~bank)):
    writing.write(f"{sys.argv[2]}/{name}.jsonl", (items[row] for row in np.flatnonzero(chosen).tolist()))
PY

test -e "$out/bank" || ecom-rag bank build "$out/bank" --seeds "$out/seeds.jsonl" --model starter --routes bm25,dense,variant
ecom-rag recall "$out/labelled.jsonl" --bank "$out/bank" --resume --output "$out/labelled_recalled.jsonl"
ecom-rag calibrate "$out/labelled_recalled.jsonl" --bank "$out/bank" --precision 0.95 --delta 0.1 ${innocent[@]+"${innocent[@]}"} \
  --output "$out/policy.json" --report "$out/calibration.html"
ecom-rag recall "$data/$set/dev.jsonl.gz" --bank "$out/bank" --policy "$out/policy.json" --resume --output "$out/decided.jsonl"

python - "$out/decided.jsonl" <<'PY'
import sys
from collections import Counter

from ecom_rag.files.records import read

items = list(read(sys.argv[1]))
automatic = [one for one in items if one["decision"]["action"] != "review"]
wrong = Counter(one["decision"]["label"] for one in automatic if one["decision"]["label"] != one["metadata"]["label"])
given = Counter(one["decision"]["label"] for one in automatic)
print(f"decided {len(automatic)} of {len(items)}; wrong {sum(wrong.values())}")
for label, count in given.most_common():
    print(f"  {label}: {count - wrong[label]} of {count} right ({1 - wrong[label] / count:.3f})")
PY
