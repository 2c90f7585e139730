#!/usr/bin/env bash
# What the batches of an unbalanced set do to its rare classes: a tiny Chinese encoder from scratch on fbs_sms_zh (2,777
# texts in the largest of 12 classes, 6 in the smallest), the same loss and steps, three seeds each. Every dev text
# is given the class that its 10 nearest train texts vote for.
# Usage: recipes/fbs_sms_batches.sh DATA [WORK]
set -euo pipefail
data=${1:?folder that holds fbs_sms_zh/train.jsonl.gz and dev.jsonl.gz} work=${2:-work}
mkdir -p "$work"

# A BERT of 4 layers over the characters of the train texts, with random weights and mean pooling.
test -e "$work/fbs_start" || python - "$data" "$work/fbs_start" <<'PY'
import sys
from collections import Counter
from pathlib import Path

import torch
from ecom_rag.files.records import read
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

data, output = sys.argv[1:]
counts = Counter(c for record in read(f"{data}/fbs_sms_zh/train.jsonl.gz") for c in record["text"].lower())
characters = sorted(c for c, n in counts.items() if n > 1 and not c.isspace())
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
pieces = [*special, *characters, *(f"##{c}" for c in characters if c.isascii())]
vocabulary = {piece: number for number, piece in enumerate(pieces)}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **names).save_pretrained(output)
torch.manual_seed(0)
config = BertConfig(vocab_size=len(vocabulary), hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
                    intermediate_size=1024, max_position_embeddings=256)
BertModel(config).save_pretrained(output)
Path(output, "1_Pooling").mkdir()
Path(output, "1_Pooling", "config.json").write_text('{"pooling_mode_mean_tokens": true}')
PY

for seed in ${SEEDS:-1 2 3}; do
  for batches in plain square_root balanced hierarchical; do
    name=fbs_${batches}_$seed
    case $batches in
      plain) alpha=1.0 parent= parents= ;;
      square_root) alpha=0.5 parent= parents= ;;
      balanced) alpha=0.0 parent= parents= ;;
      hierarchical) alpha=0.0 parent='parent = "group"' parents='parents_per_batch = 2' ;; # of advertising, fraud, illegal
    esac
    cat > "$work/$name.toml" <<TOML
model = "$work/fbs_start"
output = "$work/$name"
seed = $seed
[data]
train = "$data/fbs_sms_zh/train.jsonl.gz"
max_length = 128
$parent
[loss]
name = "circle"
[sampling]
classes_per_batch = 6
texts_per_class = 8
alpha = $alpha
$parents
[schedule]
max_steps = ${STEPS:-80}
learning_rate = 2e-4
dropout = 0.0
bf16 = ${BF16:-false}
TOML
    test -e "$work/$name" || ecom-rag train embedder "$work/$name.toml" --resume
  done
done

python - "$data" "$work" <<'PY'
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from ecom_rag import Encoder
from ecom_rag.evaluation.labels import macro_f1, vote
from ecom_rag.files.records import read
from ecom_rag.retrieval import DenseIndex
from ecom_rag.retrieval.bm25 import BM25Index

data, work = sys.argv[1:]
train, dev = (list(read(f"{data}/fbs_sms_zh/{split}.jsonl.gz")) for split in ("train", "dev"))
labels = [[record["metadata"]["label"] for record in split] for split in (train, dev)]
sizes = Counter(labels[0])
rare = [name for name, size in sizes.items() if size < 200]


def figures(neighbours):
    votes = vote(labels[1], [[labels[0][row] for row in rows if row >= 0] for rows in neighbours.tolist()])
    right = votes.predicted == votes.truth
    of = {name: votes.truth == number for number, name in enumerate(votes.classes)}
    found = {"macro_F1": macro_f1(votes), "accuracy": right.mean()}
    found["rare_recall"] = right[np.any([of[name] for name in rare], axis=0)].mean()  # over their dev texts together
    return {**found, **{f"recall {name}": right[of[name]].mean() for name in rare}}


found = {"bm25": [figures(BM25Index([r["text"] for r in train]).search([r["text"] for r in dev], 10).rows)]}
for path in [Path(work) / "fbs_start", *sorted(Path(work).glob("fbs_*_?/"))]:
    encoder = Encoder.from_pretrained(str(path))
    seeds, queries = (encoder.encode([r["text"] for r in part], outputs=("dense",)).dense for part in (train, dev))
    name = path.name.removeprefix("fbs_").rstrip("_0123456789")
    found.setdefault(name, []).append(figures(DenseIndex(seeds).search(queries, 10).rows))
for name, runs in found.items():
    table = {key: f"{np.mean([r[key] for r in runs]):.4f} +- {np.std([r[key] for r in runs]):.4f}" for key in runs[0]}
    print(name, len(runs), json.dumps(table, ensure_ascii=False))
PY
