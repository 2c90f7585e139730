"""The tools over records in memory and over files: score, multi-route recall, rerank.

Records come in, records with ``topk_sim``, ``topk_seed`` and ``topk_metadata`` go out. The file forms stream: memory
follows the seeds' embeddings and one block of queries, never the query file.
"""

from ecom_rag.pipeline.files import Summary
from ecom_rag.pipeline.recall import Pipeline, Recall
from ecom_rag.pipeline.recalling import read_settings, recall_file
from ecom_rag.pipeline.reranking import rerank, rerank_file
from ecom_rag.pipeline.scoring import Scorer, score, score_file
from ecom_rag.seeds.memory import Seeds

__all__ = [
    "Pipeline",
    "Recall",
    "Scorer",
    "Seeds",
    "Summary",
    "read_settings",
    "recall_file",
    "rerank",
    "rerank_file",
    "score",
    "score_file",
]
