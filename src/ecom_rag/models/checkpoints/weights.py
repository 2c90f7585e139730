"""A checkpoint's tensors by name, read without building a model and without running what a pickle asks for."""

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.contents import ADAPTER
from ecom_rag.models.checkpoints.folder import network_folder
from ecom_rag.models.checkpoints.size import weight_files

_OLD_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))  # LayerNorm in checkpoints of 2018
_PREFIX = re.compile(r"^(bert|roberta|distilbert|mpnet|electra|model|new)\.")  # of the base model in one with a head
# Heads of pre-training and buffers, which no vector goes through.
_UNUSED = re.compile(
    r"(.*\.)?(position_ids|rotary_emb\.inv_freq)$|pooler\.|cls\.|lm_head\.|qa_outputs\.|mlm_head\.|lm_predictions\.|mask_predictions\."
    r"|predictions\.|sop_classifier\.|discriminator_predictions\.|generator_(predictions|lm_head)\."
    r"|vocab_(transform|layer_norm|projector)\."
)


class Weights:
    """Tensors of a checkpoint; each is asked for by name, and a missing one is an error, never random.

    Args:
        tensors: By name.
        folder: For messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        self._tensors = tensors
        self._folder = folder
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        return self._stored(name).float()

    def rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Some rows of a large matrix; the others are not converted."""
        return self._stored(name)[list(rows)].float()

    def _stored(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelError(
                f"{self._folder}: the weights lack tensors (e.g. {name}) and would be random; expected a complete"
                " checkpoint of this kind"
            )
        self._used.add(name)
        tensor = self._tensors[name]
        if not tensor.is_floating_point():
            raise ModelError(
                f"{self._folder}: tensor {name} is of type {tensor.dtype}; expected floating-point weights, use the"
                " checkpoint before it was quantised"
            )
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias."""
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def check_all_used(self, *, beside: tuple[str, ...] = ()) -> None:
        """Raise ``ModelError`` where tensors were not asked for, unless they are heads that no vector goes through.

        Args:
            beside: How the names of further ones start.
        """
        unused = self._tensors.keys() - self._used
        check_unused((name for name in unused if not name.startswith(beside)), self._folder)


def check_unused(names: Iterable[str], folder: Path) -> None:
    """Refuse weights that the network has no place for.

    Args:
        names: Tensors that no layer took.
        folder: For the message.

    Raises:
        ModelError: One of them is not a head of pre-training or a buffer.
    """
    strange = sorted(name for name in names if not _UNUSED.match(plain_name(name)))
    if not strange:
        return
    start = f"{folder}: the weights hold {len(strange)} tensors that the network of its config.json does not have"
    if any("lora_" in name or "adapter" in name for name in strange):
        raise ModelError(f"{start} (e.g. {strange[0]}), an adapter's; {ADAPTER}")
    if any(plain_name(name).startswith("classifier.") for name in strange):
        raise ModelError(f"{start} (e.g. {strange[0]}), a classifier's; use it as a reranker, or pass an encoder")
    raise ModelError(
        f"{start} (e.g. {strange[0]}), and without them the vectors are another model's; expected weights and"
        " config.json of one checkpoint"
    )


def read_weights(folder: Path) -> Weights:
    """The tensors of a folder, memory-mapped where the form allows it, without the prefix of the base model.

    Raises:
        ModelError: There are no weights, or they cannot be read.
    """
    asked: dict[str, Callable[[], Tensor]] = {}
    for path in weight_files(network_folder(folder)):
        for name, ask in _askers(path):
            if asked.setdefault(plain_name(name), ask) is not ask:
                raise ModelError(f"{path}: holds {plain_name(name)} twice; expected each tensor once")
    return Weights(_WhenAsked(asked), folder)


class _WhenAsked(Mapping[str, Tensor]):
    """Tensors that are read when they are asked for."""

    def __init__(self, asked: Mapping[str, Callable[[], Tensor]]) -> None:
        self._asked = asked

    def __getitem__(self, name: str) -> Tensor:
        return self._asked[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked)

    def __len__(self) -> int:
        return len(self._asked)


def _askers(path: Path) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The names in a file, and what reads each.

    Of ``.safetensors`` each tensor has a map of its own, so what a layer was packed from leaves the memory with it;
    in one map all that was touched would stay as long as the word embeddings, which are used as they lie.
    """
    if path.suffix != ".safetensors":
        tensors = read_tensors(path)
        yield from ((name, partial(tensors.__getitem__, name)) for name in tensors)
        return
    with _reading(path), _opened(path) as file:
        names = list(file.keys())
    yield from ((name, partial(_mapped, path, name)) for name in names)


def _mapped(path: Path, name: str) -> Tensor:
    with _reading(path), _opened(path) as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _opened(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one ``.safetensors`` file, or of one that torch wrote, before 1.6 or since.

    Raises:
        ModelError: It cannot be read, or holds something else than tensors.
    """
    with _reading(path):
        return _read(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises of a file into one line of ours."""
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; copy the checkpoint again") from None
    except UnpicklingError:
        raise ModelError(
            f"{path}: cannot be read (damaged, or a pickle of something else than tensors, which is never run); copy it"
            " again, or use a checkpoint in safetensors"
        ) from None
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: cannot be read ({first[:200]}); copy it again") from None


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    # Torch before 1.6 did not write zip files, and only those can be mapped.
    state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UnpicklingError
    return dict(state)


def plain_name(name: str) -> str:
    """A tensor's name as the base model has it, whatever model it was saved from."""
    for old, new in _OLD_NAMES:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return _PREFIX.sub("", name)
