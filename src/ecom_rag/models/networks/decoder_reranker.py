"""Rerankers that are decoders: a prompt with query and document goes in, one score comes out at its last token.

The score is a logit of the output embeddings (``Yes``), the difference of two (yes and no), or a linear head's of the
exit layer. Only those rows of the output embeddings are loaded, never the whole vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ecom_rag.models.checkpoints.weights import Weights, read_weights
from ecom_rag.models.networks.decoder import Decoder, Tree
from ecom_rag.models.networks.decoder_shape import DecoderShape, decoder_shape


@dataclass(frozen=True, slots=True)
class Head:
    """What is read at the last token.

    Args:
        tokens: Rows of the output embeddings: one, or two whose logits are subtracted. Empty where there is a head.
        tensor: Name of the head's weights.
        layer: How many layers run before it; ``None`` is all.
    """

    tokens: tuple[int, ...] = ()
    tensor: str = ""
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class Compression:
    """Before some layers, neighbouring tokens of a document become one, their mean.

    Args:
        ratio: How many become one.
        layers: Layers by number from 1 on; of those that do not run, nothing comes.
        tail: Tokens at the end of each row that are the prompt's, and stay.
    """

    ratio: int
    layers: tuple[int, ...]
    tail: int


class DecoderReranker(nn.Module):
    """A decoder with one score per row.

    Args:
        folder: The checkpoint.
        head: What is read.
        compression: Of documents; ``None`` is none.
        dtype: Of the weights.

    Raises:
        ModelError: The weights lack a tensor, or hold one that the network has no place for.
    """

    def __init__(self, folder: Path, head: Head, *, compression: Compression | None, dtype: torch.dtype) -> None:
        super().__init__()
        weights = read_weights(folder)
        self._shape = decoder_shape(folder)
        depth = len(self._shape.windows)
        layers = head.layer or depth
        self._decoder = Decoder(weights, self._shape, layers=layers, dtype=dtype)
        self._head = nn.Parameter(_rows(weights, head, self._shape).to(dtype), requires_grad=False)
        self._compression = compression
        weights.check_all_used(beside=tuple(f"layers.{number}." for number in range(layers, depth)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        prefix_ids: Tensor,
        prefix_mask: Tensor,
        prefix_of: Tensor,
        outputs: tuple[int, ...] | None = None,
    ) -> tuple[Tensor]:
        """Run one batch.

        Args:
            input_ids: ``(batch, length)``, what comes after the prefix of each row.
            attention_mask: ``(batch, length)``.
            prefix_ids: ``(prefixes, prefix length)``.
            prefix_mask: ``(prefixes, prefix length)``.
            prefix_of: ``(batch,)`` the prefix of each row.
            outputs: There is only one.

        Returns:
            Scores ``(batch,)``; higher is more relevant.
        """
        tree = Tree(prefix_mask.bool(), attention_mask.bool(), prefix_of)
        ids = torch.cat([prefix_ids.flatten()[tree.prefix_at], input_ids.flatten()[tree.row_at]])
        x, rotary = self._decoder.embed(ids), self._decoder.rotary(tree.positions)
        layers = self._decoder.layers
        for number, layer in enumerate(layers):
            if self._compression is not None and number in self._compression.layers:
                x, tree = compressed(x, tree, ratio=self._compression.ratio, tail=self._compression.tail)
                rotary = self._decoder.rotary(tree.positions)
            x = layer(x, rotary, tree, last_only=number == len(layers) - 1)
        logits = linear(self._decoder.norm(x), self._head).float()  # (b, 1 or 2)
        if self._shape.logit_cap is not None:
            logits = torch.tanh(logits / self._shape.logit_cap) * self._shape.logit_cap
        return (logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1],)


def compressed(x: Tensor, tree: Tree, *, ratio: int, tail: int) -> tuple[Tensor, Tree]:
    """Replace each ``ratio`` neighbouring tokens of a document by their mean; prefixes and the prompt's end stay.

    ``token_compress`` of FlagEmbedding's lightweight reranker. Positions are counted anew.

    Args:
        x: ``(tokens, width)``.
        tree: Which tokens they are.
        ratio: Tokens that become one.
        tail: Last tokens of each row that stay.

    Returns:
        Fewer tokens, and which they are.
    """
    cut, lengths = tree.prefix_tokens, tree.lengths
    row = tree.row_at // tree.mask.shape[1]
    place = tree.row_at % tree.mask.shape[1]
    documents = lengths - tail
    groups = (documents + ratio - 1) // ratio
    inside = place < documents[row]
    group = torch.where(inside, place // ratio, groups[row] + place - documents[row])
    member = torch.where(inside, place % ratio, 0)
    shorter = groups + tail
    starts = shorter.cumsum(dim=0) - shorter
    total = int(shorter.sum())
    parts = x.new_zeros(total * ratio, x.shape[1])
    parts.index_copy_(0, (starts[row] + group) * ratio + member, x[cut:])
    sizes = torch.bincount(starts[row] + group, minlength=total)
    means = parts.view(total, ratio, -1).sum(dim=1) / sizes[:, None].to(x.dtype)
    mask = torch.arange(int(shorter.max()), device=x.device) < shorter[:, None]
    return torch.cat([x[:cut], means]), Tree(tree.prefix_mask, mask, tree.prefix_of)


def _rows(weights: Weights, head: Head, shape: DecoderShape) -> Tensor:
    """The rows that the hidden state of the last token is multiplied with, ``(1 or 2, width)``."""
    if head.tensor:
        return weights[head.tensor]
    return weights.rows("embed_tokens.weight" if shape.tied else "lm_head.weight", head.tokens)
