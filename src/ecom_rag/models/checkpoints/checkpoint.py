"""How a checkpoint is used: what its own files say of pooling, instructions and length, else the family table."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import (
    modules_of,
    network_folder,
    pooling_of,
    read_config,
    read_object,
    sentence_settings,
)
from ecom_rag.models.families import Family, family_of

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
        query_instruction: Put before queries.
        passage_instruction: Put before seeds and other documents.
        max_length: Tokens including special ones.
        dense_layers: Folders of sentence-transformers ``Dense`` modules, applied after pooling.
        sources: What each choice rests on, for the log.
        truncate_dim: Dimensions of the embedding that the checkpoint keeps; ``None`` is all.
        include_prompt: Whether the instruction's tokens take part in pooling.
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
    passage_instruction: str | None = None,
) -> Checkpoint:
    """How an embedding checkpoint is used, with what the caller asks for instead; see ``describe``.

    Raises:
        ModelError: It is a reranker, its files ask for something that is not done here, or ``max_length`` is beyond the
            positions that it has.
    """
    architectures = read_config(folder).get("architectures") or []
    if any("SequenceClassification" in str(name) for name in architectures):
        raise ModelError(
            f"{folder}: is a classifier of texts or pairs ({architectures[0]}), not an encoder; use it as a reranker,"
            " or pass an encoder"
        )
    if any(module.kind == "LogitScore" for module in modules_of(folder)):
        raise ModelError(
            f"{folder}: is a reranker (modules.json lists LogitScore), not an encoder; use it as a reranker"
        )
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
    own_name = name or " ".join([folder.name, str(read_config(folder).get("_name_or_path", ""))])
    family = family_of(own_name)
    settings = _pooling_settings(folder)
    chosen, why = _pooling(folder, settings, family, pooling)
    query, passage, told = _own_prompts(folder)
    prompts = "from the folder's prompts" if told else "none"
    if not told and family is not None and (family.query_instruction or family.passage_instruction):
        query, passage, prompts = family.query_instruction, family.passage_instruction, f"family {family.name}, by name"
    max_length = min(own_length(folder), _DEFAULT_MAX_LENGTH)
    sources = f"pooling {chosen} ({why}), instructions {query!r}/{passage!r} ({prompts}), max length {max_length}"
    if name is None and family is not None and ("by name" in why or "by name" in prompts):
        names_logger.warning("%s: is taken for a %s by its name: %s", folder.name, family.name, sources)
    else:
        logger.info("%s: %s", folder.name, sources)
    dense = tuple(module.folder for module in modules_of(folder) if module.kind == "Dense")
    truncate_dim = read_object(folder / "config_sentence_transformers.json").get("truncate_dim")
    include_prompt = bool((settings or {}).get("include_prompt", True))
    return Checkpoint(folder, chosen, query, passage, max_length, dense, sources, truncate_dim, include_prompt)


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


def _own_prompts(folder: Path) -> tuple[str, str, bool]:
    """Query and passage prompt, and whether the folder names any, be it an empty one.

    A side without a prompt of its own gets the default prompt, as in ``SentenceTransformer.encode``.
    """
    settings = read_object(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{folder / 'config_sentence_transformers.json'}: default_prompt_name {default!r} is not among its prompts;"
            " restore the checkpoint's file"
        )
    common = prompts.get(default) or ""
    query = prompts.get("query", common)
    passage = next((prompts[name] for name in ("passage", "document", "corpus") if name in prompts), common)
    told = default is not None or any(name in prompts for name in ("query", "passage", "document", "corpus"))
    return query or "", passage or "", told
