"""The trainer of a run: that of sentence-transformers with our batches, collators, losses and hooks."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecom_rag.training import adapters, health
from ecom_rag.training.callbacks import DevEvaluator, Hooks
from ecom_rag.training.checkpoints import on_cpu
from ecom_rag.training.modules import EmbedderLoss, RerankerLoss
from ecom_rag.training.plan import Plan
from ecom_rag.training.recipe import Recipe


def make_trainer(plan: Plan, model: Any, hooks: Hooks, work: Path) -> Any:
    """The trainer of a planned run.

    Args:
        plan: What is trained, on what and how.
        model: As ``checkpoints.load`` gives it.
        hooks: Called by the trainer as it goes.
        work: Folder of its checkpoints.
    """
    from datasets import Dataset
    from sentence_transformers import CrossEncoderTrainer, SentenceTransformerTrainer
    from transformers.trainer_callback import PrinterCallback

    kind = SentenceTransformerTrainer if plan.recipe.task == "embedder" else CrossEncoderTrainer
    trainer: Any = kind(
        model=model,
        args=_arguments(plan.recipe, kind.training_args_class, plan.dev, work, plan.batches.batches),
        train_dataset=Dataset.from_dict({"row": np.arange(len(plan.data))}),
        data_collator=plan.collator,
        loss=_loss(plan, model),
        evaluator=DevEvaluator(plan.dev) if plan.dev else None,
        callbacks=[hooks],
    )
    trainer.get_batch_sampler = lambda *_, **__: plan.batches  # as argument it would be pickled into every checkpoint
    if plan.recipe.lora.rank:
        trainer._load_from_checkpoint = partial(adapters.load, model)  # theirs loads the network a second time
    trainer.evaluate = hooks.validating_average(trainer.evaluate)
    trainer.training_step = health.watching(trainer.training_step, lambda: trainer.state.global_step, work)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    trainer.remove_callback(kind.model_card_callback_class)  # our own card holds no data
    return trainer


def _loss(plan: Plan, model: Any) -> Any:
    data, settings, mini_batch = plan.recipe.data, plan.recipe.loss, plan.recipe.schedule.mini_batch
    group = data.positives + data.negatives
    if plan.recipe.task == "reranker":
        return RerankerLoss(model, settings, group=group, mini_batch=mini_batch)
    ignore = torch.from_numpy(plan.tokenizer.unweighted_ids)
    return EmbedderLoss(model, settings, group=group, mini_batch=mini_batch, ignore=ignore)


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
        gradient_checkpointing=schedule.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=schedule.bf16,
        use_cpu=on_cpu(recipe),  # else bf16 is refused without a GPU
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
