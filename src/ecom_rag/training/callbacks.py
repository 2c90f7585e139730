"""What hooks into the trainer: the sampler's epoch, the EMA, complete checkpoints, early stopping, progress."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor
from transformers import TrainerCallback

from ecom_rag.files import disk
from ecom_rag.models.checkpoints.weights import read_tensors
from ecom_rag.training.losses.distributed import world
from ecom_rag.training.plan import Plan

_MARK = "complete"
_EMA = "ema.pt"


def complete_checkpoints(work: Path) -> list[Path]:
    """Checkpoints that were written to the end, oldest first; what a kill left half written is not among them."""
    found = [path for path in work.glob("checkpoint-*") if (path / _MARK).exists()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.rpartition("-")[2])


def dev_figures(log: list[dict[str, Any]], measure: str | None) -> dict[int, float]:
    """The dev measure at each step that was validated, from a trainer's history."""
    return {entry["step"]: entry[f"eval_{measure}"] for entry in log if f"eval_{measure}" in entry}


def patience_spent(log: list[dict[str, Any]], measure: str | None, patience: int | None) -> bool:
    """Whether the last ``patience`` validations brought no gain. From the history, so that resuming changes nothing."""
    figures = list(dev_figures(log, measure).values())
    if patience is None or not figures:
        return False
    return len(figures) - 1 - figures.index(max(figures)) >= patience


class Hooks(TrainerCallback):
    """Called by the trainer as it goes.

    Args:
        model: The model in training.
        plan: Its sampler, its dev measure if there is one, and the recipe, which says how the weights are averaged,
            which checkpoints are kept and when to stop.
        progress: Called with step, number of steps, the latest figures, and whether a validation has just been made.
        resume_from: Checkpoint whose EMA is gone on with.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan,
        *,
        progress: Callable[[int, int, dict[str, float], bool], None] | None,
        resume_from: Path | None,
    ) -> None:
        recipe = plan.recipe
        self._model, self._batches, self._progress = model, plan.batches, progress
        self._decay, self._measure, self._patience = recipe.averaging.ema_decay, plan.measure, recipe.schedule.patience
        self._keep = recipe.schedule.keep
        self._keep_best = max(self._keep - 1, recipe.averaging.best_checkpoints)
        self._figures: dict[str, float] = {}
        self._ema: dict[str, Tensor] = {}
        if self._decay:
            self._ema = {name: weight.detach().clone() for name, weight in self._weights()}
            if resume_from:
                self._load(resume_from)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The sampler's epoch, which accelerate does not pass through all of its wrappers."""
        self._batches.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step of the EMA."""
        if self._ema:
            # With a fixed decay the average would stay near the untrained weights for long.
            decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
            for name, weight in self._weights():
                self._ema[name].lerp_(weight.detach(), 1 - decay)
        self._tell(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The latest loss and dev measure."""
        logs = logs or {}
        noise = ("_runtime", "_second")
        kept = {
            key.removeprefix("eval_"): value
            for key, value in logs.items()
            if key == "loss" or (key.startswith("eval_") and not key.endswith(noise))
        }
        self._figures.update(kept)
        self._tell(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A validation: the run ends where there was no gain for long."""
        self._tell(state, validated=True)
        if patience_spent(state.log_history, self._measure, self._patience):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The EMA beside the weights, then the mark that the checkpoint is complete, then older ones go."""
        if world() > 1:
            torch.distributed.barrier()  # every rank has written its random states
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._ema:
            torch.save(self._ema, folder / _EMA)
        disk.sync_tree(folder)
        (folder / _MARK).touch()
        disk.sync_folder(folder)
        self._drop_checkpoints(folder.parent, state.log_history)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights, if there are any, for as long as the block lasts."""
        if not self._ema:
            yield
            return
        kept = {name: weight.detach().clone() for name, weight in self._weights()}
        self._put(self._ema)
        try:
            yield
        finally:
            self._put(kept)

    def validating_average(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        """The trainer's ``evaluate`` over the averaged weights, since they are what will be written.

        On every rank, and around all of it: the evaluation deals texts out to the other ranks' models.
        """

        def evaluate_average(*positional: Any, **named: Any) -> Any:
            with self.averaged():
                return evaluate(*positional, **named)

        return evaluate_average

    def use_ema(self, checkpoint: Path | None) -> None:
        """Put the averaged weights into the model for good: the last ones, or those of a checkpoint."""
        if self._ema:
            if checkpoint:
                self._load(checkpoint)
            self._put(self._ema)

    def _drop_checkpoints(self, work: Path, log: list[dict[str, Any]]) -> None:
        """All but the newest and the best ones; without a dev measure the newest ones stay."""
        done = complete_checkpoints(work)
        figures = dev_figures(log, self._measure)
        ranked = sorted(done, key=lambda path: (-figures.get(step_of(path), float("-inf")), step_of(path)))
        kept = {done[-1], *ranked[: self._keep_best]} if self._measure else set(done[-self._keep :])
        for folder in set(done) - kept:
            (folder / _MARK).unlink()
            shutil.rmtree(folder)

    def _load(self, checkpoint: Path) -> None:
        device = self._model.device
        self._ema = {name: weight.to(device) for name, weight in read_tensors(checkpoint / _EMA).items()}

    def _weights(self) -> Iterator[tuple[str, Any]]:
        return ((name, weight) for name, weight in self._model.named_parameters() if weight.requires_grad)

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self._weights():
                weight.copy_(weights[name])

    def _tell(self, state: Any, *, validated: bool = False) -> None:
        if self._progress is not None and state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._figures, validated)


class DevEvaluator(BaseEvaluator):
    """A dev measure as the trainer calls it."""

    def __init__(self, dev: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dev = dev
        self.primary_metric = dev.primary_metric

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The measure, by its name."""
        found: dict[str, float] = self._dev(model)
        return found
