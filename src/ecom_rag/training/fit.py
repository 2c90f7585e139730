"""A training run from recipe to finished folder: check, load, train, pick the best, write.

While a run is under way its state lies in ``OUTPUT.partial/``: ``run.json`` with what was asked, and the trainer's
checkpoints. The output folder appears only when complete. Everything that decides the weights is restored on resuming:
optimizer, scheduler, random states, the EMA, and the sampler's place, so that a killed and resumed run ends with the
weights of an uninterrupted one.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecom_rag.errors import UsageError
from ecom_rag.files import workfolders
from ecom_rag.models.checkpoints.checkpoint import Checkpoint
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.runtimes import cpu
from ecom_rag.text.near_duplicates import near_duplicates
from ecom_rag.training import checkpoints, health, report
from ecom_rag.training.averaging import best_average
from ecom_rag.training.batches import Batches
from ecom_rag.training.callbacks import DevEvaluator, Hooks, patience_spent, step_of
from ecom_rag.training.collate import GroupCollator, LabelledCollator
from ecom_rag.training.data import Groups, Labelled, read_data
from ecom_rag.training.dev import make_dev
from ecom_rag.training.idle import check_keys
from ecom_rag.training.losses.distributed import world
from ecom_rag.training.modules import EmbedderLoss, RerankerLoss
from ecom_rag.training.recipe import OVER_GROUPS, OVER_LABELS, Recipe
from ecom_rag.training.runs import alone, baseline, clear, finished_report, open_run
from ecom_rag.training.sampling import pk_batches, row_batches

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
    data = read_data(recipe.data.train, recipe.data.train_split, recipe)
    recipe = _check_loss(_with_loss_name(recipe, data), data)
    check_keys(recipe, labelled=isinstance(data, Labelled))
    folder = locate(recipe.model, reranker=recipe.task == "reranker")
    checkpoint = checkpoints.base_checkpoint(recipe) if recipe.task == "embedder" else None
    length = checkpoint.max_length if checkpoint else checkpoints.reranker_length(recipe)
    tokenizer = Tokenizer(folder)
    dev = make_dev(recipe, data, tokenizer, length)
    batches = make_batches(recipe, data, world=int(os.environ.get("WORLD_SIZE", "1")))
    asked: dict[str, Any] = {
        "recipe": recipe.as_dict(),
        "model": fingerprint(folder),
        "data": _digest(data),
        "dev data": _files_digest(recipe.data.dev),
    }
    resume_from = open_run(work, asked, resume)

    if recipe.schedule.bf16 and _on_cpu(recipe) and not cpu.prefers_bf16():
        logger.warning("schedule.bf16 makes training slower on this CPU; on one without AMX leave it out")
    torch.manual_seed(recipe.seed)
    model = checkpoints.load_embedder(recipe, checkpoint) if checkpoint else checkpoints.load_reranker(recipe, length)
    measure = dev.primary_metric if dev else None
    hooks = Hooks(model, batches, recipe=recipe, measure=measure, progress=progress, resume_from=resume_from)
    trainer = _trainer(recipe, model, data, tokenizer, batches, dev, hooks, checkpoint, length, work)
    untrained = health.state_of(model)
    before = baseline(work, dev, model, resume_from)
    started = time.monotonic()
    if resume_from is None or not _ended_at(resume_from, trainer, recipe, measure):
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except torch.OutOfMemoryError:
            raise UsageError(
                "the GPU's memory is too small for a batch; set schedule.mini_batch (e.g. 32), or make"
                " sampling.batch_size or data.max_length smaller"
            ) from None
    seconds = time.monotonic() - started
    figures = _finish_weights(recipe, trainer, model, hooks, dev, before, work, untrained)
    if world() > 1:
        torch.distributed.barrier()  # the other ranks may still be reading checkpoints, which are removed below
    found = {
        "recipe": recipe.as_dict(),
        "model_fingerprint": asked["model"],
        "data": _describe(data, asked["data"]),
        "versions": report.versions(),
        "device": str(model.device),
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "resumed_at_step": step_of(resume_from) if resume_from else None,
        "dev": figures,
        "sampling": _shown(batches, trainer.state.global_step, recipe.schedule.gradient_accumulation),
        "log": trainer.state.log_history,
    }
    if trainer.is_world_process_zero():
        _write(recipe, model, found, output, work)
    return found


def make_batches(recipe: Recipe, data: Labelled | Groups, *, world: int = 1) -> Batches:
    """The recipe's sampler; it yields every rank's share in turn, since accelerate deals them out.

    Raises:
        UsageError: The data cannot fill the batches asked for.
    """
    asked = recipe.sampling
    shared: dict[str, Any] = {
        "source_alpha": asked.source_alpha,
        "duplicate_cap": asked.duplicate_cap,
        "batches": asked.batches_per_epoch,
        "seed": recipe.seed,
        "rank": None,
        "world": world,
    }
    texts = data.texts if isinstance(data, Labelled) else [item.query for item in data.items]
    similarity = asked.near_duplicates
    shared["duplicates"] = None if similarity is None else near_duplicates(texts, similarity=similarity)
    if isinstance(data, Labelled):
        return pk_batches(
            data.labels,
            classes_per_batch=asked.classes_per_batch,
            texts_per_class=asked.texts_per_class,
            alpha=asked.alpha,
            sources=data.sources if asked.one_source else None,
            parents=data.parents,
            parents_per_batch=asked.parents_per_batch,
            **shared,
        )
    sources = [item.source for item in data.items]
    size = min(asked.batch_size, max(world, len(data) // world * world))
    return row_batches(len(data), batch_size=size, sources=sources, one_source=asked.one_source, **shared)


def _with_loss_name(recipe: Recipe, data: Labelled | Groups) -> Recipe:
    """The default loss: over labels the one that did best on shopee, docs/training.md has the figures."""
    over = "circle" if isinstance(data, Labelled) else "info_nce"
    default = "listwise" if recipe.task == "reranker" else over
    return recipe if recipe.loss.name else replace(recipe, loss=replace(recipe.loss, name=default))


def _check_loss(recipe: Recipe, data: Labelled | Groups) -> Recipe:
    """Whether the loss can be had from data of this kind."""
    if recipe.task == "reranker":
        if recipe.data.negatives == 0:
            raise UsageError("data.negatives is 0; a reranker learns from negatives, expected at least 1")
        return recipe
    kind, names = ("labelled records", OVER_LABELS) if isinstance(data, Labelled) else ("queries", OVER_GROUPS)
    if recipe.loss.name not in names:
        raise UsageError(f"loss.name is {recipe.loss.name!r}; over {kind} expected one of {', '.join(names)}")
    if isinstance(data, Labelled) and recipe.loss.distillation != "none":
        raise UsageError("loss.distillation needs queries with pos_scores and neg_scores, not labelled records")
    return recipe


def _trainer(
    recipe: Recipe,
    model: Any,
    data: Labelled | Groups,
    tokenizer: Tokenizer,
    batches: Batches,
    dev: Any,
    hooks: Hooks,
    checkpoint: Checkpoint | None,
    length: int,
    work: Path,
) -> Any:
    from datasets import Dataset
    from sentence_transformers import CrossEncoderTrainer, SentenceTransformerTrainer
    from transformers.trainer_callback import PrinterCallback

    # Rerankers have no instructions.
    query, passage = (checkpoint.query_instruction, checkpoint.passage_instruction) if checkpoint else ("", "")
    collator: Any
    if isinstance(data, Labelled):
        collator = LabelledCollator(data, tokenizer, max_length=length, instructions=(query, passage))
    else:
        collator = GroupCollator(
            data,
            tokenizer,
            batches,
            task=recipe.task,
            positives=recipe.data.positives,
            negatives=recipe.data.negatives,
            max_length=length,
            query_instruction=query,
            passage_instruction=passage,
            seed=recipe.seed,
        )
    group = recipe.data.positives + recipe.data.negatives
    mini_batch = recipe.schedule.mini_batch
    loss: Any
    if recipe.task == "embedder":
        ignore = torch.from_numpy(tokenizer.unweighted_ids)
        loss = EmbedderLoss(model, recipe.loss, group=group, mini_batch=mini_batch, ignore=ignore)
    else:
        loss = RerankerLoss(model, recipe.loss, group=group, mini_batch=mini_batch)
    kind = SentenceTransformerTrainer if recipe.task == "embedder" else CrossEncoderTrainer
    trainer: Any = kind(
        model=model,
        args=_arguments(recipe, kind.training_args_class, dev, work, batches.batches),
        train_dataset=Dataset.from_dict({"row": np.arange(len(data))}),
        data_collator=collator,
        loss=loss,
        evaluator=DevEvaluator(dev) if dev else None,
        callbacks=[hooks],
    )
    trainer.get_batch_sampler = lambda *_, **__: batches  # as argument it would be pickled into every checkpoint
    trainer.evaluate = hooks.validating_average(trainer.evaluate)
    trainer.training_step = health.watching(trainer.training_step, lambda: trainer.state.global_step, work)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    trainer.remove_callback(kind.model_card_callback_class)  # our own card holds no data
    return trainer


def _arguments(recipe: Recipe, kind: Any, dev: Any, work: Path, batches: int) -> Any:
    schedule = recipe.schedule
    steps = schedule.max_steps or schedule.epochs * -(-batches // schedule.gradient_accumulation)
    when = "epoch" if schedule.save_every is None else "steps"
    arguments = kind(
        output_dir=str(work),
        num_train_epochs=schedule.epochs,
        max_steps=schedule.max_steps or -1,
        per_device_train_batch_size=1,  # not used: the sampler makes the batches
        learning_rate=schedule.learning_rate,
        lr_scheduler_type=schedule.scheduler,
        # Below 1 it is a share, rounded up: of a single step it would be all, which is then done at the rate 0.
        warmup_steps=schedule.warmup if steps > 1 else 0,
        weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_grad_norm,
        gradient_accumulation_steps=schedule.gradient_accumulation,
        bf16=schedule.bf16,
        use_cpu=_on_cpu(recipe),  # else bf16 is refused without a GPU
        seed=recipe.seed,
        save_strategy=when,
        save_steps=schedule.save_every or 500,
        eval_strategy=when if dev else "no",
        eval_steps=schedule.save_every,
        load_best_model_at_end=dev is not None,
        metric_for_best_model=f"eval_{dev.primary_metric}" if dev else None,
        greater_is_better=True if dev else None,
        logging_steps=schedule.log_every,
        logging_nan_inf_filter=False,  # it would log the mean in the place of NaN; see ``health``
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are torchrun's; DataParallel would split our batches
    return arguments


def _ended_at(checkpoint: Path, trainer: Any, recipe: Recipe, measure: str | None) -> bool:
    """Whether a run was killed after its last step; then it is put where it was, since the trainer would step on."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    spent = patience_spent(state.log_history, measure, recipe.schedule.patience)
    if state.global_step < state.max_steps and not spent:
        return False
    trainer.state = state
    trainer._load_from_checkpoint(str(state.best_model_checkpoint or checkpoint))
    return True


def _on_cpu(recipe: Recipe) -> bool:
    return recipe.schedule.device == "cpu" or not torch.cuda.is_available()


def _finish_weights(
    recipe: Recipe,
    trainer: Any,
    model: Any,
    hooks: Hooks,
    dev: Any,
    before: float | None,
    work: Path,
    untrained: dict[str, int],
) -> dict[str, Any] | None:
    """Put the best weights into the model: of the best checkpoint, averaged over steps or checkpoints where asked."""
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
            figures["average"] = best_average(
                model,
                trainer._load_from_checkpoint,
                work,
                trainer.state.log_history,
                recipe.averaging.best_checkpoints,
                dev,
                after,
            )
            figures["after"] = max(after, figures["average"]["value"])
    health.check_changed(model, untrained, steps=trainer.state.global_step, work=work)
    if recipe.lora.rank:
        checkpoints.merge_lora(model)
    health.check_finite(model, steps=trainer.state.global_step, work=work)
    return figures


def _write(recipe: Recipe, model: Any, found: dict[str, Any], output: Path, work: Path) -> None:
    fresh = work / "finished"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (checkpoints.save_embedder if recipe.task == "embedder" else checkpoints.save_reranker)(model, fresh, recipe)
    report.write_report(fresh, found)
    workfolders.publish(fresh, output)
    clear(work)


def _shown(batches: Batches, steps: int, accumulation: int) -> list[dict[str, Any]]:
    """A report of every epoch, the last one as far as it went."""
    found = []
    epochs, rest = divmod(steps, -(-batches.batches // accumulation))  # the last step of an epoch may be a shorter one
    rest = min(rest * accumulation, batches.batches)
    for epoch in range(epochs):
        found.append(batches.report(epoch).as_dict())
    if rest:
        found.append(batches.report(epochs, batches=rest).as_dict())
    return found


def _digest(data: Labelled | Groups) -> str:
    found = hashlib.blake2b(digest_size=16)
    rows: Iterable[Any] = (
        data.items
        if isinstance(data, Groups)
        else (zip(data.texts, data.labels, data.sources, data.parents or repeat(None), strict=False))
    )
    for row in rows:
        found.update(repr(row).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _files_digest(path: str | None) -> str | None:
    """Of a file, or of all files of a folder."""
    if path is None:
        return None
    found = hashlib.blake2b(digest_size=16)
    files = sorted(item for item in Path(path).rglob("*") if item.is_file()) if Path(path).is_dir() else [Path(path)]
    for item in files:
        with item.open("rb") as handle:
            found.update(item.name.encode() + hashlib.file_digest(handle, "blake2b").digest())
    return found.hexdigest()


def _describe(data: Labelled | Groups, digest: str) -> dict[str, Any]:
    sources = data.sources if isinstance(data, Labelled) else [item.source for item in data.items]
    found: dict[str, Any] = {
        "rows": len(data),
        "digest": digest,
        "notes": data.notes,
        "sources": {name: sources.count(name) for name in dict.fromkeys(sources)},
    }
    if isinstance(data, Labelled):
        found["classes"] = len(set(data.labels))
    else:
        found["positives"] = sum(len(item.positives) for item in data.items)
        found["negatives"] = sum(len(item.negatives) for item in data.items)
    return found
