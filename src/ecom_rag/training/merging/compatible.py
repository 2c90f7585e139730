"""Whether two checkpoints are the same network with other numbers in it; if not, what the difference is."""

from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoint import describe, read_json
from ecom_rag.training.merging.files import NETWORK, Part

_PROBES = ("Genuine LEATHER wallet №5, 50%OFF!", "全新iPhone手机壳，Ａ４大小…", "café naïve Straße ﬁ")
# Keys of a configuration that change no output of the network.
_HARMLESS = {
    "_name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache",
    "gradient_checkpointing", "output_past", "id2label", "label2id", "num_labels", "problem_type", "initializer_range",
    "initializer_factor", "attn_implementation", "sentence_transformers", "auto_map", "finetuning_task",
    "tokenizer_class", "bos_token_id", "eos_token_id", "return_dict", "output_hidden_states", "output_attentions",
}  # fmt: skip
_NAMED = 3


def check_alike(
    first: str, first_folder: Path, first_parts: dict[str, Part], other: str, folder: Path, parts: dict[str, Part]
) -> None:
    """Raise unless two checkpoints can be merged.

    Args:
        first: Name of the reference.
        first_folder: Its folder.
        first_parts: Its tensors.
        other: Name of the model that is checked.
        folder: Its folder.
        parts: Its tensors.

    Raises:
        ModelError: Names the difference, with the first few cases and how many there are.
    """
    if set(parts) != set(first_parts):
        raise ModelError(f"{other} and {first} cannot be merged: {_sets(set(first_parts), set(parts), 'parts')};"
                         " both must have the same heads and modules")  # fmt: skip
    for name in first_parts:
        _check_tensors(f"{other} and {first} cannot be merged: {name} ", first_parts[name], parts[name])
    _check_configs(first, first_folder, other, folder)
    _check_pooling(first, first_folder, other, folder)
    _check_tokenizers(first, first_folder, other, folder)


def _check_tensors(start: str, first: Part, other: Part) -> None:
    needed = {key for key in first.keys() if first.dtype(key).is_floating_point}  # noqa: SIM118
    found = {key for key in other.keys() if other.dtype(key).is_floating_point}  # noqa: SIM118
    if needed != found:
        raise ModelError(f"{start}has other tensors, {_sets(needed, found, 'tensors')};"
                         " expected two checkpoints of one architecture")  # fmt: skip
    shapes = [key for key in sorted(needed) if first.shape(key) != other.shape(key)]
    if shapes:
        cases = ", ".join(f"{key} {list(other.shape(key))} for {list(first.shape(key))}" for key in shapes[:_NAMED])
        raise ModelError(f"{start}has other shapes in {len(shapes)} tensors ({cases}); expected two checkpoints of one"
                         " architecture and vocabulary")  # fmt: skip


def _check_configs(first: str, first_folder: Path, other: str, folder: Path) -> None:
    left, right = _config(first_folder), _config(folder)
    differing = [
        key
        for key in sorted(left.keys() & right.keys())
        if left[key] != right[key] and key not in _HARMLESS and "dropout" not in key and not key.startswith("_")
    ]
    if differing:
        cases = ", ".join(f"{key} {right[key]!r} for {left[key]!r}" for key in differing[:_NAMED])
        raise ModelError(f"{other} and {first} cannot be merged: config.json differs in {len(differing)} keys"
                         f" ({cases}); the same weights would mean another network")  # fmt: skip


def _config(folder: Path) -> dict[str, Any]:
    """The configuration with its defaults filled in, where transformers knows the architecture."""
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except Exception:  # an architecture with code of its own
        return read_json(folder / "config.json")
    return found


def _check_pooling(first: str, first_folder: Path, other: str, folder: Path) -> None:
    if all((path / "1_Pooling").is_dir() or (path / "modules.json").exists() for path in (first_folder, folder)):
        left, right = describe(first_folder).pooling, describe(folder).pooling
        if left != right:
            raise ModelError(f"{other} and {first} cannot be merged: one pools by {right}, the other by {left}")
    name = "config_sentence_transformers.json"
    if all((path / name).exists() for path in (first_folder, folder)):
        before, after = (
            {key: text for key, text in (read_json(path / name).get("prompts") or {}).items() if text}
            for path in (first_folder, folder)
        )
        if before != after:
            raise ModelError(f"{other} and {first} cannot be merged: they were trained with other prompts"
                             f" ({after} for {before}); make the two {name} the same if that is meant")  # fmt: skip


def _check_tokenizers(first: str, first_folder: Path, other: str, folder: Path) -> None:
    left, right = _vocabulary(first_folder), _vocabulary(folder)
    if left is None or right is None:
        lacking = first_folder if left is None else folder
        raise ModelError(f"{lacking}: has no tokenizer.json, so it cannot be checked that both models read texts the"
                         " same way; save a fast tokenizer beside the weights")  # fmt: skip
    if left[0] != right[0]:
        moved = [token for token, number in left[0].items() if right[0].get(token, number) != number]
        if set(left[0]) == set(right[0]):
            cases = ", ".join(f"{token!r} {right[0][token]} for {left[0][token]}" for token in sorted(moved)[:_NAMED])
            what = f"{len(moved)} tokens have other numbers ({cases})"
        else:
            what = _sets(set(left[0]), set(right[0]), "tokens")
        raise ModelError(f"{other} and {first} cannot be merged: their vocabularies differ, {what}; weights are merged"
                         " token by token")  # fmt: skip
    for text, ours, theirs in zip(_PROBES, left[1], right[1], strict=True):
        if ours != theirs:
            raise ModelError(f"{other} and {first} cannot be merged: their tokenizers read {text!r} differently"
                             f" ({theirs[:6]} for {ours[:6]}), e.g. one lower-cases; use one tokenizer")  # fmt: skip


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[list[str]]] | None:
    """Token numbers, and the tokens of a few probing texts."""
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").exists():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:
        raise ModelError(f"{folder / 'tokenizer.json'}: cannot be read ({str(error)[:100]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.get_vocab(with_added_tokens=True), [tokenizer.encode(text).tokens for text in _PROBES]


def _sets(expected: set[str], found: set[str], what: str) -> str:
    """What one has and the other has not: how many, and the first few."""
    sides = []
    for word, keys in (("lacks", expected - found), ("has besides", found - expected)):
        if keys:
            names = [f"{key} ({NETWORK})" if key == NETWORK else repr(key) for key in sorted(keys)[:_NAMED]]
            more = ", ..." if len(keys) > _NAMED else ""
            sides.append(f"it {word} {len(keys)} {what} ({', '.join(names)}{more})")
    return " and ".join(sides)
