"""The obvious script over FlagEmbedding that `ecom-rag score` replaces: load, encode, multiply, sort, write."""

import json
import sys

import numpy as np
from FlagEmbedding import FlagModel

queries_path, seeds_path, model_path, pooling, output = sys.argv[1:]
queries = [json.loads(line) for line in open(queries_path, encoding="utf-8")]  # noqa: PTH123
seeds = [json.loads(line) for line in open(seeds_path, encoding="utf-8")]  # noqa: PTH123
model = FlagModel(model_path, use_fp16=False, devices="cpu", pooling_method=pooling)
seed_vectors = model.encode_corpus([seed["text"] for seed in seeds])
query_vectors = model.encode_queries([query["text"] for query in queries])
scores = query_vectors @ seed_vectors.T
with open(output, "w", encoding="utf-8") as sink:  # noqa: PTH123
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row)[:10]
        query["topk_sim"] = [float(row[i]) for i in best]
        query["topk_seed"] = [seeds[i]["text"] for i in best]
        query["topk_metadata"] = [seeds[i]["metadata"] for i in best]
        sink.write(json.dumps(query, ensure_ascii=False) + "\n")
