"""Rerank a file of results in memory and print the first one.

Run: python examples/rerank_results.py scored.jsonl ./bge-reranker-v2-m3
"""

import sys

from ecom_rag import CrossEncoder, rerank
from ecom_rag.files.records import read

results_path, model = sys.argv[1:]
reranked = rerank(list(read(results_path)), CrossEncoder.from_pretrained(model), top_k=5, normalize=True)
first = reranked[0]
print(first["text"])
for relevance, seed, evidence in zip(first["topk_sim"], first["topk_seed"], first["topk_evidence"], strict=True):
    print(f"{relevance:.3f} (rank before: {evidence['retrieval']['rank']})  {seed}")
