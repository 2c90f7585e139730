"""Rows of a batch that begin alike, run through a causal decoder: the shared beginning is computed once.

Queries of a model tuned on instructions begin with the same task, and after examples with hundreds of tokens that are
the same. In a causal network no later token changes an earlier one, so keys and values of the shared tokens serve every
row; what comes of it differs in the last bits alone.
"""

from typing import Any

from torch import Tensor

_CAUSAL = ("qwen2", "qwen3", "mistral", "gemma2")  # that the tests cover
_WORTH = 128  # tokens saved in a batch, below which a second run of the network costs more


def shares_prefixes(config: Any) -> bool:
    """Whether a network of transformers may run the shared beginning of its rows once."""
    return config.model_type in _CAUSAL and getattr(config, "is_causal", True) is not False


def shared_tokens(input_ids: Tensor, attention_mask: Tensor) -> int:
    """How many tokens all rows begin with, where it is worth computing them once; else 0.

    Args:
        input_ids: ``(batch, length)``, padded on the right.
        attention_mask: ``(batch, length)``.
    """
    rows, length = input_ids.shape
    own = int(attention_mask.sum(dim=1).min()) - 1  # each row keeps a token of its own: its vector is pooled
    same = (input_ids[:, :own] == input_ids[:1, :own]).all(dim=0)
    shared = int(same.long().cumprod(dim=0).sum())
    saved = (rows - 1) * shared
    return shared if saved >= max(_WORTH, rows * length // 4) else 0


def run_after(transformer: Any, input_ids: Tensor, attention_mask: Tensor, shared: int) -> Tensor:
    """The last hidden states from the shared tokens on: ``(batch, length - shared, dim)``.

    Args:
        transformer: One of ``shares_prefixes``.
        input_ids: ``(batch, length)``.
        attention_mask: ``(batch, length)``.
        shared: What ``shared_tokens`` gives.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=transformer.config)
    transformer(input_ids=input_ids[:1, :shared], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(input_ids))
    found = transformer(
        input_ids=input_ids[:, shared:], attention_mask=attention_mask, past_key_values=cache, use_cache=True
    )
    hidden: Tensor = found.last_hidden_state
    return hidden
