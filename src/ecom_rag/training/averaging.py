"""The mean of a run's best checkpoints (model soups, Wortsman et al. 2022, arXiv:2203.05482), kept where better."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecom_rag.training.callbacks import complete_checkpoints, dev_figures, step_of


def best_average(
    model: Any,
    load: Callable[[str], None],
    work: Path,
    log: list[dict[str, Any]],
    count: int,
    dev: Any,
    best: float,
) -> dict[str, Any]:
    """Average the best checkpoints; the model keeps the average if the dev measure is higher.

    Args:
        model: Holds the best checkpoint's weights; left with them or with the average.
        load: Puts a checkpoint's weights into the model.
        work: Where the checkpoints lie.
        log: The trainer's history, which has their dev measures.
        count: How many to average.
        dev: The dev measure.
        best: What the model has now.

    Returns:
        ``steps`` averaged, the ``value`` of the average and whether it was ``kept``.
    """
    figures = dev_figures(log, dev.primary_metric)
    there = {step_of(path): path for path in complete_checkpoints(work)}
    steps = sorted((step for step in there if step in figures), key=lambda step: (-figures[step], step))[:count]
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    mean: dict[str, Tensor] = {}
    for step in steps:
        load(str(there[step]))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mean[name] = mean.get(name, torch.zeros_like(value, dtype=torch.float64)) + value.double() / len(steps)
    model.load_state_dict({name: mean[name].to(old.dtype) if name in mean else old for name, old in before.items()})
    value = float(dev(model)[dev.primary_metric])
    if not value > best:  # NaN is no gain either
        model.load_state_dict(before)
    return {"steps": sorted(steps), "value": value, "kept": value > best}
