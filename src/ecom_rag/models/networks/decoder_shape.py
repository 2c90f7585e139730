"""What a decoder's ``config.json`` says of its network, read once: the few things in which these families differ."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import network_folder, read_config

# Model types that transformers does not have, and the one whose configuration has the same keys.
_SAME_KEYS = {"minicpm": "LlamaConfig", "cost_wise_gemma": "Gemma2Config"}
_ROPES = ("default", "linear", "llama3", "yarn")  # whose frequencies do not depend on the length of a text
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", *_SAME_KEYS)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """A decoder with rotary positions, grouped heads, RMSNorm and a gated feed-forward layer.

    Args:
        width: Of the hidden states.
        heads: Of the queries.
        key_heads: Of keys and values; each serves ``heads / key_heads`` query heads.
        head_dim: Of a head.
        windows: By layer, how many positions back a token sees, itself included; ``None`` is all.
        eps: Of RMSNorm.
        activation: Of the gate, a name of transformers'.
        frequencies: ``(head_dim / 2,)`` of the rotary positions.
        rotary_scale: Factor of their sines and cosines.
        attention_scale: Factor of the products of queries and keys.
        attention_cap: Bound of these products (Gemma 2); ``None`` is none.
        logit_cap: Bound of the logits (Gemma 2); ``None`` is none.
        embedding_scale: Factor of the token embeddings (Gemma, MiniCPM).
        residual_scale: Factor of what each half of a layer adds (MiniCPM).
        tied: Whether the output embeddings are the token embeddings.
        norm_offset: Added to the weights of RMSNorm (Gemma: 1).
        head_norms: Whether queries and keys are normed by head (Qwen 3).
        biases: Whether there are biases in the projections before attention, behind it, and in the feed-forward layer.
        sandwich: Whether the halves of a layer are normed at their end too (Gemma 2).
    """

    width: int
    heads: int
    key_heads: int
    head_dim: int
    windows: tuple[int | None, ...]
    eps: float
    activation: str
    frequencies: Tensor
    rotary_scale: float
    attention_scale: float
    attention_cap: float | None
    logit_cap: float | None
    embedding_scale: float
    residual_scale: float
    tied: bool
    norm_offset: float
    head_norms: bool
    biases: tuple[bool, bool, bool]
    sandwich: bool


def decoder_shape(folder: Path) -> DecoderShape:
    """Read a folder's ``config.json``, with transformers' defaults for what it leaves out.

    Raises:
        ModelError: It is none of ``MODEL_TYPES``, or something in it is not supported.
    """
    raw = read_config(folder)
    kind = str(raw.get("model_type"))
    config = _config(folder, kind, raw)
    if getattr(config, "use_bidirectional_attention", False):
        raise ModelError(f"{folder}: use_bidirectional_attention is not supported; expected a causal decoder")
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    frequencies, rotary_scale = _rotary(folder, config, head_dim)
    gemma = kind in ("gemma", "gemma2", "cost_wise_gemma")
    gemma2 = gemma and kind != "gemma"
    layers = int(config.num_hidden_layers)
    attention_bias = bool(getattr(config, "attention_bias", False))
    minicpm: dict[str, Any] = raw if kind == "minicpm" else {}
    return DecoderShape(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_dim=head_dim,
        windows=_windows(config, layers),
        eps=config.rms_norm_eps,
        activation=config.hidden_activation if gemma2 else config.hidden_act,
        frequencies=frequencies,
        rotary_scale=rotary_scale,
        attention_scale=(config.query_pre_attn_scalar if gemma2 else head_dim) ** -0.5,
        attention_cap=config.attn_logit_softcapping if gemma2 else None,
        logit_cap=config.final_logit_softcapping if gemma2 else None,
        embedding_scale=math.sqrt(config.hidden_size) if gemma else minicpm.get("scale_emb", 1.0),
        residual_scale=minicpm.get("scale_depth", math.sqrt(layers)) / math.sqrt(layers),
        tied=bool(config.tie_word_embeddings),
        norm_offset=1.0 if gemma else 0.0,
        head_norms=kind == "qwen3",
        biases=(kind == "qwen2" or attention_bias, attention_bias, bool(getattr(config, "mlp_bias", False))),
        sandwich=gemma2,
    )


def _config(folder: Path, kind: str, raw: dict[str, Any]) -> Any:
    import transformers

    if kind not in MODEL_TYPES:
        raise ModelError(f"{folder}: {kind} is not supported as a reranker; expected one of {', '.join(MODEL_TYPES)}")
    try:
        if kind in _SAME_KEYS:
            known = {key: value for key, value in raw.items() if key not in ("model_type", "auto_map")}
            return getattr(transformers, _SAME_KEYS[kind])(**known)
        return transformers.AutoConfig.from_pretrained(
            network_folder(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: config.json: {first[:200]}; restore the checkpoint's file") from None


def _rotary(folder: Path, config: Any, head_dim: int) -> tuple[Tensor, float]:
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind not in _ROPES:
        raise ModelError(f"{folder}: rotary positions of type {kind!r} are not supported; expected {', '.join(_ROPES)}")
    if kind == "default":
        powers = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        return 1.0 / rope.get("rope_theta", 10000.0) ** powers, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return frequencies, float(scale)


def _windows(config: Any, layers: int) -> tuple[int | None, ...]:
    """The window of each layer; configurations without ``layer_types`` have one for all."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
