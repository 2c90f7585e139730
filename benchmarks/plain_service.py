"""The service that a team writes in an afternoon, for comparison: FlagEmbedding, faiss and bm25s behind FastAPI.

Each request encodes its texts, searches both indexes and joins the rankings by reciprocal rank. A lock keeps two requests
from running the model at once, as FlagEmbedding is not made for threads.
"""

import gzip
import json
import os
import threading

import bm25s
import faiss
import numpy as np
import rjieba
from fastapi import FastAPI
from FlagEmbedding import FlagModel

MODEL, SEEDS = os.environ["PLAIN_MODEL"], os.environ["PLAIN_SEEDS"]
VECTORS = os.environ["PLAIN_VECTORS"]
DEPTH, TOP_K = 100, 10

app = FastAPI()
lock = threading.Lock()
model = FlagModel(
    MODEL, query_instruction_for_retrieval="query: ", pooling_method="mean", use_fp16=False, devices="cpu"
)
with gzip.open(SEEDS, "rt", encoding="utf-8") as source:
    seeds = [json.loads(line) for line in source]
dense = np.load(VECTORS)
index = faiss.IndexFlatIP(dense.shape[1])
index.add(dense)
lexical = bm25s.BM25()
lexical.index([rjieba.cut(seed["text"]) for seed in seeds], show_progress=False)


@app.get("/healthz")
def health() -> dict:
    return {"status": "ok"}


@app.post("/v1/embeddings")
def embeddings(body: dict) -> dict:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    with lock:
        found = model.encode(texts)
    return {"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(found)]}


@app.post("/v1/recall")
def recall(body: dict) -> dict:
    texts = [record["text"] for record in body["records"]]
    with lock:
        vectors = np.asarray(model.encode_queries(texts), np.float32)
        _, near = index.search(vectors, DEPTH)
        words = [rjieba.cut(text) for text in texts]
        said, _ = lexical.retrieve(words, k=DEPTH, show_progress=False)
    results = []
    for record, *rankings in zip(body["records"], near, said, strict=True):
        scores: dict[int, float] = {}
        for ranking in rankings:
            for rank, row in enumerate(ranking.tolist(), 1):
                scores[row] = scores.get(row, 0.0) + 1 / (60 + rank)
        best = sorted(scores, key=scores.get, reverse=True)[:TOP_K]
        results.append({**record, "topk_sim": [scores[row] for row in best], "topk_seed": [seeds[row] for row in best]})
    return {"results": results}
