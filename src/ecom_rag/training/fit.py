"""A training run from recipe to finished folder: check, load, train, pick the best, write.

While a run is under way its state lies in ``OUTPUT.partial/``: ``run.json`` with what was asked, and the trainer's
checkpoints. The output folder appears only when complete. Everything that decides the weights is restored on resuming:
optimizer, scheduler, random states, the EMA, and the sampler's place, so that a killed and resumed run ends with the
weights of an uninterrupted one.
"""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ecom_rag.errors import UsageError
from ecom_rag.files import workfolders
from ecom_rag.models.runtimes import cpu
from ecom_rag.training import adapters, checkpoints, embedding_rows, health, report
from ecom_rag.training.averaging import best_average
from ecom_rag.training.callbacks import Hooks, patience_spent, step_of
from ecom_rag.training.losses.distributed import world
from ecom_rag.training.plan import Plan, make_plan
from ecom_rag.training.recipe import Recipe
from ecom_rag.training.runs import alone, baseline, clear, finished_report, open_run
from ecom_rag.training.trainer import make_trainer

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, dict[str, float], bool], None]  # step, of steps, figures, whether just validated


def train(recipe: Recipe, *, resume: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Run a recipe.

    Args:
        recipe: What to do.
        resume: Go on with an unfinished run of the same recipe and data, if there is one.
        progress: Called after steps, logs and validations.

    Returns:
        The report, as in ``train_report.json``.

    Raises:
        EcomRagError: Anything the user can mend; all of it is found before training starts.
    """
    output = Path(recipe.output)
    work = workfolders.partial(output)
    if resume and (report_of_before := finished_report(output, work)):
        return report_of_before
    workfolders.check_new(output)
    with alone(work):
        return _train(recipe, output, work, resume=resume, progress=progress)


def _train(recipe: Recipe, output: Path, work: Path, *, resume: bool, progress: Progress | None) -> dict[str, Any]:
    plan = make_plan(recipe)
    recipe, asked = plan.recipe, plan.asked()
    resume_from = open_run(work, asked, resume)
    if recipe.schedule.bf16 and checkpoints.on_cpu(recipe) and not cpu.prefers_bf16():
        logger.warning("schedule.bf16 makes training slower on this CPU, which multiplies float32 faster; leave it out")
    torch.manual_seed(recipe.seed)
    model = checkpoints.load(recipe, plan.start)
    embedding_rows.train_only(model, plan.used)
    hooks = Hooks(model, plan, progress=progress, resume_from=resume_from)
    trainer = make_trainer(plan, model, hooks, work)
    untrained = health.state_of(model)
    before = baseline(work, plan.dev, model, resume_from)
    seconds = _run(plan, trainer, resume_from)
    figures = _finish_weights(plan, trainer, model, hooks, before, work, untrained)
    if world() > 1:
        torch.distributed.barrier()  # the other ranks may still be reading checkpoints, which are removed below
    steps = trainer.state.global_step
    found = {
        "recipe": recipe.as_dict(),
        "model_fingerprint": asked["model"],
        "data": report.described(plan.data, asked["data"]),
        "versions": report.versions(),
        "device": str(model.device),
        "steps": steps,
        "seconds": round(seconds, 1),
        "resumed_at_step": step_of(resume_from) if resume_from else None,
        "dev": figures,
        "sampling": report.epochs_shown(plan.batches, steps, recipe.schedule.gradient_accumulation),
        "log": trainer.state.log_history,
    }
    if trainer.is_world_process_zero():
        _write(plan, model, found, output, work)
    return found


def _run(plan: Plan, trainer: Any, resume_from: Path | None) -> float:
    """Train from the start or from a checkpoint; gives the seconds that it took."""
    started = time.monotonic()
    if resume_from is None or not _ended_at(resume_from, plan, trainer):
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except torch.OutOfMemoryError:
            raise UsageError(
                "the GPU's memory is too small for a batch; set schedule.mini_batch (e.g. 32), or make"
                " sampling.batch_size or data.max_length smaller"
            ) from None
    return time.monotonic() - started


def _ended_at(checkpoint: Path, plan: Plan, trainer: Any) -> bool:
    """Whether a run was killed after its last step; then it is put where it was, since the trainer would step on."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    spent = patience_spent(state.log_history, plan.measure, plan.recipe.schedule.patience)
    if state.global_step < state.max_steps and not spent:
        return False
    trainer.state = state
    trainer._load_from_checkpoint(str(state.best_model_checkpoint or checkpoint))
    return True


def _finish_weights(
    plan: Plan,
    trainer: Any,
    model: Any,
    hooks: Hooks,
    before: float | None,
    work: Path,
    untrained: dict[str, int],
) -> dict[str, Any] | None:
    """Put the best weights into the model: of the best checkpoint, averaged over steps or checkpoints where asked."""
    recipe, dev = plan.recipe, plan.dev
    best = Path(trainer.state.best_model_checkpoint) if dev and trainer.state.best_model_checkpoint else None
    hooks.use_ema(best)
    figures: dict[str, Any] | None = None
    if dev:
        measure = dev.primary_metric
        # The best checkpoint was measured when it was written.
        after = float(trainer.state.best_metric) if best else float(dev(model)[measure])
        figures = {
            "measure": measure,
            "data": dev.size,
            "before": before,
            "after": after,
            "best_step": trainer.state.best_global_step,
        }
        if recipe.averaging.best_checkpoints > 1:
            log, count = trainer.state.log_history, recipe.averaging.best_checkpoints
            average = best_average(model, trainer._load_from_checkpoint, work, log, count, dev, after)
            figures["average"] = average
            figures["after"] = max(after, average["value"])
    health.check_changed(model, untrained, steps=trainer.state.global_step, work=work)
    if recipe.lora.rank:
        if trainer.is_world_process_zero():
            adapters.save(model, work / adapters.FOLDER, recipe.model)
        adapters.merge(model)
    health.check_finite(model, steps=trainer.state.global_step, work=work)
    return figures


def _write(plan: Plan, model: Any, found: dict[str, Any], output: Path, work: Path) -> None:
    fresh = work / "finished"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    checkpoints.save(model, fresh, plan.start)
    if plan.recipe.lora.rank:
        shutil.copytree(work / adapters.FOLDER, fresh / adapters.FOLDER)
    report.write_report(fresh, found)
    workfolders.publish(fresh, output)
    clear(work)
