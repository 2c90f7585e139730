"""Checkpoints small enough to ship: matrices as int8 with one scale a row, unpacked once to an ordinary folder."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from ecom_rag.errors import ModelError
from ecom_rag.models.cache import cache_folder

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
    for name, tensor in load_file(folder / "model.safetensors").items():
        if tensor.dim() != 2 or not tensor.is_floating_point():
            tensors[name] = tensor
            continue
        scale = tensor.float().abs().amax(dim=1) / 127
        tensors[name + _SCALE] = scale
        tensors[name] = torch.round(tensor.float() / scale.clamp(min=1e-30)[:, None]).to(torch.int8)
    save_file(tensors, target / PACKED, metadata={"format": "pt"})
    for path in _companions(folder):
        shutil.copyfile(path, target / path.name)


def unpacked(folder: Path) -> Path:
    """An ordinary checkpoint in the cache with the weights of a packed one; made on the first call.

    Raises:
        ModelError: The weights cannot be read, or the cache cannot be written.
    """
    from safetensors.torch import load_file, save_file

    packed = folder / PACKED
    digest = hashlib.sha256(packed.read_bytes())
    for path in _companions(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    place = cache_folder() / "unpacked" / digest.hexdigest()[:32]
    if place.is_dir():
        return place
    try:
        stored = load_file(packed)
    except Exception as error:  # safetensors has its own error class, not exported
        raise ModelError(f"{packed}: cannot be read ({error}); copy it again") from None
    tensors = {
        name: tensor.float() * stored[name + _SCALE][:, None] if name + _SCALE in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }
    part: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=place.parent, prefix=".unpacking-"))
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        for path in _companions(folder):
            shutil.copyfile(path, part / path.name)
        part.rename(place)
    except Exception as error:  # a full disk is safetensors' own error
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        if not place.is_dir():  # else another process was quicker
            raise ModelError(f"{place}: cannot be written ({error}); set ECOM_RAG_CACHE to a folder that can") from None
    return place


def _companions(folder: Path) -> list[Path]:
    """Configuration and tokenizer of a checkpoint."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    return [folder / name for name in names if (folder / name).exists()]
