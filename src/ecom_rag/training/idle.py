"""When each key of a recipe has an effect; a key that is given where it has none is refused, as an option is.

Conditions that hang on the kind of the training data are looked at once the data are read; before, ``labelled`` is
``None`` and they pass.
"""

from pathlib import Path
from typing import Any

from ecom_rag.idle import ALWAYS, Needs, refuse_idle


def _each(table: str, names: str, *needs: Needs) -> dict[str, tuple[Needs, ...]]:
    return dict.fromkeys([f"{table}.{name}" for name in names.split()], needs)


_LABELLED = Needs(lambda v: v["labelled"] is not False, "over queries with documents", "train on labelled records")
_QUERIES = Needs(lambda v: v["labelled"] is not True, "over labelled records", "train on queries with pos and neg")
_BEIR = Needs(lambda v: v["beir"], "where data.train names no BEIR folder", "train on one")
_DEV = Needs(lambda v: v["dev"], "without validation data", "name some in data.dev")
_DEV_BEIR = Needs(lambda v: v["dev_beir"], "where data.dev is no BEIR folder", "validate on one")
_RERANKER = Needs(lambda v: v["task"] == "reranker", "for an embedder", "train a reranker")
_DISTILLED = Needs(lambda v: v["distillation"] != "none", "without distillation", "set loss.distillation")


def _loss(*names: str) -> Needs:
    """A loss of one of these names; where the default is not resolved yet, it may be one."""
    return Needs(lambda v: v["loss"] in ("", *names), 'with the loss "{loss}"', f"choose {' or '.join(names)}")


def _not_m3(what: str) -> Needs:
    return Needs(lambda v: v["loss"] != "m3", f'with the loss "m3", which {what}', "choose another loss.name")


TABLE = {
    **dict.fromkeys(("task", "model", "output", "seed"), ALWAYS),
    **_each("data", "train dev max_length query_instruction passage_instruction"),
    **_each("data", "train_split min_grade", _BEIR),
    **_each("data", "dev_split", _DEV, _DEV_BEIR),
    **_each("data", "template instruction", _RERANKER),
    **_each("data", "label parent single_texts", _LABELLED),
    **_each("data", "positives negatives", _QUERIES),
    **_each("loss", "name"),
    "loss.temperature": (
        Needs(lambda v: v["task"] == "embedder", "for a reranker, whose logits have none", "train an embedder"),
        Needs(
            lambda v: v["loss"] not in ("circle", "none") or v["distillation"] != "none",
            'with the loss "{loss}"',
            "choose info_nce, supervised_contrastive or m3",
        ),
    ),
    **_each("loss", "margin gamma", _loss("circle")),
    **_each("loss", "in_batch mask_false_negatives", _QUERIES, _loss("info_nce", "circle", "m3")),
    **_each("loss", "self_distillation", _loss("m3")),
    **_each("loss", "positive_weight", _loss("binary")),
    **_each("loss", "distillation", _QUERIES),
    **_each("loss", "distillation_weight", _DISTILLED, _not_m3("adds the teacher as one more term")),
    "loss.teacher_temperature": (
        Needs(lambda v: v["distillation"] == "kl", 'with loss.distillation "{distillation}"', "choose kl"),
        _not_m3("has no temperature of the teacher's"),
    ),
    **_each("sampling", "batch_size", _QUERIES),
    **_each("sampling", "classes_per_batch texts_per_class alpha", _LABELLED),
    "sampling.parents_per_batch": (
        _LABELLED,
        Needs(lambda v: v["parent"], "without policy groups", "name their key in data.parent"),
    ),
    **_each(
        "sampling",
        "source_alpha one_source",
        Needs(lambda v: v["sources"] > 1, "with one file", "name several in data.train"),
    ),
    "sampling.duplicate_cap": (
        Needs(lambda v: v["near_duplicates"], "where no texts are near-duplicates", "set sampling.near_duplicates"),
    ),
    **_each("sampling", "near_duplicates batches_per_epoch"),
    "schedule.epochs": (Needs(lambda v: not v["max_steps"], "beside schedule.max_steps", "leave that out"),),
    "schedule.warmup": (
        Needs(lambda v: v["scheduler"] != "constant", 'with the scheduler "constant"', "choose constant_with_warmup"),
    ),
    "schedule.patience": (_DEV,),
    **_each("schedule", "max_steps learning_rate scheduler weight_decay max_grad_norm dropout gradient_accumulation"),
    **_each("schedule", "mini_batch gradient_checkpointing bf16 device save_every keep log_every"),
    **_each("evaluation", "measure batch_size", _DEV),
    "evaluation.max_documents": (_DEV, _DEV_BEIR),
    **_each("lora", "rank"),
    **_each("lora", "alpha dropout targets", Needs(lambda v: v["rank"] > 0, "without adapters", "set lora.rank")),
    **_each("averaging", "ema_decay"),
    "averaging.best_checkpoints": (_DEV,),
}


def check_keys(recipe: Any, *, labelled: bool | None = None) -> None:
    """Refuse the first key of a recipe's file that changes nothing.

    Args:
        recipe: Knows which keys were given.
        labelled: Whether the training data are labelled records; ``None`` where that is not known yet.

    Raises:
        UsageError: There is one.
    """
    refuse_idle(recipe.given, _values(recipe, labelled), TABLE, spelled=lambda key: f"{recipe.where}: {key}")


def _values(recipe: Any, labelled: bool | None) -> dict[str, Any]:
    data = recipe.data
    return {
        "labelled": labelled,
        "task": recipe.task,
        "beir": any(Path(path).is_dir() for path in data.train),
        "dev": data.dev is not None,
        "dev_beir": data.dev is not None and Path(data.dev).is_dir(),
        "parent": data.parent is not None,
        "sources": len(data.train),
        "loss": recipe.loss.name,
        "distillation": recipe.loss.distillation,
        "near_duplicates": recipe.sampling.near_duplicates is not None,
        "max_steps": recipe.schedule.max_steps,
        "scheduler": recipe.schedule.scheduler,
        "rank": recipe.lora.rank,
    }
