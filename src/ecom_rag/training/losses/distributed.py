"""What the losses need to know of several GPUs: columns gathered with their gradients, and means over all rows."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if world() > 1 else 0


class _Gather(torch.autograd.Function):
    """All-gather along the first dimension whose backward sums each rank's gradient for our rows.

    ``torch.distributed.all_gather`` alone cuts the gradient to the other ranks' rows. With rows local and columns
    gathered, the sum here and the mean that DDP takes over ranks make the gradient of one big batch.
    """

    @staticmethod
    def forward(context: Any, local: Tensor) -> Tensor:
        context.rows = local.shape[0]
        parts = [torch.empty_like(local) for _ in range(world())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        start = rank() * context.rows
        return summed[start : start + context.rows]


def gather(local: Tensor) -> Tensor:
    """The rows of all ranks in rank order, differentiable; the tensor itself where there is one process.

    Args:
        local: ``(n, ...)``, of equal shape on every rank (the batch samplers see to it).

    Returns:
        ``(world * n, ...)``; the rows of rank r are ``r * n`` to ``(r + 1) * n``.
    """
    if world() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)  # type: ignore[no-untyped-call]
    return gathered


def mean_over_rows(losses: Tensor) -> Tensor:
    """The mean of row losses over all ranks; 0, with zero gradients, where no rank has a row.

    Args:
        losses: ``(rows that count,)``; the number of rows may differ from rank to rank.

    Returns:
        A scalar. On several ranks its mean over ranks is the mean over all rows, which is what DDP's averaging of
        gradients needs; on one rank it is the plain mean.
    """
    count = torch.tensor(float(losses.numel()), device=losses.device)
    if world() > 1:
        dist.all_reduce(count)
    return losses.sum() * (world() / count.clamp(min=1))
