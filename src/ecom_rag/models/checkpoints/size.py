"""The files of a checkpoint's weights, and how many numbers lie in them, read from their headers alone."""

import json
import math
import re
from pathlib import Path

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import network_folder, read_config, read_object

_UNLOADED = ("decoder.", "lm_head.")  # what an encoder leaves out of a whole checkpoint
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes


def weight_files(folder: Path) -> list[Path]:
    """Where the weights lie in a folder: one file, or shards.

    Raises:
        ModelError: There is none, or an index that names none.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = read_object(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise ModelError(f"{index}: names no shards; copy the checkpoint again")
            return [folder / shard for shard in sorted(set(shards.values()))]
    raise ModelError(f"{folder}: no weights found; expected model.safetensors or pytorch_model.bin")


def parameters(folder: Path, *, layers: int | None = None) -> int:
    """Numbers in a checkpoint's network, at least; no weight is read.

    Of safetensors, what the headers state; of a pickle, its size over the width that ``config.json`` tells. A file that
    is missing or damaged counts nothing: whoever reads it says so.

    Args:
        folder: The checkpoint.
        layers: How many of its layers are loaded; ``None`` is all. A pickle counts whole.
    """
    config = read_config(folder)
    width = _WIDTHS.get(str(config.get("dtype") or config.get("torch_dtype")), 4)
    total = 0
    for path in weight_files(network_folder(folder)):
        try:
            total += _stated(path, layers) if path.suffix == ".safetensors" else path.stat().st_size // width
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue
    return total


def _stated(path: Path, layers: int | None) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and not name.startswith(_UNLOADED) and not _behind(name, layers)
    )


def _behind(name: str, layers: int | None) -> bool:
    """Whether a tensor is of a layer that is not loaded."""
    found = _LAYER.search(name)
    return layers is not None and found is not None and int(found[1]) >= layers
