"""The tools over records in memory and over files: score, multi-route recall, rerank.

Records come in, records with ``topk_sim``, ``topk_seed`` and ``topk_metadata`` go out. The file forms stream: memory
follows the seeds' embeddings and one block of queries, never the query file.
"""

from ecom_rag.files.jobs import Summary
from ecom_rag.pipeline.file_search import recall_work
from ecom_rag.pipeline.reranking import rerank
from ecom_rag.pipeline.reranking_files import rerank_file
from ecom_rag.pipeline.run import recall_file, score_file
from ecom_rag.pipeline.scoring import score
from ecom_rag.pipeline.search import Pipeline
from ecom_rag.pipeline.settings import Recall, read_settings
from ecom_rag.seeds.memory import Seeds

__all__ = [
    "Pipeline",
    "Recall",
    "Seeds",
    "Summary",
    "read_settings",
    "recall_file",
    "recall_work",
    "rerank",
    "rerank_file",
    "score",
    "score_file",
]
