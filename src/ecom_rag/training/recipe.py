"""The recipe of a training run: one small TOML, checked as a whole before anything is loaded.

A key that is not known is an error that names the file, the key and the nearest known one. ``docs/training.md`` lists
every key; the defaults are below, with what they rest on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal, get_args

from ecom_rag.arguments import PathLike, one_of, path_of
from ecom_rag.errors import UsageError
from ecom_rag.files import readers
from ecom_rag.models.prompts import PROMPTS
from ecom_rag.training.idle import check_keys
from ecom_rag.training.tables import build
from ecom_rag.values import type_name

Task = Literal["embedder", "reranker"]
_NO_KEYS = ("given", "where")
OVER_LABELS = ("circle", "supervised_contrastive", "info_nce")
OVER_GROUPS = ("info_nce", "circle", "m3", "none")
RERANKER_LOSSES = ("listwise", "binary", "none")


@dataclass(frozen=True, slots=True)
class Data:
    """What is learned from, and how a text is cut.

    ``negatives`` 7 and one positive are FlagEmbedding's group of 8.
    """

    train: tuple[str, ...]
    train_split: str = "train"  # of a BEIR folder
    dev: str | None = None
    dev_split: str = "dev"
    label: str = "label"  # key in a record's metadata
    parent: str | None = None  # key of the policy group, for hierarchical batches
    single_texts: Literal["error", "drop"] = "error"  # a class of one text has no pair
    min_grade: int = 1  # of a BEIR judgement that counts as relevant
    positives: int = 1
    negatives: int = 7
    max_length: int | None = None  # tokens; by default the checkpoint's, at most 512
    query_instruction: str | None = None  # by default the checkpoint's or its family's
    passage_instruction: str | None = None
    template: str = "auto"  # prompt of a reranker that is a language model
    instruction: str | None = None  # asked in it; by default the checkpoint's or the prompt's


@dataclass(frozen=True, slots=True)
class Loss:
    """Which loss, see ``losses``; the numbers are those of the papers named there."""

    name: str = ""  # circle over labels, info_nce over queries, listwise for a reranker
    temperature: float | None = None  # 0.02 (BGE), 0.1 for supervised_contrastive (Khosla et al.)
    margin: float = 0.4  # circle
    gamma: float = 80.0  # circle
    in_batch: bool = True  # other queries' documents are negatives
    mask_false_negatives: bool = True
    self_distillation: bool = True  # m3
    positive_weight: float = 1.0  # binary
    distillation: Literal["none", "kl", "margin_mse"] = "none"  # from pos_scores and neg_scores
    distillation_weight: float = 1.0
    teacher_temperature: float = 1.0  # kl


@dataclass(frozen=True, slots=True)
class Sampling:
    """How batches are drawn, see ``sampling``; ``alpha`` 0.5 is square-root sampling (Mahajan et al. 2018)."""

    batch_size: int = 64  # queries; over all GPUs
    classes_per_batch: int = 16  # labelled records: P
    texts_per_class: int = 4  # K
    alpha: float = 0.5
    source_alpha: float = 1.0
    one_source: bool = False
    parents_per_batch: int = 1  # with data.parent
    near_duplicates: float | None = None  # Jaccard similarity from which texts count as nearly the same
    duplicate_cap: int = 1
    batches_per_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast; the learning rate is the one of BGE's fine-tuning examples within a factor of two."""

    epochs: int = 3
    max_steps: int | None = None
    learning_rate: float = 2e-5
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup: float = 0.1  # share of all steps
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dropout: float | None = None  # by default the checkpoint's; 0 halves a step on a CPU
    gradient_accumulation: int = 1
    mini_batch: int | None = None  # texts at once with gradient caching (Gao et al. 2021, arXiv:2101.06983)
    gradient_checkpointing: bool = False  # activations twice, in less memory (Chen et al. 2016, arXiv:1604.06174)
    bf16: bool = False
    device: Literal["auto", "cpu"] = "auto"
    save_every: int | None = None  # steps between checkpoints and validations; by default an epoch
    keep: int = 2  # checkpoints
    patience: int | None = None  # validations without a gain before stopping
    log_every: int = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The dev measure that picks the best checkpoint."""

    measure: str = ""  # nDCG@10; MAP@R for labelled records
    batch_size: int = 128
    max_documents: int | None = None  # of a BEIR corpus: the judged ones and a sample of the others


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), merged into the weights at the end; rank 0 is off."""

    rank: int = 0
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None  # names of linear layers; by default all but the head


@dataclass(frozen=True, slots=True)
class Averaging:
    """Averages of weights: EMA over steps (decay 0 is off), and the mean of the best checkpoints."""

    ema_decay: float = 0.0
    best_checkpoints: int = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole training run."""

    task: Task
    model: str
    output: str
    data: Data
    seed: int = 42
    loss: Loss = field(default_factory=Loss)
    sampling: Sampling = field(default_factory=Sampling)
    schedule: Schedule = field(default_factory=Schedule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    lora: Lora = field(default_factory=Lora)
    averaging: Averaging = field(default_factory=Averaging)
    given: tuple[str, ...] = ()  # keys of the file it was read from, e.g. "loss.margin"; no key itself
    where: str = "recipe"  # that file; no key either

    def as_dict(self) -> dict[str, Any]:
        """Plain values of all keys, for JSON."""
        return {key: value for key, value in asdict(self).items() if key not in _NO_KEYS}


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (  # keys, whether a value holds, what is expected
    ("data.train", lambda value: len(value) > 0, "at least one file"),
    ("lora.targets", lambda value: len(value) > 0, "at least one name of a layer"),
    ("data.template", lambda value: value in ("auto", *PROMPTS), f"one of auto, {', '.join(PROMPTS)}"),
    ("seed", lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
    ("data.negatives lora.rank", lambda value: value >= 0, "0 or more"),
    ("loss.margin schedule.dropout averaging.ema_decay lora.dropout", lambda v: 0 <= v < 1, "from 0 to below 1"),
    ("schedule.warmup", lambda value: 0 <= value < 1, "a share of the steps, from 0 to below 1"),
    ("schedule.keep", lambda v: v >= 2, "at least 2, so that a kill while one is written leaves another"),
    (
        "sampling.texts_per_class",
        lambda value: value >= 2,
        "at least 2: a text learns from the others of its class in the batch",
    ),
    (
        "data.positives data.max_length loss.temperature loss.gamma loss.positive_weight loss.teacher_temperature"
        " sampling.batch_size sampling.parents_per_batch sampling.duplicate_cap sampling.batches_per_epoch"
        " schedule.epochs schedule.max_steps schedule.learning_rate schedule.max_grad_norm"
        " schedule.gradient_accumulation schedule.mini_batch schedule.save_every schedule.patience schedule.log_every"
        " evaluation.batch_size evaluation.max_documents lora.alpha averaging.best_checkpoints",
        lambda value: value > 0,
        "above 0",
    ),
)


def read_recipe(path: PathLike, task: Task | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The TOML file; paths in it are relative to the current folder.
        task: ``embedder`` or ``reranker``; by default what the file says as ``task``.

    Raises:
        UsageError: Unreadable, an unknown or missing key, a value of the wrong kind or out of range.
    """
    path = path_of(path, "path")
    return make_recipe(readers.read_toml(path, remedy="expected a recipe, see docs/training.md"), task, where=path)


def make_recipe(
    table: Mapping[str, Any],
    task: Task | None = None,
    *,
    where: str = "recipe",
    given: Sequence[str] | None = None,
) -> Recipe:
    """A recipe of a dict (parsed TOML), checked.

    Args:
        table: Keys and tables as in docs/training.md; paths may be ``Path``.
        task: ``embedder`` or ``reranker``; by default what ``table`` says as ``task``.
        where: Begins the error messages.
        given: The keys that a user gave, e.g. ``loss.margin``, and that must have an effect; by default all of
            ``table``.

    Raises:
        UsageError: As ``read_recipe``.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is of type {type_name(table)}; expected a dict of keys and tables")
    if task is None:
        task = one_of(table.get("task"), f"{where}: task", get_args(Task))  # type: ignore[assignment]
    if table.get("task", task) != task:
        raise UsageError(f'{where}: task is "{table["task"]}", but the command trains a {task}; use the other command')
    readers.check_finite(table, where)
    recipe: Recipe = build(Recipe, {**table, "task": task}, where, not_keys=_NO_KEYS)
    recipe = replace(recipe, given=tuple(_names(table) if given is None else given), where=where)
    for holds, key, expected in (*_in_range(recipe), *_related(recipe)):
        if not holds:
            raise UsageError(f"{where}: {key} is {attrgetter(key)(recipe)!r}; expected {expected}")
    check_keys(recipe)
    return recipe


def _names(table: Mapping[str, Any]) -> Iterator[str]:
    """The keys of parsed TOML that are given, those of its tables with the table's name."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner, own in value.items() if own is not None)
        elif value is not None:
            yield key


def _in_range(recipe: Recipe) -> Iterator[tuple[bool, str, str]]:
    """What types do not say of single keys: whether it holds, the key, what is expected."""
    for keys, holds, expected in _RANGES:
        for key in keys.split():
            value = attrgetter(key)(recipe)
            yield value is None or holds(value), key, expected


def _related(recipe: Recipe) -> list[tuple[bool, str, str]]:
    """As ``_in_range``: what one key asks of another."""
    data, loss, schedule, averaging = recipe.data, recipe.loss, recipe.schedule, recipe.averaging
    reranker, m3 = recipe.task == "reranker", recipe.loss.name == "m3"
    names = RERANKER_LOSSES if reranker else tuple(dict.fromkeys(OVER_LABELS + OVER_GROUPS))
    one_of_two = "1 beside averaging.ema_decay: take one of the two"
    differences = "at least 1 with loss.distillation: a query with one document has no differences to learn"
    prompt = "a language model's prompt has data.instruction"
    distilled = loss.distillation != "none"
    return [
        (loss.name in ("", *names), "loss.name", f"one of {', '.join(names)}"),
        (loss.name != "none" or distilled, "loss.distillation", 'kl or margin_mse with loss "none"'),
        (averaging.best_checkpoints <= schedule.keep, "averaging.best_checkpoints", "at most schedule.keep"),
        (averaging.best_checkpoints == 1 or not averaging.ema_decay, "averaging.best_checkpoints", one_of_two),
        (loss.in_batch or data.negatives > 0, "data.negatives", "at least 1 where loss.in_batch is false"),
        (
            recipe.sampling.batch_size > 1 or data.negatives > 0,
            "sampling.batch_size",
            "at least 2 where data.negatives is 0",
        ),
        (not distilled or data.positives + data.negatives > 1, "data.negatives", differences),
        (not m3 or schedule.mini_batch is None, "schedule.mini_batch", 'none with loss "m3"'),
        (not m3 or recipe.lora.rank == 0, "lora.rank", '0 with loss "m3"'),
        # Classifiers know of no instruction, and language models of one that is part of their prompt.
        (not reranker or data.query_instruction is None, "data.query_instruction", f"none for a reranker; {prompt}"),
        (not reranker or data.passage_instruction is None, "data.passage_instruction", "none for a reranker"),
    ]
