"""A model that is named and not loaded yet: plain data, so that a job can be described, compared, pickled and sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from ecom_rag import arguments
from ecom_rag.errors import UsageError
from ecom_rag.models.cross_encoder import CrossEncoder
from ecom_rag.models.encoder import Encoder


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint, and how to load it.

    Args:
        model: Local folder, hub id, or ``starter``; ``None`` where something else says it, as a bank does of its own.
        options: Keyword arguments of ``Encoder.from_pretrained`` or ``CrossEncoder.from_pretrained``.
    """

    model: str | PathLike[str] | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", arguments.path_or_none(self.model, "model"))

    def encoder(self) -> Encoder:
        """The model as an encoder; raises as ``Encoder.from_pretrained``."""
        return Encoder.from_pretrained(arguments.path_of(self.model, "model"), **self.options)

    def cross_encoder(self) -> CrossEncoder:
        """The model as a reranker; raises as ``CrossEncoder.from_pretrained``."""
        return CrossEncoder.from_pretrained(arguments.path_of(self.model, "model"), **self.options)


AnyEncoder = ModelSpec | str | PathLike[str] | Encoder
"""An encoder: loaded, or named by its folder or hub id, or with options by a ``ModelSpec``."""
AnyCrossEncoder = ModelSpec | str | PathLike[str] | CrossEncoder
"""A reranker: loaded, or named by its folder or hub id, or with options by a ``ModelSpec``."""


def check_encoder(model: AnyEncoder) -> None:
    """Raise ``UsageError`` unless this is an encoder, loaded or named; nothing is loaded for it."""
    if not isinstance(model, ModelSpec | str | PathLike):
        arguments.model(model, "model", "check_outputs", "Encoder")


def check_cross_encoder(model: AnyCrossEncoder) -> None:
    """Raise ``UsageError`` unless this is a reranker, loaded or named; nothing is loaded for it."""
    if not isinstance(model, ModelSpec | str | PathLike):
        arguments.model(model, "reranker", "score", "CrossEncoder")


def encoder_of(model: AnyEncoder) -> Encoder:
    """The loaded encoder; one that is loaded already as it is.

    Raises:
        ModelError: The checkpoint cannot be found, read or used.
        UsageError: Something that is no encoder.
    """
    check_encoder(model)
    if isinstance(model, str | PathLike):
        model = ModelSpec(model)
    return model.encoder() if isinstance(model, ModelSpec) else model


def cross_encoder_of(model: AnyCrossEncoder) -> CrossEncoder:
    """The loaded reranker; one that is loaded already as it is.

    Raises:
        ModelError: The checkpoint cannot be found, read or used.
        UsageError: Something that is no reranker.
    """
    check_cross_encoder(model)
    if isinstance(model, str | PathLike):
        model = ModelSpec(model)
    return model.cross_encoder() if isinstance(model, ModelSpec) else model


def check_named(model: AnyEncoder | AnyCrossEncoder | None, name: str) -> None:
    """Raise ``UsageError`` for a loaded model, which cannot be sent to another process.

    Args:
        model: What was given.
        name: Of the argument.

    Raises:
        UsageError: It is loaded.
    """
    if not isinstance(model, ModelSpec | str | PathLike | None):
        raise UsageError(f"workers load models by name; give `{name}` as a folder, a hub id or a ModelSpec")


def settled(given: AnyEncoder | AnyCrossEncoder | None, loaded: Encoder | CrossEncoder) -> ModelSpec:
    """A model by name with runtime, precision and batches as they were chosen here, whatever ``auto`` is elsewhere.

    Args:
        given: As it was named; ``None`` where something else names it, as a bank does.
        loaded: The same, loaded.
    """
    spec = given if isinstance(given, ModelSpec) else ModelSpec(given)  # type: ignore[arg-type]
    chosen = {name: loaded.settings[name] for name in ("runtime", "precision", "batch_tokens")}
    device = "cpu" if loaded.placement.device == "cpu" else "cuda"  # a worker sees the GPU alone that it was given
    return ModelSpec(spec.model, {**spec.options, **chosen, "device": device})


def gpus_of(*models: Encoder | CrossEncoder | None) -> int:
    """GPUs that a process needs for some models: one for all of them, or none.

    Args:
        models: Loaded ones; ``None`` where there is none.
    """
    return int(any(model is not None and model.placement.device != "cpu" for model in models))
