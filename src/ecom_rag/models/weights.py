"""A checkpoint's tensors by name, read without building a model."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoint import read_json

_OLD_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))  # LayerNorm in checkpoints of 2018
_PREFIX = re.compile(r"^(bert|roberta|distilbert|mpnet|electra|model|new)\.")  # of the base model in one with a head


class Weights:
    """Tensors of a checkpoint; each is asked for by name, and a missing one is an error, never random.

    Args:
        tensors: By name.
        folder: For messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        self._tensors = tensors
        self._folder = folder

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelError(f"{self._folder}: the weights lack tensors (e.g. {name}) and would be random; expected a"
                             " complete checkpoint of this kind")  # fmt: skip
        return self._tensors[name].float()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias."""
        return self[f"{name}.weight"], self[f"{name}.bias"]


def read_weights(folder: Path) -> Weights:
    """The tensors of a folder, memory-mapped where they are safetensors, without the prefix of the base model.

    Raises:
        ModelError: There are no weights, or they cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        tensors.update(read_tensors(path))
    return Weights({plain_name(name): tensor for name, tensor in tensors.items()}, folder)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one ``.safetensors`` file, or of one that torch wrote.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return _read(path)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: cannot be read ({first[:200]}); copy it again") from None


def _files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return [folder / shard for shard in sorted(set(read_json(index)["weight_map"].values()))]
    raise ModelError(f"{folder}: no weights found; expected model.safetensors or pytorch_model.bin")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def plain_name(name: str) -> str:
    """A tensor's name as the base model has it, whatever model it was saved from."""
    for old, new in _OLD_NAMES:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return _PREFIX.sub("", name)
