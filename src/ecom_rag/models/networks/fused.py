"""BERT and XLM-RoBERTa on a CPU in bf16, float32 or int8, with each layer in a handful of fused operations.

The weights are packed once for oneDNN; bias, GELU and residual sums happen inside the matrix products (for int8, see
``int8``); each core runs a batch of its own. Two things cost nothing and change no result: short sequences are attended
to by a compiled loop (the general kernel spends most of its time on set-up there), and where only the first position is
used (CLS pooling, cross-encoders) the last layer is computed for that position alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.weights import Weights
from ecom_rag.models.networks.attention_kernel import attend
from ecom_rag.models.networks.int8 import Int8Layer

FAMILIES = ("bert", "xlm-roberta", "roberta")
_DEFAULTS = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}  # BERT's own
_LOOP_TOKENS = 15  # up to this padded length the compiled loop is faster than the general kernel


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Tensor  # packed
    bias: Tensor

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """``x W + b + residual`` in one pass."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


class _Layer(Protocol):
    """What is around attention; rows of all texts of a batch lie below each other."""

    def qkv(self, x: Tensor) -> Tensor:
        """``(rows, dim)`` to queries, keys and values side by side, ``(rows, 3 dim)``."""

    def finish(self, attended: Tensor, x: Tensor) -> Tensor:
        """The layer's output ``(rows, dim)`` of its input ``x`` and what attention gave."""


class _FloatLayer:
    """In bf16 or float32, whole: activations, weights, LayerNorm."""

    def __init__(self, weights: Weights, name: str, eps: float, dtype: torch.dtype) -> None:
        def norm(part: str) -> _Norm:
            weight, bias = weights.linear(f"{name}.{part}.LayerNorm")
            return _Norm(weight.to(dtype), bias.to(dtype), eps)

        own = [weights.linear(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        self._qkv = _linear(*own, dtype=dtype)
        self._attention_out = _linear(weights.linear(f"{name}.attention.output.dense"), dtype=dtype)
        self._up = _linear(weights.linear(f"{name}.intermediate.dense"), dtype=dtype)
        self._down = _linear(weights.linear(f"{name}.output.dense"), dtype=dtype)
        self._attention_norm, self._norm = norm("attention.output"), norm("output")

    def qkv(self, x: Tensor) -> Tensor:
        """See ``_Layer.qkv``."""
        return self._qkv(x)

    def finish(self, attended: Tensor, x: Tensor) -> Tensor:
        """See ``_Layer.finish``."""
        x = self._attention_norm(self._attention_out.plus(attended, x))
        return self._norm(self._down.plus(self._up(x, "gelu"), x))


def supported(config: Mapping[str, Any], precision: str) -> bool:
    """Whether a transformer of this ``config.json`` can be fused on this machine in this precision."""
    return (
        config.get("model_type") in FAMILIES
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
        and bool(torch._C._has_mkldnn)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (precision != "bf16" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


class FusedTransformer(nn.Module):
    """BERT, RoBERTa or XLM-RoBERTa for inference; called as the ``transformers`` modules are.

    Args:
        config: The checkpoint's ``config.json``; see ``supported``.
        weights: Its tensors.
        precision: ``bf16``, ``fp32``, or ``int8`` (see ``Int8Layer``).

    Raises:
        ModelError: A tensor is missing, or the words do not fit the configuration.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights, precision: str) -> None:
        super().__init__()
        config = {**_DEFAULTS, **config}
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._heads = int(config["num_attention_heads"])
        self._offset = 0 if config["model_type"] == "bert" else int(config.get("pad_token_id", 1)) + 1
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._words = weights["embeddings.word_embeddings.weight"]
        expected = (int(config["vocab_size"]), int(config["hidden_size"]))
        if tuple(self._words.shape) != expected:
            raise ModelError(
                f"word embeddings of shape {tuple(self._words.shape)}, config.json says {expected};"
                " the files are of different checkpoints"
            )
        self._positions = weights["embeddings.position_embeddings.weight"]
        self._types = weights["embeddings.token_type_embeddings.weight"]
        self._norm = _Norm(*weights.linear("embeddings.LayerNorm"), self._eps)
        names = [f"encoder.layer.{number}" for number in range(int(config["num_hidden_layers"]))]
        self._layers: list[_Layer] = [
            Int8Layer(weights, name, self._eps)
            if precision == "int8"
            else _FloatLayer(weights, name, self._eps, self._dtype)
            for name in names
        ]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        first_only: bool = False,
    ) -> SimpleNamespace:
        """``(batch, length)`` each; gives ``last_hidden_state``, of the first position alone under ``first_only``."""
        batch, length = input_ids.shape
        lengths = attention_mask.sum(dim=1)
        full = bool((lengths == length).all())
        x = self._embed(input_ids, token_type_ids)  # (batch * length, dim)
        mask = None if full else attention_mask[:, None, None, :].bool()
        for number, layer in enumerate(self._layers):
            first = first_only and number == len(self._layers) - 1
            attended = self._attention(layer.qkv(x), batch, length, lengths, mask, 1 if first else length)
            if first:
                x = x.view(batch, length, -1)[:, 0].contiguous()
            x = layer.finish(attended, x)
        return SimpleNamespace(last_hidden_state=x.view(batch, 1 if first_only else length, -1))

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        length = input_ids.shape[1]
        types = self._types[0] if token_type_ids is None else embedding(token_type_ids, self._types)
        x = embedding(input_ids, self._words) + self._positions[self._offset : self._offset + length] + types
        return self._norm(x).to(self._dtype).view(-1, x.shape[-1])

    def _attention(
        self, qkv: Tensor, batch: int, length: int, lengths: Tensor, mask: Tensor | None, asked: int
    ) -> Tensor:
        """Softmax attention of the first ``asked`` positions: ``(batch * asked, dim)``."""
        dim = qkv.shape[1] // 3
        if length <= _LOOP_TOKENS:
            out = torch.empty((batch, asked, dim), dtype=qkv.dtype)
            scale = np.float32(math.log2(math.e) / math.sqrt(dim // self._heads))
            attend(_array(qkv.view(batch, length, 3 * dim)), lengths.numpy(), self._heads, scale, _array(out))
            return out.view(-1, dim)
        q, k, v = qkv.view(batch, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q[:, :, :asked], k, v, attn_mask=mask)
        return attended.transpose(1, 2).reshape(-1, dim)


def _array(x: Tensor) -> NDArray[Any]:
    """The same memory: float32, or the bits of bf16."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def _linear(*parts: tuple[Tensor, Tensor], dtype: torch.dtype) -> _Linear:
    """Layers of the same input side by side, packed as one."""
    weight = torch.cat([weight for weight, _ in parts]).to(dtype)
    bias = torch.cat([bias for _, bias in parts]).to(dtype)
    return _Linear(torch.ops.mkldnn._reorder_linear_weight(weight), bias)
