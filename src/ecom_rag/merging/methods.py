"""Ways to merge weights: one method, one pure function over tensors, and its paper.

All work in float32 (float64 for float64 tensors), whatever the tensors' dtype, and give back the dtype of the first (or
of the base). Where a method is mergekit's, the numbers are mergekit's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecom_rag.arguments import listed
from ecom_rag.errors import UsageError
from ecom_rag.retrieval.weights import MOST, check_weights, is_weight
from ecom_rag.values import scalar, shown

METHODS = ("linear", "slerp", "task-arithmetic", "ties")
WITH_BASE = ("task-arithmetic", "ties")
_NEARLY_PARALLEL = 0.9995
_TINY = 1e-8
_AT_ONCE = 1 << 20  # numbers of a tensor: what stands between stays in the cache


@dataclass(frozen=True, slots=True)
class Mix:
    """How models are merged.

    Args:
        weights: Of each model; one row a block of layers (see ``block_of``), so that one row is the whole model.
        method: One of ``METHODS``.
        density: Share of each task vector that ``ties`` keeps, above 0, at most 1; the paper's is 0.2.
        scale: The papers' lambda: what the merged task vector is multiplied by before it is added to the base.
    """

    weights: tuple[tuple[float, ...], ...]
    method: str = "linear"
    density: float = 0.2
    scale: float = 1.0


def check_mix(mix: Mix, models: int, *, has_base: bool) -> Mix:
    """Refuse what makes no sense, and give ``slerp`` and ``linear`` weights that sum to 1.

    Args:
        mix: What was asked for.
        models: How many models are merged.
        has_base: Whether a base was named.

    Raises:
        UsageError: Weights, density or scale out of range, or models that do not fit the method.
    """
    if mix.method not in METHODS:
        raise UsageError(f"method {mix.method!r} is unknown; expected one of {', '.join(METHODS)}")
    if mix.method in WITH_BASE and not has_base:
        raise UsageError(f"method {mix.method} adds what models learned to a base; name it with `base`")
    if mix.method == "slerp" and models != 2:
        raise UsageError(f"method slerp walks from one model to another; expected 2 models, found {models}")
    if models < 1 or (models < 2 and mix.method not in WITH_BASE):
        raise UsageError(f"{models} models cannot be merged by {mix.method}; name at least 2")
    rows = [listed(row, "weights", "one number for each model") for row in listed(mix.weights, "weights", "rows")]
    for row in rows:
        if len(row) != models:
            raise UsageError(f"weights {shown(row)} do not fit; expected one number for each of the {models} models")
        if mix.method not in WITH_BASE:
            check_weights({f"model {place}": weight for place, weight in enumerate(row, 1)}, of="weights of")
        elif not all(map(_is_signed_weight, row)):  # one below 0 takes away what a model learned
            raise UsageError(f"weights {shown(row)} do not fit; expected numbers from -{MOST:g} to {MOST:g}")
    if not rows:
        raise UsageError("no weights; expected one number for each model")
    if not _is_signed_weight(mix.density) or not 0 < mix.density <= 1:
        raise UsageError(f"density is {shown(mix.density)}; expected a share above 0, at most 1")
    if not _is_signed_weight(mix.scale):
        raise UsageError(f"lambda is {shown(mix.scale)}; expected a number from -{MOST:g} to {MOST:g}")
    if mix.method in WITH_BASE:
        return mix
    return replace(mix, weights=tuple(tuple(weight / sum(row) for weight in row) for row in rows))


def _is_signed_weight(value: Any) -> bool:
    own = scalar(value)
    return isinstance(own, int | float) and is_weight(abs(own) if not isinstance(own, bool) else own)


def apply(mix: Mix, tensors: Sequence[Tensor], base: Tensor | None, *, block: int = 0) -> Tensor:
    """Merge one tensor of each model as ``mix`` says.

    Args:
        mix: Checked by ``check_mix``.
        tensors: One a model, of one shape.
        base: The base's, for the methods that have one.
        block: Row of the weights.
    """
    weights = mix.weights[block]
    if mix.method == "linear":
        return linear(tensors, weights)
    if mix.method == "slerp":
        return slerp(tensors[0], tensors[1], t=weights[1])
    assert base is not None
    if mix.method == "task-arithmetic":
        return task_arithmetic(base, tensors, weights, scale=mix.scale)
    return ties(base, tensors, weights, density=mix.density, scale=mix.scale)


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean: model soups (Wortsman et al. 2022, arXiv:2203.05482).

    Args:
        tensors: One a model, of one shape.
        weights: Divided by their sum.
    """
    first = tensors[0]
    total = torch.zeros_like(first, dtype=_working(first))
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor.to(total.dtype), alpha=weight)
    return total.div_(sum(weights)).to(first.dtype)


def slerp(first: Tensor, second: Tensor, *, t: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985), of the tensors as flat vectors that keep their own lengths.

    ``sin((1 - t) a) / sin(a) * first + sin(t a) / sin(a) * second`` with the angle ``a`` between the two; nearly
    parallel or opposite ones (cosine beyond 0.9995) are interpolated linearly.

    Args:
        first: What ``t = 0`` gives.
        second: What ``t = 1`` gives.
        t: How far to go, 0 to 1.
    """
    working = _working(first)
    left, right = first.to(working), second.to(working)
    cosine = float((_direction(left) * _direction(right)).sum().clamp(-1, 1))
    from_first, from_second = 1 - t, t
    if abs(cosine) <= _NEARLY_PARALLEL:
        angle = math.acos(cosine)
        from_first, from_second = (math.sin(share * angle) / math.sin(angle) for share in (1 - t, t))
    return (from_first * left + from_second * right).to(first.dtype)


def task_arithmetic(base: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], *, scale: float = 1.0) -> Tensor:
    """``base + scale * sum_i w_i (tensor_i - base)``: task vectors (Ilharco et al. 2023, arXiv:2212.04089).

    Args:
        base: What the models were tuned from.
        tensors: One a tuned model.
        weights: Used as they are; a negative one takes away what a model learned.
        scale: The paper's lambda.
    """
    start = base.to(_working(base))
    learned = torch.zeros_like(start)
    for tensor, weight in zip(tensors, weights, strict=True):
        learned.add_(tensor.to(start.dtype) - start, alpha=weight)
    return (start + scale * learned).to(base.dtype)


def ties(
    base: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], *, density: float = 0.2, scale: float = 1.0
) -> Tensor:
    """TIES (Yadav et al. 2023, arXiv:2306.01708): trim each task vector, elect signs, average those that agree.

    As mergekit does, the largest values are kept in each tensor (in the paper, over all tensors of a model together),
    signs are elected by the weighted sum, and the mean is weighted.

    Args:
        base: What the models were tuned from.
        tensors: One a tuned model.
        weights: Of each model, in the election and in the mean.
        density: Share of each task vector that is kept.
        scale: The paper's lambda.
    """
    start = base.to(_working(base))
    trimmed = [
        _trim(tensor.to(start.dtype) - start, density).mul_(weight)
        for tensor, weight in zip(tensors, weights, strict=True)
    ]
    merged = torch.empty(start.numel(), dtype=start.dtype)
    flat = [one.reshape(-1) for one in (start, *trimmed)]
    for first in range(0, len(merged), _AT_ONCE):
        own, *learned = (one[first : first + _AT_ONCE] for one in flat)
        merged[first : first + _AT_ONCE] = own + scale * _agreed(learned, weights)
    return merged.reshape(start.shape).to(base.dtype)


def _agreed(trimmed: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Of each number the weighted mean of the task vectors that have the elected sign; they come weighted."""
    elected = torch.where(torch.stack(list(trimmed)).sum(dim=0) >= 0, 1.0, -1.0).to(trimmed[0].dtype)
    agreed, shares = torch.zeros_like(elected), torch.zeros_like(elected)
    for learned, weight in zip(trimmed, weights, strict=True):
        agrees = learned.sign() == elected
        agreed += learned * agrees
        shares += weight * agrees
    shares[shares == 0] = 1
    return agreed / shares


def _trim(learned: Tensor, density: float) -> Tensor:
    """The task vector with all but its largest values at zero; of equal ones the earlier stay."""
    if density >= 1 or learned.numel() == 0:
        return learned
    keep = max(1, int(density * learned.numel()))
    flat = learned.reshape(-1)
    sizes = flat.abs()
    least = float(np.partition(sizes.numpy(), len(sizes) - keep)[-keep])
    kept = sizes > least
    if least > 0:  # zeros stay zeros
        kept[torch.nonzero(sizes == least).reshape(-1)[: keep - int(kept.sum())]] = True
    return flat.mul_(kept).reshape(learned.shape)


def _direction(tensor: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(tensor)
    return tensor / length if length > _TINY else tensor


def _working(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
