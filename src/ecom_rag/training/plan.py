"""From a recipe to all that a run is made of; whatever the user can mend is found here, before a model is loaded."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.files.digest import Digest, of_file
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.prompts import Frame
from ecom_rag.text.near_duplicates import near_duplicates
from ecom_rag.training.batches import Batches
from ecom_rag.training.checkpoints import Start, find_start
from ecom_rag.training.collate import GroupCollator, LabelledCollator, single_inputs
from ecom_rag.training.data import Groups, Labelled, read_data
from ecom_rag.training.dev import make_dev
from ecom_rag.training.embedding_rows import token_ids
from ecom_rag.training.idle import check_keys
from ecom_rag.training.recipe import OVER_GROUPS, OVER_LABELS, Recipe
from ecom_rag.training.sampling import pk_batches, row_batches


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of.

    Args:
        recipe: With the name of the loss filled in.
        data: The training data.
        start: The checkpoint to start from.
        tokenizer: Of that checkpoint.
        dev: The dev measure; ``None`` without validation data.
        batches: The sampler.
        collator: Makes the tensors of a batch.
        used: Token ids that batches may hold, ascending.
    """

    recipe: Recipe
    data: Labelled | Groups
    start: Start
    tokenizer: Tokenizer
    dev: Any
    batches: Batches
    collator: Any
    used: NDArray[np.int64]

    @property
    def measure(self) -> str | None:
        """Name of the dev measure."""
        return self.dev.primary_metric if self.dev else None

    def asked(self) -> dict[str, Any]:
        """Recipe and digests of model and data: all that an unfinished run must share to be resumed."""
        return {
            "recipe": self.recipe.as_dict(),
            "model": fingerprint(self.start.folder),
            "data": digest_of(self.data),
            "dev data": files_digest(self.recipe.data.dev),
            "number of trained tokens": len(self.used),
        }


def make_plan(recipe: Recipe) -> Plan:
    """Read and check the data, then the checkpoint, then what the two give together.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    data = read_data(recipe.data.train, recipe.data.train_split, recipe)
    recipe = _with_loss_name(recipe, data)
    _check_loss(recipe, data)
    check_keys(recipe, labelled=isinstance(data, Labelled))
    start = find_start(recipe)
    tokenizer = Tokenizer(start.folder, ends_with_eos=start.ends_with_eos)
    for instruction in start.instructions:  # an error where it leaves no room for a text
        single_inputs(tokenizer, ["a"], start.max_length, instruction=instruction)
    frame = start.frame(tokenizer)
    dev = make_dev(recipe, data, tokenizer, start.max_length, frame)
    batches = make_batches(recipe, data, world=int(os.environ.get("WORLD_SIZE", "1")))
    collator = _make_collator(recipe, data, start, tokenizer, batches, frame)
    used = token_ids(tokenizer, collator.texts(), start.max_length)
    return Plan(recipe, data, start, tokenizer, dev, batches, collator, used)


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


def _make_collator(
    recipe: Recipe,
    data: Labelled | Groups,
    start: Start,
    tokenizer: Tokenizer,
    batches: Batches,
    frame: Frame | None,
) -> LabelledCollator | GroupCollator:
    if isinstance(data, Labelled):
        return LabelledCollator(data, tokenizer, max_length=start.max_length, instructions=start.instructions)
    return GroupCollator(
        data,
        tokenizer,
        batches,
        task=recipe.task,
        positives=recipe.data.positives,
        negatives=recipe.data.negatives,
        max_length=start.max_length,
        instructions=start.instructions,
        seed=recipe.seed,
        frame=frame,
    )


def _with_loss_name(recipe: Recipe, data: Labelled | Groups) -> Recipe:
    """The default loss: over labels the one that did best on shopee, docs/training.md has the figures."""
    over = "circle" if isinstance(data, Labelled) else "info_nce"
    default = "listwise" if recipe.task == "reranker" else over
    return recipe if recipe.loss.name else replace(recipe, loss=replace(recipe.loss, name=default))


def _check_loss(recipe: Recipe, data: Labelled | Groups) -> None:
    """Refuse a loss that cannot be had from data of this kind."""
    if recipe.task == "reranker":
        if recipe.data.negatives == 0:
            raise UsageError("data.negatives is 0; a reranker learns from negatives, expected at least 1")
        return
    kind, names = ("labelled records", OVER_LABELS) if isinstance(data, Labelled) else ("queries", OVER_GROUPS)
    if recipe.loss.name not in names:
        raise UsageError(f"loss.name is {recipe.loss.name!r}; over {kind} expected one of {', '.join(names)}")
    if isinstance(data, Labelled) and recipe.loss.distillation != "none":
        raise UsageError("loss.distillation needs queries with pos_scores and neg_scores, not labelled records")


def digest_of(data: Labelled | Groups) -> str:
    """Changes with every text, label and score of training data."""
    found = Digest()
    rows: Iterable[Any] = (
        data.items
        if isinstance(data, Groups)
        else (zip(data.texts, data.labels, data.sources, data.parents or repeat(None), strict=False))
    )
    for row in rows:
        found.text(repr(row))
    return found.value


def files_digest(path: str | None) -> str | None:
    """Of a file, or of all files of a folder."""
    if path is None:
        return None
    found = Digest()
    files = sorted(item for item in Path(path).rglob("*") if item.is_file()) if Path(path).is_dir() else [Path(path)]
    for item in files:
        found.text(f"{item.name} {of_file(item)}")
    return found.value
