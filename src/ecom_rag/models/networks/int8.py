"""A transformer layer with its matrix products in int8: weights by output channel, activations by token.

Both are symmetric and nothing has to be calibrated (Yao et al. 2022, ZeroQuant, arXiv:2206.01861, section 4.2). What
stands between the products is in float32: residual stream, attention, GELU, LayerNorm.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecom_rag.models.checkpoints.weights import Weights
from ecom_rag.models.networks.int8_kernels import add_norm, gelu_quantize, quantize, widen

_ROWS = 256  # tokens that go through the wide layers at once, so that what lies between them stays in the cache


@dataclass(frozen=True, slots=True)
class _Rows:
    """Activations ``q * scale``: ``(rows, dim)`` int8 and ``(rows,)``."""

    q: Tensor
    scales: NDArray[np.float32]


class _Linear:
    """A layer with int8 weights; several of the same input lie side by side."""

    def __init__(self, *parts: tuple[Tensor, Tensor]) -> None:
        weight = torch.cat([weight for weight, _ in parts]).float()  # (out, in)
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-30)
        self._weight = torch.round(weight / scale[:, None]).to(torch.int8).t()
        self.columns: NDArray[np.float32] = scale.numpy()
        self.bias: NDArray[np.float32] = torch.cat([bias for _, bias in parts]).float().numpy()

    def product(self, x: _Rows) -> NDArray[np.int32]:
        """``(rows, out)``, to be scaled by ``x.scales`` and ``columns``."""
        return torch._int_mm(x.q, self._weight).numpy()


class Int8Layer:
    """One layer; takes and gives float32.

    Args:
        weights: Of the checkpoint.
        name: Of the layer in it.
        eps: Of both LayerNorms.
    """

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        self._qkv = _Linear(*(weights.linear(f"{name}.attention.self.{part}") for part in ("query", "key", "value")))
        self._attention_out = _Linear(weights.linear(f"{name}.attention.output.dense"))
        self._up = _Linear(weights.linear(f"{name}.intermediate.dense"))
        self._down = _Linear(weights.linear(f"{name}.output.dense"))
        self._norms = [
            tuple(part.numpy() for part in weights.linear(f"{name}.{place}.LayerNorm"))
            for place in ("attention.output", "output")
        ]
        self._eps = np.float32(eps)

    def qkv(self, x: Tensor) -> Tensor:
        """``(rows, dim)`` to ``(rows, 3 dim)``."""
        out = torch.empty((len(x), len(self._qkv.bias)))
        for start in range(0, len(x), _ROWS):
            rows = _quantized(x[start : start + _ROWS])
            product = self._qkv.product(rows)
            widen(product, rows.scales, self._qkv.columns, self._qkv.bias, out[start : start + _ROWS].numpy())
        return out

    def finish(self, attended: Tensor, x: Tensor) -> Tensor:
        """The layer's output ``(rows, dim)`` of its input ``x`` and what attention gave."""
        out = torch.empty_like(x)
        for start in range(0, len(x), _ROWS):
            part = slice(start, start + _ROWS)
            middle = torch.empty_like(x[part])
            self._add(self._attention_out, _quantized(attended[part]), x[part], 0, middle)
            rows = _quantized(middle)
            wide = _empty(len(middle), len(self._up.bias))
            product = self._up.product(rows)
            gelu_quantize(product, rows.scales, self._up.columns, self._up.bias, wide.q.numpy(), wide.scales)
            self._add(self._down, wide, middle, 1, out[part])
        return out

    def _add(self, layer: _Linear, rows: _Rows, residual: Tensor, norm: int, out: Tensor) -> None:
        gain, shift = self._norms[norm]
        product = layer.product(rows)
        add_norm(product, rows.scales, layer.columns, layer.bias, residual.numpy(), gain, shift, self._eps, out.numpy())


def _empty(rows: int, width: int) -> _Rows:
    return _Rows(torch.empty((rows, width), dtype=torch.int8), np.empty(rows, np.float32))


def _quantized(x: Tensor) -> _Rows:
    rows = _empty(*x.shape)
    quantize(x.numpy(), rows.q.numpy(), rows.scales)
    return rows
