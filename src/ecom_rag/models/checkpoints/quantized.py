"""Checkpoints small enough to ship: matrices as int8 with one scale a row, unpacked once to an ordinary folder."""

import hashlib
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ecom_rag.errors import ModelError
from ecom_rag.files import cache, disk

PACKED = "model.int8.safetensors"
_SCALE = ".row_scale"
_WEIGHTS = "model.safetensors"


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
    for name, tensor in load_file(folder / _WEIGHTS).items():
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
    """An ordinary checkpoint in the cache with the weights of a packed one; made on the first call.

    Where the cache cannot be written it is made in a temporary folder, for this process.

    Raises:
        ModelError: The weights cannot be read, or there is no room for them anywhere.
    """
    packed = folder / PACKED
    digest = hashlib.sha256(packed.read_bytes())
    for path in _companions(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    place = cache.cache_folder() / "unpacked" / digest.hexdigest()[:32]
    if _whole(place):
        return place
    try:
        _unpack(folder, place)
    except (OSError, SafetensorError) as error:  # a full disk is safetensors' own error
        place = cache.fallback(place, error)
        if not _whole(place):
            try:
                _unpack(folder, place)
            except (OSError, SafetensorError) as second:
                raise ModelError(f"{place}: cannot be written ({cache.reason(second)}); {cache.REMEDY}") from None
    return place


def _unpack(folder: Path, place: Path) -> None:
    """Make the folder ``place``, whole or not at all."""
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
    with cache.being_made(place) as made:
        fresh = made / place.name
        fresh.mkdir()
        save_file(tensors, fresh / _WEIGHTS, metadata={"format": "pt"})
        for path in _companions(folder):
            shutil.copyfile(path, fresh / path.name)
        disk.open_to_others(fresh)
        if place.exists() and not _whole(place):
            place.rename(made / "damaged")
        try:
            fresh.rename(place)
        except OSError:
            if not _whole(place):  # else another process was quicker
                raise


def _whole(place: Path) -> bool:
    """Whether an unpacked checkpoint is there with all of its weights; safetensors compares their length."""
    try:
        with safe_open(place / _WEIGHTS, "np") as weights:
            return bool(weights.keys()) and (place / "config.json").exists()
    except (OSError, SafetensorError):
        return False


def _companions(folder: Path) -> list[Path]:
    """Configuration and tokenizer of a checkpoint."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    return [folder / name for name in names if (folder / name).exists()]
