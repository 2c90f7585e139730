"""Exact search: embeddings of queries in, ``TopK`` of row numbers and scores out.

Each index holds the seeds' side of one route and answers ``search(queries, k) -> TopK``. Ties are broken the same way
everywhere: higher score first, then the earlier row. No texts and no dicts come in here.
"""

from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.hybrid import HybridIndex, pair_scores
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.topk import TopK

__all__ = ["DenseIndex", "HybridIndex", "MultiVectorIndex", "SparseIndex", "TopK", "pair_scores"]
