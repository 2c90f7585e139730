"""ecom_rag: governance retrieval for e-commerce on BGE models.

The errors come with the package; the other names below load on first use, so that importing it loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecom_rag import environment, errors
from ecom_rag._version import __version__
from ecom_rag.errors import (
    BankError,
    EcomRagError,
    EmbeddingError,
    ModelError,
    PolicyError,
    RecordError,
    ResumeError,
    ServiceError,
    UsageError,
)

environment.prepare()  # before any other library loads


_EXPORTS = {
    "Calibrate": "ecom_rag.decision",
    "Client": "ecom_rag.client",
    "CrossEncoder": "ecom_rag.models",
    "Decider": "ecom_rag.decision",
    "Embeddings": "ecom_rag.models",
    "Encoder": "ecom_rag.models",
    "Pipeline": "ecom_rag.pipeline",
    "Recall": "ecom_rag.pipeline",
    "SeedBank": "ecom_rag.seeds.bank",
    "Seeds": "ecom_rag.pipeline",
    "calibrate": "ecom_rag.decision",
    "calibrate_file": "ecom_rag.decision",
    "decide_file": "ecom_rag.decision",
    "load_policy": "ecom_rag.decision",
    "mine": "ecom_rag.mining",
    "mine_file": "ecom_rag.mining",
    "recall_file": "ecom_rag.pipeline",
    "rerank": "ecom_rag.pipeline",
    "rerank_file": "ecom_rag.pipeline",
    "score": "ecom_rag.pipeline",
    "score_file": "ecom_rag.pipeline",
    "teach": "ecom_rag.mining.teaching",
    "teach_file": "ecom_rag.mining.teaching",
    "train": "ecom_rag.training.start",
}
_MODULES = {
    name: f"ecom_rag.{name}" for name in ("decision", "evaluation", "models", "pipeline", "retrieval", "training")
}
_MODULES["records"] = "ecom_rag.files.records"
__all__ = [
    "BankError",
    "Calibrate",
    "Client",
    "CrossEncoder",
    "Decider",
    "EcomRagError",
    "EmbeddingError",
    "Embeddings",
    "Encoder",
    "ModelError",
    "Pipeline",
    "PolicyError",
    "Recall",
    "RecordError",
    "ResumeError",
    "SeedBank",
    "Seeds",
    "ServiceError",
    "UsageError",
    "__version__",
    "calibrate",
    "calibrate_file",
    "decide_file",
    "errors",
    "load_policy",
    "mine",
    "mine_file",
    "recall_file",
    "rerank",
    "rerank_file",
    "score",
    "score_file",
    "teach",
    "teach_file",
    "train",
]

if TYPE_CHECKING:
    from ecom_rag.client import Client
    from ecom_rag.decision import Calibrate, Decider, calibrate, calibrate_file, decide_file, load_policy
    from ecom_rag.mining import mine, mine_file
    from ecom_rag.mining.teaching import teach, teach_file
    from ecom_rag.models import CrossEncoder, Embeddings, Encoder
    from ecom_rag.pipeline import Pipeline, Recall, Seeds, recall_file, rerank, rerank_file, score, score_file
    from ecom_rag.seeds.bank import SeedBank
    from ecom_rag.training.start import train


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'ecom_rag' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
