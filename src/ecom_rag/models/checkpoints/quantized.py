"""Checkpoints small enough to ship: matrices as int8 with one scale a row, unpacked once to an ordinary folder."""

import hashlib
import shutil
from functools import partial
from pathlib import Path

from ecom_rag.errors import ModelError
from ecom_rag.files import cache, disk
from ecom_rag.models.checkpoints.unpacking import WEIGHTS, unpacked_as

PACKED = "model.int8.safetensors"
_SCALE = ".row_scale"


def pack(folder: Path, target: Path) -> None:
    """Write a checkpoint with its matrices in int8, a quarter of the size.

    A row ``w`` becomes ``round(w / s)`` with ``s = max|w| / 127``: no weight moves by more than half a step. Vectors
    (biases, layer norms) stay as they are.

    Args:
        folder: A checkpoint with ``model.safetensors``.
        target: Written anew; configuration and tokenizer are copied.
    """
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        if tensor.dim() != 2 or not tensor.is_floating_point():
            tensors[name] = tensor
            continue
        scale = tensor.float().abs().amax(dim=1) / 127
        tensors[name + _SCALE] = scale
        tensors[name] = torch.round(tensor.float() / scale.clamp(min=1e-30)[:, None]).to(torch.int8)
    with disk.writing(target):
        save_file(tensors, target / PACKED, metadata={"format": "pt"})
        for path in _companions(folder):
            shutil.copyfile(path, target / path.name)
    disk.open_to_others(target / PACKED)


def unpacked(folder: Path) -> Path:
    """An ordinary checkpoint in the cache with the weights of a packed one; see ``unpacked_as``.

    Raises:
        ModelError: The weights cannot be read, or there is no room for them anywhere.
    """
    packed = folder / PACKED
    digest = hashlib.sha256(packed.read_bytes())
    for path in _companions(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return unpacked_as(digest.hexdigest()[:32], partial(_unpack, folder))


def _unpack(folder: Path, fresh: Path) -> None:
    """Fill the folder ``fresh``."""
    from safetensors.torch import load_file, save_file

    packed = folder / PACKED
    try:
        stored = load_file(packed)
    except Exception as error:
        raise ModelError(f"{packed}: cannot be read ({cache.reason(error)}); copy it again") from None
    tensors = {
        name: tensor.float() * stored[name + _SCALE][:, None] if name + _SCALE in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }
    save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
    for path in _companions(folder):
        shutil.copyfile(path, fresh / path.name)


def _companions(folder: Path) -> list[Path]:
    """Configuration and tokenizer of a checkpoint."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    return [folder / name for name in names if (folder / name).exists()]
