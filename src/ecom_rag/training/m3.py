"""bge-m3's two heads as a sentence-transformers module, so that they train, checkpoint and resume with the rest."""

from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn

from ecom_rag.models.checkpoints.weights import read_tensors

SPARSE, MULTIVECTOR = "sparse_linear.pt", "colbert_linear.pt"  # FlagEmbedding's names


class M3Heads(Module):
    """Adds term weights and token vectors to the features that the transformer and the pooling have filled.

    Args:
        sparse: ``dim -> 1``.
        multivector: ``dim -> dim``.
    """

    config_keys: list[str] = []  # noqa: RUF012  # as declared upstream

    def __init__(self, sparse: nn.Linear, multivector: nn.Linear) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sparse = sparse
        self.multivector = multivector

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Sets ``sparse_weights (B, L)`` at or above 0 and ``token_vectors (B, L - 1, D)`` of length 1."""
        hidden = features["token_embeddings"]
        features["sparse_weights"] = torch.relu(self.sparse(hidden)).squeeze(-1)
        features["token_vectors"] = nn.functional.normalize(self.multivector(hidden[:, 1:]).float(), dim=-1)
        return features

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Both heads in FlagEmbedding's files."""
        for name, head in ((SPARSE, self.sparse), (MULTIVECTOR, self.multivector)):
            weights = {key: value.detach().cpu().clone() for key, value in head.state_dict().items()}
            torch.save(weights, Path(output_path) / name)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> Self:  # type: ignore[override]
        """The heads of a checkpoint folder."""
        return cls.of(Path(model_name_or_path) / subfolder)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The heads whose two files lie in a folder."""
        return cls(_linear(folder / SPARSE), _linear(folder / MULTIVECTOR))


def _linear(path: Path) -> nn.Linear:
    state = read_tensors(path)
    layer = nn.Linear(state["weight"].shape[1], state["weight"].shape[0])
    layer.load_state_dict({key: value.float() for key, value in state.items()})
    return layer
