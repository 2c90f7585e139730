"""What the files of two checkpoints say beside the weights, compared: configuration, pooling, instructions, length.

A folder that says nothing of its pooling, its instructions or its length is not held to what another says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecom_rag.merging.files import Opened
from ecom_rag.models.checkpoints.checkpoint import describe, own_length
from ecom_rag.models.checkpoints.folder import read_json
from ecom_rag.models.checkpoints.locate import hub_name
from ecom_rag.models.families import family_of

# Keys of a configuration that change no output of the network.
_KEYS = """
_name_or_path _commit_hash transformers_version torch_dtype dtype architectures use_cache gradient_checkpointing
output_past id2label label2id num_labels problem_type initializer_range initializer_factor attn_implementation
sentence_transformers auto_map finetuning_task tokenizer_class bos_token_id eos_token_id return_dict
output_hidden_states output_attentions
"""
_HARMLESS = frozenset(_KEYS.split())
_SETTINGS = (
    ("config_sentence_transformers.json", "default_prompt_name", None),
    ("config_sentence_transformers.json", "truncate_dim", None),
    ("1_Pooling/config.json", "include_prompt", True),
)
_DESCRIBED = ("pooling", "query_instruction", "passage_instruction", "max_length")
_NAMED = 3


def differences(first: Opened, other: Opened) -> Iterator[str]:
    """What in the files makes another model of the same weights; one sentence each."""
    yield from _configs(first.folder, other.folder)
    yield from _descriptions(first, other)
    yield from _settings(first.folder, other.folder)


def _configs(first: Path, other: Path) -> Iterator[str]:
    left, right = _config(first), _config(other)
    differing = [
        key
        for key in sorted(left.keys() & right.keys())
        if left[key] != right[key] and key not in _HARMLESS and "dropout" not in key and not key.startswith("_")
    ]
    if differing:
        cases = ", ".join(f"{key} {right[key]!r} for {left[key]!r}" for key in differing[:_NAMED])
        yield (f"config.json differs in {len(differing)} keys ({cases}); the same weights would mean another network")


def _config(folder: Path) -> dict[str, Any]:
    """The configuration with its defaults filled in, where transformers knows the architecture."""
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except Exception:  # an architecture with code of its own
        return read_json(folder / "config.json")
    return found


def _descriptions(first: Opened, other: Opened) -> Iterator[str]:
    """Pooling, instructions and length, as the models are loaded."""
    left, right = _described(first), _described(other)
    for key in _DESCRIBED:
        if key in left and key in right and left[key] != right[key]:
            yield (
                f"their {key.replace('_', ' ')} differs, {right[key]!r} for {left[key]!r}; make their files say the"
                " same if that is meant"
            )


def _described(model: Opened) -> dict[str, Any]:
    """What the files, or a name that is known, say of a model."""
    folder = model.folder
    config, own = read_json(folder / "config.json"), read_json(folder / "sentence_bert_config.json")
    said: dict[str, Any] = {}
    if own.get("max_seq_length") or read_json(folder / "tokenizer_config.json").get("model_max_length"):
        said["max_length"] = own_length(folder)
    if model.is_reranker:
        return said
    known = family_of(hub_name(model.name) or f"{folder.name} {config.get('_name_or_path', '')}") is not None
    tells_pooling = known or (folder / "1_Pooling").is_dir() or (folder / "modules.json").exists()
    found = describe(folder, name=hub_name(model.name), pooling=None if tells_pooling else "cls")
    if tells_pooling:
        said["pooling"] = found.pooling
    if known or (folder / "config_sentence_transformers.json").exists():
        said["query_instruction"], said["passage_instruction"] = found.query_instruction, found.passage_instruction
    return said


def _settings(first: Path, other: Path) -> Iterator[str]:
    """Keys of single files: those that ``_SETTINGS`` lists, the prompts of other tasks, and all of Dense modules."""
    for name, key, default in _SETTINGS:
        if (first / name).exists() and (other / name).exists():
            left, right = (read_json(folder / name).get(key, default) for folder in (first, other))
            if left != right:
                yield f"{name} has {key} {right!r} for {left!r}; the same weights would give other vectors"
    left, right = (
        read_json(folder / "config_sentence_transformers.json").get("prompts") or {} for folder in (first, other)
    )
    tasks = [task for task in left.keys() & right.keys() if left[task] != right[task]]
    for task in sorted(tasks):
        yield f"they were trained with other prompts, {right[task]!r} for {left[task]!r} of the task {task!r}"
    left, right = _dense(first), _dense(other)
    for path in left.keys() & right.keys():
        keys = sorted(
            key for key in left[path].keys() | right[path].keys() if left[path].get(key) != right[path].get(key)
        )
        if keys:
            yield f"{path}/config.json has {keys[0]} {right[path].get(keys[0])!r} for {left[path].get(keys[0])!r}"


def _dense(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings of Dense modules by their path; an activation by its class, wherever it is defined."""
    found = {}
    for module in read_json(folder / "modules.json").get("items", []):
        if str(module.get("type", "")).endswith(".Dense"):
            settings = read_json(folder / str(module.get("path", "")) / "config.json")
            activation = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
            found[str(module["path"])] = {"bias": True, **settings, "activation_function": activation}
    return found
