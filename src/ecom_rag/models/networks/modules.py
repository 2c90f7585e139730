"""The networks that run: a transformer with its pooling and heads as one module, so that one pass gives all outputs."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.checkpoint import Checkpoint
from ecom_rag.models.checkpoints.contents import ACTIVATIONS
from ecom_rag.models.checkpoints.folder import read_config, read_object
from ecom_rag.models.checkpoints.weights import Weights, read_tensors, read_weights
from ecom_rag.models.networks.fused import FusedTransformer
from ecom_rag.models.networks.loading import load_transformer
from ecom_rag.models.networks.prefix import run_after, shared_tokens, shares_prefixes


class EncoderNetwork(nn.Module):
    """Transformer, pooling, optional Dense layers, and bge-m3's two heads where the checkpoint has them.

    Outputs are not normalised: that is done in float32 outside, whatever the precision in here.

    Args:
        checkpoint: What to load.
        fused: The precision in which ``FusedTransformer`` computes; without it, the network of ``transformers`` does.
        dtype: Of the weights of the latter.
    """

    def __init__(self, checkpoint: Checkpoint, *, fused: str | None = None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        folder = checkpoint.folder
        self.transformer: Any
        if fused:
            weights = read_weights(folder)
            self.transformer = _fused(folder, fused, weights)
            weights.check_all_used()
        else:
            self.transformer = load_transformer(folder, "AutoModel", dtype=dtype)
        self.pooling = checkpoint.pooling
        self.dense = nn.Sequential(*(_dense_layer(path) for path in checkpoint.dense_layers))
        self.sparse_head: Any = _head(folder / "sparse_linear.pt") if checkpoint.has_sparse else None
        self.multivector_head: Any = _head(folder / "colbert_linear.pt") if checkpoint.has_multivector else None
        self._fused = fused is not None
        self._shares_prefixes = not fused and self.pooling == "last" and shares_prefixes(self.transformer.config)
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
        if self._shares_prefixes and outputs == (0,) and (shared := shared_tokens(input_ids, attention_mask)):
            hidden = run_after(self.transformer, input_ids, attention_mask, shared)
            return (self.dense(self._pool(hidden, attention_mask[:, shared:])),)
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
        dtype: Of the weights.
    """

    def __init__(self, folder: Path, *, uses_token_types: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.classifier: Any = load_transformer(folder, "AutoModelForSequenceClassification", dtype=dtype)
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
        bert = read_config(folder)["model_type"] == "bert"
        self.transformer = _fused(folder, precision, weights)
        self.uses_token_types = uses_token_types
        self._dense = weights.linear("pooler.dense" if bert else "classifier.dense")
        self._out = weights.linear("classifier" if bert else "classifier.out_proj")
        weights.check_all_used()

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


def _fused(folder: Path, precision: str, weights: Weights) -> FusedTransformer:
    return FusedTransformer(read_config(folder), weights, precision)


def _head(path: Path) -> nn.Linear:
    state = read_tensors(path)
    if set(state) != {"weight", "bias"} or state["weight"].ndim != 2:
        raise ModelError(f"{path}: found {sorted(state)}; expected a linear layer's weight and bias")
    return _linear(path, state, *reversed(state["weight"].shape))


def _linear(path: Path, state: dict[str, Tensor], width: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(width, outputs, bias=bias)
    try:
        layer.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError:
        found = {key: list(value.shape) for key, value in state.items()}
        raise ModelError(
            f"{path}: holds {found}; expected a linear layer of {width} inputs and {outputs} outputs"
            f"{'' if bias else ' without bias'}, restore the checkpoint's file"
        ) from None
    return layer


def _dense_layer(folder: Path) -> nn.Module:
    config = read_object(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = name.rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or not name.startswith("torch.nn."):
        raise ModelError(
            f"{folder / 'config.json'}: activation {name} is not supported; expected {', '.join(ACTIVATIONS)} of"
            " torch.nn"
        )
    missing = [key for key in ("in_features", "out_features") if not config.get(key)]
    if missing:
        raise ModelError(f"{folder / 'config.json'}: {missing[0]} is missing; restore the checkpoint's file")
    weights = folder / "model.safetensors"
    path = weights if weights.exists() else folder / "pytorch_model.bin"
    state = {key.removeprefix("linear."): value for key, value in read_tensors(path).items()}
    bias = config.get("bias", True)
    layer = _linear(path, state, config["in_features"], config["out_features"], bias=bias)
    return nn.Sequential(layer, getattr(nn, activation)())
