"""Whether a training is one: its loss and its weights are numbers, and the weights have changed.

The loss is looked at in every step, so that a run that diverges ends at once; the weights when they are about to be
written, so that whatever gave them (best checkpoint, EMA, average, merged adapter), a folder of NaN never appears.
"""

from collections.abc import Callable
from typing import Any

import torch

from ecom_rag.errors import ModelError

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_TRY = "try a smaller schedule.learning_rate (a tenth), a longer schedule.warmup, or schedule.bf16 = false"


def watching(step: Callable[..., Any], number: Callable[[], int], work: object) -> Callable[..., Any]:
    """A trainer's ``training_step`` that ends the run where the loss is NaN or infinite.

    Args:
        step: The trainer's own.
        number: Gives the steps done.
        work: The run's folder, for the message.
    """

    def watched(*positional: Any, **named: Any) -> Any:
        loss = step(*positional, **named)
        if not torch.isfinite(loss).all():
            raise ModelError(
                f"{work}: the loss is {float(loss.sum())} in step {number() + 1}, nothing is written;"
                f" {_TRY}, and remove this folder before the next run"
            )
        return loss

    return watched


def state_of(model: Any) -> dict[str, int]:
    """A number for each weight that is trained; equal weights have equal numbers."""
    return {
        name: int(weight.detach().contiguous().view(_BITS[weight.element_size()]).sum(dtype=torch.int64))
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def check_changed(model: Any, before: dict[str, int], *, steps: int, work: object) -> None:
    """Raise ``ModelError`` where a training has changed nothing.

    Args:
        model: As trained, adapters not merged yet.
        before: ``state_of`` the model at the start.
        steps: Done.
        work: The run's folder, for the message.
    """
    if state_of(model) == before:
        raise ModelError(
            f"{work}: no weight has changed in {steps} steps, nothing is written; try a larger schedule.learning_rate"
            " or more steps, and remove this folder before the next run"
        )


def check_finite(model: Any, *, steps: int, work: object) -> None:
    """Raise ``ModelError`` where a weight that is about to be written is NaN or infinity, heads included."""
    bad = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if bad:
        raise ModelError(
            f"{work}: after {steps} steps {len(bad)} tensors hold NaN or infinity (e.g. {bad[0]}), nothing"
            f" is written; {_TRY}, and remove this folder before the next run"
        )
