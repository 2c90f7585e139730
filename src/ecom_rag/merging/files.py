"""Checkpoints as tensors that are read one at a time, whatever the files they lie in, and written the same way.

A folder has up to three kinds of *parts*: the network itself, bge-m3's heads (``colbert_linear.pt``,
``sparse_linear.pt``), and the layers of sentence-transformers' module folders (``2_Dense``). A part is read from
safetensors or from ``.bin`` / ``.pt`` files, in one piece or in shards with an index.
"""

import json
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ecom_rag.errors import ModelError
from ecom_rag.files import disk
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.folder import read_json
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.weights import plain_name, read_tensors

NETWORK = "model.safetensors"
HEADS = ("colbert_linear.pt", "sparse_linear.pt")
_SOURCES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_COPIED = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizer, configuration, pooling, prompts
_NOT_COPIED = ("*.index.json", "*_report.json", "trainer_state.json", "*_results.json")
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class Part:
    """One part of a checkpoint, open for reading; a tensor is in memory only while it is used.

    Tensors go by their plain names: a network saved from a model with a head has the names of the network alone.

    Args:
        files: Where it lies: one file, or the shards of one.

    Raises:
        ModelError: A file is damaged, holds something else than tensors, or two of one plain name.
    """

    def __init__(self, files: list[Path]) -> None:
        self._readers: dict[str, Any] = {}
        self._stored: dict[str, str] = {}
        for file in files:
            try:
                if file.suffix == ".safetensors":
                    reader: Any = safe_open(file, "pt")  # type: ignore[no-untyped-call,unused-ignore]
                    names = list(reader.keys())
                else:
                    reader = read_tensors(file)
                    names = list(reader)
            except FileNotFoundError:
                raise ModelError(
                    f"{file}: no such file, though the index names it; copy the checkpoint again"
                ) from None
            except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ModelError(f"{file}: cannot be read ({first[:120]}); copy the checkpoint again") from None
            for stored in names:
                name = plain_name(stored)
                if self._stored.setdefault(name, stored) != stored:
                    raise ModelError(
                        f"{file}: holds the tensor {name} twice, as {self._stored[name]} and as {stored}; save the"
                        " checkpoint again"
                    )
                self._readers[name] = reader

    def keys(self) -> list[str]:
        """Plain names of the tensors, sorted."""
        return sorted(self._readers)

    def __contains__(self, key: str) -> bool:
        return key in self._readers

    def stored(self, key: str) -> str:
        """The name of a tensor in the file."""
        return self._stored[key]

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        reader, name = self._readers[key], self._stored[key]
        return tuple(reader[name].shape if isinstance(reader, dict) else reader.get_slice(name).get_shape())

    def dtype(self, key: str) -> torch.dtype:
        """Type of a tensor, without reading it.

        Raises:
            ModelError: A type that cannot be merged.
        """
        reader, stored = self._readers[key], self._stored[key]
        if isinstance(reader, dict):
            found = reader[stored].dtype
            name = str(found)
        else:
            name = reader.get_slice(stored).get_dtype()
            found = _DTYPES.get(name)
        if found not in _NAMES:
            raise ModelError(f"tensor {stored} is of type {name}; expected one of {', '.join(_DTYPES)}")
        return found

    def tensor(self, key: str) -> Tensor:
        """Read a tensor."""
        reader, name = self._readers[key], self._stored[key]
        tensor: Tensor = reader[name] if isinstance(reader, dict) else reader.get_tensor(name)
        return tensor


@dataclass(frozen=True)
class Opened:
    """A checkpoint open for merging.

    Args:
        name: As the user names it.
        folder: Where it lies.
        parts: Its tensors.
    """

    name: str
    folder: Path
    parts: dict[str, Part]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of its files."""
        return fingerprint(self.folder)

    @cached_property
    def is_reranker(self) -> bool:
        """Whether it is a sequence classifier, which uses its pooler."""
        kinds = read_json(self.folder / "config.json").get("architectures") or []
        return any("SequenceClassification" in kind for kind in kinds)


def open_model(name: str) -> Opened:
    """Find a checkpoint and open its parts.

    Args:
        name: Local folder, hub id or ``starter``.

    Raises:
        ModelError: It cannot be found, has no weights, or has files that cannot be read.
    """
    folder = locate(name)
    return Opened(name, folder, parts_of(folder))


def parts_of(folder: Path) -> dict[str, Part]:
    """The parts of a checkpoint by the name under which a merged one keeps them.

    Raises:
        ModelError: No weights, or files that cannot be read.
    """
    found = {NETWORK: Part(_files(folder))}
    for name in HEADS:
        if (folder / name).exists():
            found[name] = Part([folder / name])
    for module in read_json(folder / "modules.json").get("items", []):
        path = str(module.get("path", ""))
        if path and any((folder / path / name).exists() for name in _SOURCES):
            found[f"{path}/{NETWORK}"] = Part(_files(folder / path))
    return found


def copy_settings(source: Path, target: Path) -> list[str]:
    """Copy all that is not weights: tokenizer, configuration, pooling, prompts; returns the names."""
    folders = [Path()] + [
        Path(str(module["path"]))
        for module in read_json(source / "modules.json").get("items", [])
        if module.get("path")
    ]
    if (source / "1_Pooling").is_dir():
        folders.append(Path("1_Pooling"))
    copied = []
    for folder in dict.fromkeys(folders):
        (target / folder).mkdir(exist_ok=True)
        for pattern in _COPIED:
            for path in sorted((source / folder).glob(pattern)):
                if path.is_file() and not any(path.match(other) for other in _NOT_COPIED):
                    shutil.copyfile(path, target / folder / path.name)
                    copied.append(str(folder / path.name))
    return copied


def write_part(path: Path, like: Part, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write a part whose tensors come one at a time.

    Args:
        path: ``.safetensors``, written as it comes, or a small ``.pt`` file.
        like: Has the shapes and types, and the names that the file gets.
        tensors: In the order of ``write_order(like)``.
    """
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".pt":
        with path.open("wb") as handle:
            torch.save({like.stored(key): tensor for key, tensor in tensors}, handle)
    else:
        _write_safetensors(path, like, tensors)
    disk.sync_file(path)


def write_order(part: Part) -> list[str]:
    """Names with the widest types first, so that every tensor is aligned, as safetensors itself orders them."""
    return sorted(part.keys(), key=lambda key: (-part.dtype(key).itemsize, key))


def _write_safetensors(path: Path, like: Part, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """The format: length of the header (u64), header as JSON, then the bytes of the tensors without gaps."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key in write_order(like):
        dtype, shape = like.dtype(key), like.shape(key)
        size = dtype.itemsize * int(torch.Size(shape).numel())
        header[like.stored(key)] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in tensors:
            handle.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        if handle.tell() != 8 + len(text) + position:
            raise ModelError(f"{path}: {handle.tell()} bytes written, expected {8 + len(text) + position}")


def _files(folder: Path) -> list[Path]:
    for name in _SOURCES:
        path = folder / name
        if path.exists():
            if not name.endswith(".index.json"):
                return [path]
            shards = read_json(path).get("weight_map") or {}
            if not shards:
                raise ModelError(f"{path}: names no shards; copy the checkpoint again")
            return [folder / shard for shard in dict.fromkeys(shards.values())]
    found = ", ".join(sorted(item.name for item in folder.iterdir())[:6]) or "nothing"
    raise ModelError(f"{folder}: holds no weights (found {found}); expected one of {', '.join(_SOURCES)}")
