"""Train the rows of an embedding table that the training data use, and leave the others as they are.

A multilingual vocabulary has 250,000 tokens, and one shop's data use a tenth of them or less. The gradient of the table
is dense all the same, and AdamW keeps two moments of every weight and steps through all of them. A table of the rows in
use alone is trained to the same weights; the one difference is that weight decay no longer shrinks the rows of
tokens that never occur, which lie in the checkpoint as they lay before.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecom_rag.models.checkpoints.tokens import Tokenizer

_TEXTS_AT_ONCE = 8192


class UsedRows(nn.Module):
    """Stands in the place of an ``nn.Embedding``: the same outputs and the same state dict, with fewer parameters.

    Args:
        embedding: The whole table. Its memory is kept, its gradient is not needed any more.
        used: Distinct token ids whose rows are trained.
    """

    places: Tensor

    def __init__(self, embedding: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        weight = embedding.weight.detach()
        self.weight = nn.Parameter(weight[used.to(weight.device)])  # (used, dim)
        places = torch.full((len(weight),), -1)
        places[used] = torch.arange(len(used))
        self.register_buffer("places", places.to(weight.device), persistent=False)  # (tokens,), -1 for other rows
        self._table, self._used = weight.cpu(), used  # no buffer: other rows are read a few at a time
        padding = -1 if embedding.padding_idx is None else int(places[embedding.padding_idx])
        self._padding = None if padding < 0 else padding
        self.register_state_dict_post_hook(_put_back)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_take_out)  # type: ignore[no-untyped-call]

    def forward(self, ids: Tensor) -> Tensor:
        """``(..., dim)`` the rows of ``ids``, with a gradient for those in use."""
        places = self.places[ids]
        found = nn.functional.embedding(places.clamp(min=0), self.weight, self._padding)
        others = places < 0
        if others.any():  # of dev texts
            found[others] = self._table[ids[others].cpu()].to(found)
        return found


def train_only(model: Any, used: NDArray[np.int64]) -> None:
    """Let a model train only some rows of its token embeddings.

    Args:
        model: A ``SentenceTransformer`` or a ``CrossEncoder`` whose first module is a transformer. Nothing happens
            where its table is not trained, or is no plain ``nn.Embedding``.
        used: Distinct token ids whose rows are trained.
    """
    network = model[0].model
    table = network.get_input_embeddings()
    if type(table) is nn.Embedding and table.weight.requires_grad:
        network.set_input_embeddings(UsedRows(table, torch.from_numpy(used)))


def token_ids(tokenizer: Tokenizer, texts: Iterable[str], max_length: int) -> NDArray[np.int64]:
    """The distinct token ids of texts and of what stands around them, ascending.

    Args:
        tokenizer: Of the checkpoint.
        texts: With their instructions.
        max_length: Most tokens of a text.
    """
    layouts = tokenizer.single, tokenizer.pair
    special = [ids for layout in layouts for ids in (layout.prefix, layout.middle, layout.suffix)]
    found = np.unique(np.concatenate([*special, [tokenizer.pad_id]]).astype(np.int64))
    every = list(texts)
    for start in range(0, len(every), _TEXTS_AT_ONCE):
        found = np.union1d(found, tokenizer.ids(every[start : start + _TEXTS_AT_ONCE], max_length).values)
    return found


def _put_back(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """The whole table into a state dict."""
    assert isinstance(module, UsedRows)
    table = module._table.clone()
    table[module._used] = state[f"{prefix}weight"].detach().cpu()
    state[f"{prefix}weight"] = table


def _take_out(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The rows in use out of a state dict that holds the whole table."""
    assert isinstance(module, UsedRows)
    if (table := state.get(f"{prefix}weight")) is not None:
        state[f"{prefix}weight"] = table[module._used.to(table.device)]
