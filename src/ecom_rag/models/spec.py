"""A model that is named and not loaded yet: plain data, so that a job can be described, compared, pickled and sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecom_rag import arguments
from ecom_rag.models.cross_encoder import CrossEncoder
from ecom_rag.models.encoder import Encoder


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint, and how to load it.

    Args:
        model: Local folder, hub id, or ``starter``.
        options: Keyword arguments of ``Encoder.from_pretrained`` or ``CrossEncoder.from_pretrained``.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", arguments.path_of(self.model, "model"))

    def encoder(self) -> Encoder:
        """The model as an encoder; raises as ``Encoder.from_pretrained``."""
        return Encoder.from_pretrained(self.model, **self.options)

    def cross_encoder(self) -> CrossEncoder:
        """The model as a reranker; raises as ``CrossEncoder.from_pretrained``."""
        return CrossEncoder.from_pretrained(self.model, **self.options)
