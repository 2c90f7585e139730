"""Telling checkpoints apart by their content."""

import hashlib
from pathlib import Path
from typing import Any

from ecom_rag.files import digest
from ecom_rag.models.checkpoints.folder import modules_of, network_folder, read_object, sentence_settings

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


def fingerprint(folder: Path) -> str:
    """A digest of weights, tokenizer and configuration: equal for equal models, wherever they lie.

    Lengths and instructions are not in it: they can be set, and are part of an encoder's settings. Digests of large
    files are remembered (see ``digest.remembered``), so that only the first call reads all of them.
    """
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "vocab.txt"]
    files = [folder / name for name in names if (folder / name).exists()]
    files += sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    files += sorted(folder.glob("[0-9]*_*/*"))
    own = {path for module in modules_of(folder) if module.folder != folder for path in module.folder.glob("*")}
    files += sorted(own - set(files))
    total = hashlib.sha256()
    for path in files:
        if path.is_file():
            total.update(f"{path.relative_to(folder)}:{digest.remembered(path)}\n".encode())
    for line in _beside(folder):
        total.update(f"{line}\n".encode())
    return total.hexdigest()[:32]


def _beside(folder: Path) -> list[str]:
    """What else changes the token ids; nothing for most checkpoints, whose digest is that of the files alone."""
    network = network_folder(folder)
    lines = ["do_lower_case"] if sentence_settings(folder).get("do_lower_case") else []
    told = read_object(network / "tokenizer_config.json")
    special = read_object(network / "special_tokens_map.json")
    lines += [f"{key}:{value}" for key, value in sorted(special.items()) if _token(value) != _token(told.get(key))]
    patterns = ["added_tokens.json"]
    if not (network / "tokenizer.json").exists():  # else they are not read
        patterns += ["vocab.json", "merges.txt", "*.model"]
    for path in sorted(path for pattern in patterns for path in network.glob(pattern)):
        lines.append(f"{path.name}:{digest.remembered(path)}")
    return lines


def _token(value: Any) -> Any:
    """A special token, written as a string or as an object."""
    return value.get("content") if isinstance(value, dict) else value
