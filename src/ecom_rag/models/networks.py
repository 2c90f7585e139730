"""The networks that run: a transformer with its pooling and heads as one module, so that one pass gives all outputs."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoint import Checkpoint, read_json
from ecom_rag.models.fused import FusedTransformer
from ecom_rag.models.weights import Weights, read_tensors, read_weights

logger = logging.getLogger(__name__)


class EncoderNetwork(nn.Module):
    """Transformer, pooling, optional Dense layers, and bge-m3's two heads where the checkpoint has them.

    Outputs are not normalised: that is done in float32 outside, whatever the precision in here.

    Args:
        checkpoint: What to load.
        fused: The precision in which ``FusedTransformer`` computes; without it, the network of ``transformers`` does.
    """

    def __init__(self, checkpoint: Checkpoint, *, fused: str | None = None) -> None:
        super().__init__()
        folder = checkpoint.folder
        self.transformer: Any = _fused(folder, fused) if fused else _load_transformer(folder, "AutoModel")
        self.pooling = checkpoint.pooling
        self.dense = nn.Sequential(*(_dense_layer(path) for path in checkpoint.dense_layers))
        self.sparse_head: Any = _head(folder / "sparse_linear.pt") if checkpoint.has_sparse else None
        self.multivector_head: Any = _head(folder / "colbert_linear.pt") if checkpoint.has_multivector else None
        self._fused = fused is not None
        if fused == "bf16":
            self.bfloat16()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, outputs: tuple[int, ...] | None = None
    ) -> tuple[Tensor, ...]:
        """Run one batch.

        Args:
            input_ids: ``(batch, length)``.
            attention_mask: ``(batch, length)``.
            outputs: Positions of the outputs to compute; by default all.

        Returns:
            Of ``dense (batch, dim)``, then where there is a head ``sparse (batch, length)`` weights, and
            ``multivector (batch, length - 1, dim)`` from the second position on, those asked for.
        """
        only_cls = {"first_only": True} if self._fused and self.pooling == "cls" and outputs == (0,) else {}
        found = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **only_cls)
        hidden = found.last_hidden_state  # (B, L, D)
        compute = [lambda: self.dense(self._pool(hidden, attention_mask))]
        if self.sparse_head is not None:
            compute.append(lambda: torch.relu(self.sparse_head(hidden)).squeeze(-1))
        if self.multivector_head is not None:
            compute.append(lambda: self.multivector_head(hidden[:, 1:]))
        return tuple(compute[position]() for position in (range(len(compute)) if outputs is None else outputs))

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        last = mask.sum(dim=1) - 1  # padding is on the right
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


class CrossEncoderNetwork(nn.Module):
    """A sequence classifier with one logit.

    Args:
        folder: The checkpoint.
        uses_token_types: Whether a pair's second text has token type 1.
    """

    def __init__(self, folder: Path, *, uses_token_types: bool) -> None:
        super().__init__()
        self.classifier: Any = _load_transformer(folder, "AutoModelForSequenceClassification")
        self.uses_token_types = uses_token_types

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        outputs: tuple[int, ...] | None = None,
    ) -> tuple[Tensor]:
        """``(batch, length)`` each; returns logits ``(batch,)``, the only output."""
        types = {"token_type_ids": token_type_ids} if token_type_ids is not None else {}
        return (self.classifier(input_ids=input_ids, attention_mask=attention_mask, **types).logits[:, 0],)


class FusedCrossEncoderNetwork(nn.Module):
    """The same by ``FusedTransformer`` in its precision, with the head in float32.

    BERT's head is pooler and classifier, RoBERTa's a dense layer and a projection; both are tanh between two layers.
    """

    def __init__(self, folder: Path, *, uses_token_types: bool, precision: str) -> None:
        super().__init__()
        weights = read_weights(folder)
        bert = read_json(folder / "config.json")["model_type"] == "bert"
        self.transformer = _fused(folder, precision, weights)
        self.uses_token_types = uses_token_types
        self._dense = weights.linear("pooler.dense" if bert else "classifier.dense")
        self._out = weights.linear("classifier" if bert else "classifier.out_proj")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        outputs: tuple[int, ...] | None = None,
    ) -> tuple[Tensor]:
        """``(batch, length)`` each; returns logits ``(batch,)``, the only output."""
        found = self.transformer(input_ids, attention_mask, token_type_ids, first_only=True)
        hidden = torch.tanh(linear(found.last_hidden_state[:, 0].float(), *self._dense))
        return (linear(hidden, *self._out)[:, 0],)


def _fused(folder: Path, precision: str, weights: Weights | None = None) -> FusedTransformer:
    return FusedTransformer(read_json(folder / "config.json"), weights or read_weights(folder), precision)


def _load_transformer(folder: Path, auto_class: str) -> nn.Module:
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = getattr(transformers, auto_class).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: cannot be loaded as {auto_class} ({first[:200]})") from None
    model, info = loaded
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.") and "position_ids" not in key]
    if missing:
        raise ModelError(f"{folder}: the weights lack {len(missing)} tensors (e.g. {sorted(missing)[0]}) and would be"
                         " random; expected a complete checkpoint of this kind")  # fmt: skip
    return model


def _head(path: Path) -> nn.Linear:
    state = read_tensors(path)
    if set(state) != {"weight", "bias"}:
        raise ModelError(f"{path}: found {sorted(state)}; expected a linear layer's weight and bias")
    layer = nn.Linear(state["weight"].shape[1], state["weight"].shape[0])
    layer.load_state_dict({key: value.float() for key, value in state.items()})
    return layer


def _dense_layer(folder: Path) -> nn.Module:
    config = read_json(folder / "config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in ("Tanh", "Identity", "GELU", "ReLU"):
        raise ModelError(f"{folder / 'config.json'}: activation {activation} is not supported; expected Tanh, Identity,"
                         " GELU or ReLU")  # fmt: skip
    weights = folder / "model.safetensors"
    state = read_tensors(weights if weights.exists() else folder / "pytorch_model.bin")
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    layer.load_state_dict({key.removeprefix("linear."): value.float() for key, value in state.items()})
    return nn.Sequential(layer, getattr(nn, activation)())
