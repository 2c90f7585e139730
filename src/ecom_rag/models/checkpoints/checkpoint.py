"""How a checkpoint is used: what its own files say of pooling, instructions and length, else the family table."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.contents import OWN_NETWORKS
from ecom_rag.models.checkpoints.folder import (
    modules_of,
    network_folder,
    pooling_of,
    read_config,
    read_object,
    sentence_settings,
)
from ecom_rag.models.checkpoints.prompts import own_prompts, with_task
from ecom_rag.models.families import Family, family_of
from ecom_rag.models.instructions import DEFAULT_TASK, TASK, Example, written

logger = logging.getLogger(__name__)
# What a folder's name decided; the command line holds it back until a run has ended well.
names_logger = logging.getLogger("ecom_rag.models.names")

POOLINGS = ("cls", "mean", "last")
_DEFAULT_MAX_LENGTH = 512
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")  # how configurations name the width of the network


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of an embedding checkpoint before it is loaded.

    Args:
        folder: Where it lies.
        pooling: ``cls``, ``mean`` or ``last``.
        query_instruction: Put before queries, or around them (see ``instructions``).
        passage_instruction: Put before seeds and other documents.
        max_length: Tokens including special ones.
        dense_layers: Folders of sentence-transformers ``Dense`` modules, applied after pooling.
        sources: What each choice rests on, for the log.
        truncate_dim: Dimensions of the embedding that the checkpoint keeps; ``None`` is all.
        include_prompt: Whether the instruction's tokens take part in pooling.
        ends_with_eos: Whether texts end with the EOS token, be it that the tokenizer leaves it out.
    """

    folder: Path
    pooling: str
    query_instruction: str
    passage_instruction: str
    max_length: int
    dense_layers: tuple[Path, ...]
    sources: str
    truncate_dim: int | None = None
    include_prompt: bool = True
    ends_with_eos: bool = False

    @property
    def dimension(self) -> int:
        """Of a dense embedding, before it is truncated."""
        if self.dense_layers:
            return int(read_object(self.dense_layers[-1] / "config.json")["out_features"])
        config = read_config(self.folder)
        return next((int(config[key]) for key in _WIDTHS if config.get(key)), 0) or _default_width(self.folder)

    @property
    def has_sparse(self) -> bool:
        """Whether learned term weights can be had."""
        return (self.folder / "sparse_linear.pt").exists()

    @property
    def has_multivector(self) -> bool:
        """Whether token vectors for late interaction can be had."""
        return (self.folder / "colbert_linear.pt").exists()


def encoder_checkpoint(
    folder: Path,
    *,
    name: str | None = None,
    pooling: str | None = None,
    max_length: int | None = None,
    query_instruction: str | None = None,
    query_task: str | None = None,
    query_examples: Sequence[Example] = (),
    passage_instruction: str | None = None,
) -> Checkpoint:
    """How an embedding checkpoint is used, with what the caller asks for instead; see ``describe``.

    Raises:
        ModelError: It is a reranker, its files ask for something that is not done here, or ``max_length`` is beyond the
            positions that it has.
        UsageError: A task or examples beside a whole instruction, or for a model that reads none.
    """
    _check_encoder(folder)
    if query_task is not None or query_examples:
        if query_instruction is not None:
            raise UsageError(
                "a query instruction was given beside a task or examples, which make one; expected one of the two"
            )
        family = _family(folder, name)
        query_instruction = with_task(folder, family, query_task or DEFAULT_TASK, query_examples)
        if name is None and family is not None and TASK in family.query_instruction:
            names_logger.warning("%s: reads its task as a %s does, by its name", folder.name, family.name)
    found = with_overrides(
        describe(folder, name=name, pooling=pooling),
        max_length=max_length,
        query_instruction=query_instruction,
        passage_instruction=passage_instruction,
    )
    if not found.include_prompt and (found.query_instruction or found.passage_instruction):
        raise ModelError(
            f"{folder}: its pooling leaves out the instruction's tokens (include_prompt is false), which is not"
            " supported; use it with empty instructions, or another checkpoint"
        )
    return found


def _check_encoder(folder: Path) -> None:
    """Refuse a reranker."""
    architectures = read_config(folder).get("architectures") or []
    if any("SequenceClassification" in str(name) for name in architectures):
        raise ModelError(
            f"{folder}: is a classifier of texts or pairs ({architectures[0]}), not an encoder; use it as a reranker,"
            " or pass an encoder"
        )
    found = [name for name in architectures if name in OWN_NETWORKS]
    found += ["modules.json lists LogitScore" for module in modules_of(folder) if module.kind == "LogitScore"]
    if found:
        raise ModelError(f"{folder}: is a reranker ({found[0]}), not an encoder; use it as a reranker")


def check_no_prompt(folder: Path) -> None:
    """Refuse a reranker that reads a prompt before every pair.

    Raises:
        ModelError: ``config_sentence_transformers.json`` names one by default.
    """
    prompt = default_prompt(folder)
    if prompt:
        path = folder / "config_sentence_transformers.json"
        raise ModelError(
            f"{path}: the prompt {prompt!r} before every pair is not supported; use a reranker without one"
        )


def default_prompt(folder: Path) -> str | None:
    """The prompt that a folder names by default."""
    settings = read_object(folder / "config_sentence_transformers.json")
    return (settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or None


def describe(folder: Path, *, name: str | None = None, pooling: str | None = None) -> Checkpoint:
    """Read pooling, instructions and length from a checkpoint's own files, else from the family table.

    Args:
        folder: The checkpoint.
        name: Name to look up in the family table; by default the folder's, or ``_name_or_path`` of its config.
        pooling: Overrides what was found.

    Returns:
        The description. What was chosen and why is logged: as a warning where a folder's name decided, else as info.

    Raises:
        ModelError: The files ask for something that is not supported here.
    """
    family = _family(folder, name)
    settings = _pooling_settings(folder)
    chosen, why = _pooling(folder, settings, family, pooling)
    query, passage, told = own_prompts(folder)
    prompts = "from the folder's prompts" if told else "none"
    if not told and family is not None and (family.query_instruction or family.passage_instruction):
        query, passage, prompts = family.query_instruction, family.passage_instruction, f"family {family.name}, by name"
        query = written(query) if TASK in query else query
    max_length = min(own_length(folder), _DEFAULT_MAX_LENGTH)
    eos = _ends_with_eos(folder, family) if chosen == "last" else ""
    sources = f"pooling {chosen} ({why}), instructions {query!r}/{passage!r} ({prompts}), max length {max_length}"
    sources += f", EOS at the end ({eos})" if eos else ""
    if name is None and family is not None and "by name" in sources:
        names_logger.warning("%s: is taken for a %s by its name: %s", folder.name, family.name, sources)
    else:
        logger.info("%s: %s", folder.name, sources)
    dense = tuple(module.folder for module in modules_of(folder) if module.kind == "Dense")
    truncate_dim = read_object(folder / "config_sentence_transformers.json").get("truncate_dim")
    include_prompt = bool((settings or {}).get("include_prompt", True))
    return Checkpoint(
        folder, chosen, query, passage, max_length, dense, sources, truncate_dim, include_prompt, bool(eos)
    )


def _family(folder: Path, name: str | None) -> Family | None:
    return family_of(name or " ".join([folder.name, str(read_config(folder).get("_name_or_path", ""))]))


def _ends_with_eos(folder: Path, family: Family | None) -> str:
    """What says that a text ends with the EOS token, for a model that pools its last token; else nothing.

    Transformers 5 passes over ``add_eos_token`` where there is a tokenizer.json, so that the last token would be
    another one than in the model's tuning (e5-mistral-7b-instruct; embeddings-benchmark/mteb#5237).
    """
    if read_object(network_folder(folder) / "tokenizer_config.json").get("add_eos_token"):
        return "from the folder's tokenizer"
    return f"family {family.name}, by name" if family is not None and family.ends_with_eos else ""


def _pooling(
    folder: Path, settings: dict[str, Any] | None, family: Family | None, asked: str | None
) -> tuple[str, str]:
    """The pooling, and what says so."""
    if asked is not None:
        chosen, why = asked, "as asked"
    elif settings is not None:
        found = pooling_of(settings)
        if len(found) != 1:
            raise ModelError(f"{folder}: {len(found)} poolings at once are not supported; expected one")
        chosen, why = found[0], "from the folder's pooling file"
    elif family is not None:
        chosen, why = family.pooling, f"family {family.name}, by name"
    else:
        chosen, why = "cls", "nothing says otherwise"
        logger.warning(
            "%s: neither its files nor its name say how to pool; using cls (override with `pooling`)", folder
        )
    if chosen not in POOLINGS:
        raise ModelError(f"{folder}: pooling {chosen!r} is not supported; expected one of {', '.join(POOLINGS)}")
    return chosen, why


def own_length(folder: Path) -> int:
    """Tokens that a checkpoint's files say it reads, at most what it can."""
    limit = position_limit(read_config(folder))
    length = sentence_settings(folder).get("max_seq_length")
    # where sentence-transformers 6 keeps it
    length = length or read_object(network_folder(folder) / "tokenizer_config.json").get("model_max_length")
    return int(min(limit, length or limit))


def with_overrides(
    checkpoint: Checkpoint, *, max_length: int | None, query_instruction: str | None, passage_instruction: str | None
) -> Checkpoint:
    """The checkpoint with what the caller asked for instead.

    Raises:
        ModelError: ``max_length`` is beyond the positions that the model has.
    """
    if max_length is not None:
        limit = position_limit(read_config(checkpoint.folder))
        if not 8 <= max_length <= limit:
            raise ModelError(
                f"{checkpoint.folder.name}: max length {max_length} is outside what this checkpoint can read; expected"
                f" 8 to {limit}"
            )
        checkpoint = replace(checkpoint, max_length=max_length)
    if query_instruction is not None:
        checkpoint = replace(checkpoint, query_instruction=query_instruction)
    if passage_instruction is not None:
        checkpoint = replace(checkpoint, passage_instruction=passage_instruction)
    return checkpoint


def position_limit(config: dict[str, Any]) -> int:
    """The most tokens a model's position table can take; the RoBERTa family counts from the padding id."""
    positions = int(config.get("max_position_embeddings") or 8192)
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= int(config.get("pad_token_id") or 1) + 1
    return positions


def _default_width(folder: Path) -> int:
    """The width of a network whose ``config.json`` leaves it to transformers."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(network_folder(folder), trust_remote_code=False, local_files_only=True)
        return int(config.hidden_size)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder}: config.json does not give the width of the network ({first[:200]}); expected hidden_size"
        ) from None


def _pooling_settings(folder: Path) -> dict[str, Any] | None:
    """Of the Pooling module; ``None`` where there is none."""
    place = next((module.folder for module in modules_of(folder) if module.kind == "Pooling"), None)
    if place is None and not (folder / "1_Pooling" / "config.json").exists():
        return None
    return read_object((place or folder / "1_Pooling") / "config.json")
