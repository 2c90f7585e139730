"""Decoders (Llama, Mistral, Qwen, Gemma, MiniCPM) over rows that share their first tokens, each of which runs once.

The tokens of a batch lie below each other without padding: first those of the distinct prefixes, then those of the
rows. All matrix products go over them at once; only attention sees the tree. A token of a row attends to its prefix
and to its own row, so that a hundred candidates of one query pay for the query once, with the same numbers as if each
had read it. What a score does not need is left out: layers behind the exit, and in the last one all but the last token.

Numbers are those of transformers' own modules. Grouped heads: Ainslie et al. 2023, rotary
positions: Su et al. 2021.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ecom_rag.models.checkpoints.weights import Weights
from ecom_rag.models.networks.decoder_shape import DecoderShape


@dataclass(frozen=True)
class Tree:
    """Which tokens a batch has: ``p`` prefixes and ``b`` rows that go on from them.

    Args:
        prefix_mask: ``(p, prefix length)`` bool, padded on the right, at least one token each.
        mask: ``(b, row length)`` bool, likewise.
        prefix_of: ``(b,)`` the prefix of each row.
    """

    prefix_mask: Tensor
    mask: Tensor
    prefix_of: Tensor
    _seen: dict[int | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @cached_property
    def prefix_tokens(self) -> int:
        """How many of the tokens are those of prefixes; they come first."""
        return int(self.prefix_mask.sum())

    @cached_property
    def lengths(self) -> Tensor:
        """``(b,)`` of the rows, without their prefixes."""
        return self.mask.sum(dim=1)

    @cached_property
    def last(self) -> Tensor:
        """``(b,)`` where the last token of each row lies among all tokens."""
        return self.prefix_tokens + self.lengths.cumsum(dim=0) - 1

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """``(p, prefix length)`` and ``(b, row length)`` positions; rows go on where their prefix ends."""
        starts = self.prefix_mask.sum(dim=1)[self.prefix_of]
        of_prefix, of_row = (torch.arange(m.shape[1], device=m.device) for m in (self.prefix_mask, self.mask))
        return of_prefix.expand(self.prefix_mask.shape), starts[:, None] + of_row

    @cached_property
    def positions(self) -> Tensor:
        """``(tokens,)`` the position of each token in its text."""
        of_prefix, of_row = self.places
        return torch.cat([of_prefix.flatten()[self.prefix_at], of_row.flatten()[self.row_at]])

    @cached_property
    def prefix_at(self) -> Tensor:
        """``(prefix tokens,)`` where they lie in ``prefix_mask``, flattened."""
        return self.prefix_mask.flatten().nonzero()[:, 0]

    @cached_property
    def row_at(self) -> Tensor:
        """``(tokens of rows,)`` where they lie in ``mask``, flattened."""
        return self.mask.flatten().nonzero()[:, 0]

    def padded_prefixes(self, x: Tensor) -> Tensor:
        """``(prefix tokens, ...)`` to ``(p, prefix length, ...)``."""
        return _padded(x, self.prefix_mask, self.prefix_at)

    def padded_rows(self, x: Tensor) -> Tensor:
        """``(tokens of rows, ...)`` to ``(b, row length, ...)``."""
        return _padded(x, self.mask, self.row_at)

    def seen(self, window: int | None) -> tuple[Tensor, Tensor]:
        """What is attended to: ``(p, 1, asked, prefix)``, and ``(b, 1, asked, prefix then row)``; bool."""
        if window not in self._seen:
            of_prefix, of_row = self.places
            keys = torch.cat([of_prefix[self.prefix_of], of_row], dim=1)  # (b, Lp + L)
            real = torch.cat([self.prefix_mask[self.prefix_of], self.mask], dim=1)
            in_prefix = _seen(of_prefix, of_prefix, self.prefix_mask, window)
            self._seen[window] = in_prefix, _seen(of_row, keys, real, window)
        return self._seen[window]


class Decoder(nn.Module):
    """Token embeddings and the first layers of a decoder.

    Args:
        weights: Of the checkpoint.
        shape: Of the network.
        layers: How many layers run.
        dtype: Of weights and hidden states.
    """

    def __init__(self, weights: Weights, shape: DecoderShape, *, layers: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._shape = shape
        self._words = _fixed(weights["embed_tokens.weight"], dtype)
        self.layers = nn.ModuleList(
            DecoderLayer(weights, f"layers.{number}", shape, shape.windows[number], dtype) for number in range(layers)
        )
        self.norm = _Norm(weights["norm.weight"], shape, dtype)

    def embed(self, ids: Tensor) -> Tensor:
        """``(tokens,)`` ids to ``(tokens, width)``."""
        words = self._words[ids]
        scale = self._shape.embedding_scale
        return words if scale == 1 else words * torch.tensor(scale, dtype=words.dtype)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``(tokens,)`` positions to their cosines and sines, ``(tokens, 1, head_dim)`` each."""
        angles = positions[:, None].float() * self._shape.frequencies.to(positions.device)
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        scale, dtype = self._shape.rotary_scale, self._words.dtype
        return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


class DecoderLayer(nn.Module):
    """One layer: attention and the gated feed-forward half, each added to what came in."""

    def __init__(
        self, weights: Weights, name: str, shape: DecoderShape, window: int | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        def norm(part: str) -> _Norm:
            return _Norm(weights[f"{name}.{part}.weight"], shape, dtype)

        def joined(*parts: str, bias: bool) -> _Linear:
            return _Linear(weights, [f"{name}.{part}" for part in parts], dtype, bias=bias)

        before, behind, feed = shape.biases
        self._shape = shape
        self._window = window
        self._qkv = joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=before)
        self._out = joined("self_attn.o_proj", bias=behind)
        self._up = joined("mlp.gate_proj", "mlp.up_proj", bias=feed)
        self._down = joined("mlp.down_proj", bias=feed)
        self._activation = ACT2FN[shape.activation]
        self._query_norm = norm("self_attn.q_norm") if shape.head_norms else None
        self._key_norm = norm("self_attn.k_norm") if shape.head_norms else None
        self._attention_norm = norm("input_layernorm")
        self._attention_end = norm("post_attention_layernorm") if shape.sandwich else None
        self._norm = norm("pre_feedforward_layernorm" if shape.sandwich else "post_attention_layernorm")
        self._end = norm("post_feedforward_layernorm") if shape.sandwich else None

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], tree: Tree, *, last_only: bool = False) -> Tensor:
        """Run the layer.

        Args:
            x: ``(tokens, width)``.
            rotary: Of the tokens' positions.
            tree: Which tokens they are.
            last_only: Give only the last token of each row.

        Returns:
            ``(tokens, width)``, or ``(b, width)``.
        """
        shape = self._shape
        query_rows = shape.heads * shape.head_dim
        normed = self._attention_norm(x)
        asked = normed[tree.last] if last_only else normed
        q = self._qkv(asked, slice(None, query_rows)).view(-1, shape.heads, shape.head_dim)
        k, v = self._qkv(normed, slice(query_rows, None)).view(-1, 2 * shape.key_heads, shape.head_dim).chunk(2, dim=1)
        q = q if self._query_norm is None else self._query_norm(q)
        k = k if self._key_norm is None else self._key_norm(k)
        k = _rotated(k, *rotary)
        if last_only:
            x, rotary = x[tree.last], (rotary[0][tree.last], rotary[1][tree.last])
        attended = self._attend(_rotated(q, *rotary), k, v, tree, last_only=last_only)
        x = self._add(x, self._out(attended.flatten(1)), self._attention_end)
        gate, up = self._up(self._norm(x)).chunk(2, dim=-1)
        return self._add(x, self._down(self._activation(gate) * up), self._end)

    def _add(self, x: Tensor, found: Tensor, end: "_Norm | None") -> Tensor:
        found = found if end is None else end(found)
        return x + (found if self._shape.residual_scale == 1 else found * self._shape.residual_scale)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, tree: Tree, *, last_only: bool) -> Tensor:
        """Attention of all tokens, or of the last of each row: ``(tokens or rows, heads, head_dim)``, as ``q``."""
        cut = tree.prefix_tokens
        of_prefixes, of_rows = tree.seen(self._window)
        prefix_k, prefix_v = (tree.padded_prefixes(part[:cut]) for part in (k, v))
        keys, values = (
            torch.cat([shared[tree.prefix_of], tree.padded_rows(own[cut:])], dim=1)
            for shared, own in ((prefix_k, k), (prefix_v, v))
        )  # (b, Lp + L, key heads, head_dim)
        if last_only:
            places = (tree.lengths - 1)[:, None, None, None].expand(-1, 1, 1, of_rows.shape[-1])
            return self._softmax(q[:, None], keys, values, of_rows.gather(2, places))[:, 0]
        in_prefixes = self._softmax(tree.padded_prefixes(q[:cut]), prefix_k, prefix_v, of_prefixes)
        in_rows = self._softmax(tree.padded_rows(q[cut:]), keys, values, of_rows)
        return torch.cat([in_prefixes.flatten(0, 1)[tree.prefix_at], in_rows.flatten(0, 1)[tree.row_at]])

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """Of ``(n, asked, heads, head_dim)`` queries and ``(n, length, key heads, head_dim)``: as the queries."""
        shape = self._shape
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if shape.attention_cap is None:
            found = scaled_dot_product_attention(
                q, k, v, attn_mask=seen, scale=shape.attention_scale, enable_gqa=shape.heads != shape.key_heads
            )
            return found.transpose(1, 2)
        k, v = (part.repeat_interleave(shape.heads // shape.key_heads, dim=1) for part in (k, v))
        products = torch.tanh(q @ k.transpose(2, 3) * (shape.attention_scale / shape.attention_cap))
        products = (products * shape.attention_cap).masked_fill(~seen, torch.finfo(q.dtype).min)
        return (products.softmax(dim=-1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2)


class _Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019), in float32 whatever the precision."""

    def __init__(self, weight: Tensor, shape: DecoderShape, dtype: torch.dtype) -> None:
        super().__init__()
        self._eps = shape.eps
        self._offset = shape.norm_offset
        self._weight = _fixed(weight, dtype)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self._eps)
        if self._offset:
            return (wide * (self._weight.float() + self._offset)).to(x.dtype)
        return wide.to(x.dtype) * self._weight


class _Linear(nn.Module):
    """Layers of the same input side by side."""

    def __init__(self, weights: Weights, names: list[str], dtype: torch.dtype, *, bias: bool) -> None:
        super().__init__()
        self._weight = _fixed(torch.cat([weights[f"{name}.weight"].to(dtype) for name in names]), dtype)
        self._bias = _fixed(torch.cat([weights[f"{name}.bias"] for name in names]), dtype) if bias else None

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        return linear(x, self._weight[rows], None if self._bias is None else self._bias[rows])


def _fixed(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(tensor.to(dtype), requires_grad=False)


def _seen(asked: Tensor, keys: Tensor, real: Tensor, window: int | None) -> Tensor:
    """``(n, 1, asked, keys)``: keys that are real, not later, and within the window."""
    back = asked[:, None, :, None] - keys[:, None, None, :]
    seen = (back >= 0) & real[:, None, None, :]
    return seen if window is None else seen & (back < window)


def _padded(x: Tensor, mask: Tensor, at: Tensor) -> Tensor:
    """``(tokens, ...)`` to ``(n, length, ...)``, with zeros where no token is."""
    return x.new_zeros(mask.numel(), *x.shape[1:]).index_copy_(0, at, x).view(*mask.shape, *x.shape[1:])


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """``(tokens, heads, head_dim)``, turned by the angles of the positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines
