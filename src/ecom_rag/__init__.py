"""ecom_rag: governance retrieval for e-commerce on BGE models.

The names below load on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecom_rag import environment

environment.prepare()  # before any other library loads

__version__ = "0.1.0"

_EXPORTS = {
    "CrossEncoder": "ecom_rag.models",
    "Embeddings": "ecom_rag.models",
    "Encoder": "ecom_rag.models",
    "EcomRagError": "ecom_rag.errors",
    "Pipeline": "ecom_rag.pipeline",
    "Recall": "ecom_rag.pipeline",
    "SeedBank": "ecom_rag.retrieval.bank",
    "Seeds": "ecom_rag.pipeline",
    "recall_file": "ecom_rag.pipeline",
    "rerank": "ecom_rag.pipeline",
    "rerank_file": "ecom_rag.pipeline",
    "score": "ecom_rag.pipeline",
    "score_file": "ecom_rag.pipeline",
}
__all__ = [
    "CrossEncoder",
    "EcomRagError",
    "Embeddings",
    "Encoder",
    "Pipeline",
    "Recall",
    "SeedBank",
    "Seeds",
    "__version__",
    "recall_file",
    "rerank",
    "rerank_file",
    "score",
    "score_file",
]

if TYPE_CHECKING:
    from ecom_rag.errors import EcomRagError
    from ecom_rag.models import CrossEncoder, Embeddings, Encoder
    from ecom_rag.pipeline import Pipeline, Recall, Seeds, recall_file, rerank, rerank_file, score, score_file
    from ecom_rag.retrieval.bank import SeedBank


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'ecom_rag' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
