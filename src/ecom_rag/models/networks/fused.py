"""BERT and XLM-RoBERTa on a CPU in bf16, float32 or int8, with each layer in a handful of fused operations.

The weights are packed once for oneDNN; bias, GELU and residual sums happen inside the matrix products (for int8, see
``int8``); each core runs a batch of its own. Three things cost nothing and change no result: attention is a compiled
loop where that is faster than torch's kernel; padding is left out between the embeddings and the output there; and
where only the first position is used (CLS pooling, cross-encoders) the last layer is computed for that position alone.
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
from ecom_rag.models.networks.lanes import WIDTH
from ecom_rag.models.runtimes import cpu

FAMILIES = ("bert", "xlm-roberta", "roberta")
_DEFAULTS = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}  # BERT's own
_AMX_TOKENS = 96  # above, torch's kernel is taken for bf16 with AMX; an estimate (LOG.md, 2026-11-29)


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
        texts = _Texts.of(attention_mask, packed=self._attends(length))
        x = self._embed(input_ids, token_type_ids, texts)  # (rows, dim)
        for number, layer in enumerate(self._layers):
            first = first_only and number == len(self._layers) - 1
            attended = self._attention(layer.qkv(x), texts, 1 if first else length)
            x = layer.finish(attended, x[torch.from_numpy(texts.starts)] if first else x)
        asked = 1 if first_only else length
        return SimpleNamespace(last_hidden_state=(x if first_only else texts.padded(x)).view(batch, asked, -1))

    def _attends(self, length: int) -> bool:
        """Whether the compiled loop is the faster attention for texts of this padded length."""
        size = self._words.shape[1] // self._heads
        return size % WIDTH == 0 and (length <= _AMX_TOKENS or self._dtype != torch.bfloat16 or not cpu.has_amx())

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor | None, texts: "_Texts") -> Tensor:
        types = self._types[0] if token_type_ids is None else embedding(texts.rows(token_type_ids), self._types)
        positions = torch.arange(self._offset, self._offset + input_ids.shape[1]).expand_as(input_ids)
        x = embedding(texts.rows(input_ids), self._words) + embedding(texts.rows(positions), self._positions) + types
        return self._norm(x).to(self._dtype)

    def _attention(self, qkv: Tensor, texts: "_Texts", asked: int) -> Tensor:
        """Softmax attention of the first ``asked`` positions of each text: ``(rows, dim)``."""
        batch, length = texts.mask.shape
        dim = qkv.shape[1] // 3
        if self._attends(length):
            places = np.arange(batch) if asked == 1 else texts.starts
            out = torch.empty((batch if asked == 1 else len(qkv), dim), dtype=qkv.dtype)
            scale = np.float32(math.log2(math.e) / math.sqrt(dim // self._heads))
            attend(_array(qkv), texts.starts, texts.lengths, places, asked, self._heads, scale, _array(out))
            return out
        q, k, v = qkv.view(batch, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if texts.full else texts.mask[:, None, None, :]
        return scaled_dot_product_attention(q[:, :, :asked], k, v, attn_mask=mask).transpose(1, 2).reshape(-1, dim)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a batch as rows below each other, without their padding if ``packed``.

    A text without tokens keeps one row.
    """

    mask: Tensor  # (batch, length), of real tokens
    lengths: NDArray[np.int64]  # (batch,)
    starts: NDArray[np.int64]  # (batch,) the first row of each
    kept: Tensor | None  # (rows,) places in the padded batch; None for all

    @classmethod
    def of(cls, mask: Tensor, *, packed: bool) -> "_Texts":
        mask = mask.bool()
        batch, length = mask.shape
        lengths = mask.sum(dim=1).numpy()
        if not packed or (lengths == length).all():
            return cls(mask, lengths, np.arange(batch) * length, None)
        rows = np.maximum(lengths, 1)
        kept = (torch.arange(length) < torch.from_numpy(rows)[:, None]).view(-1).nonzero()[:, 0]
        return cls(mask, lengths, rows.cumsum() - rows, kept)

    @property
    def full(self) -> bool:
        """Whether there is no padding."""
        return bool((self.lengths == self.mask.shape[1]).all())

    def rows(self, values: Tensor) -> Tensor:
        """``(batch, length)`` to ``(rows,)``."""
        return values.reshape(-1) if self.kept is None else values.reshape(-1)[self.kept]

    def padded(self, rows: Tensor) -> Tensor:
        """``(rows, dim)`` to ``(batch * length, dim)``, with zeros for padding."""
        if self.kept is None:
            return rows
        return rows.new_zeros((self.mask.numel(), rows.shape[1])).index_copy_(0, self.kept, rows)


def _array(x: Tensor) -> NDArray[Any]:
    """The same memory: float32, or the bits of bf16."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def _linear(*parts: tuple[Tensor, Tensor], dtype: torch.dtype) -> _Linear:
    """Layers of the same input side by side, packed as one."""
    weight = torch.cat([weight for weight, _ in parts]).to(dtype)
    bias = torch.cat([bias for _, bias in parts]).to(dtype)
    return _Linear(torch.ops.mkldnn._reorder_linear_weight(weight), bias)
