"""Models opened side by side, checked to be the same network, and their merged tensors."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, listed, path_of, path_or_none
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.files import workfolders
from ecom_rag.merging import files
from ecom_rag.merging.compatible import check_alike, is_shared
from ecom_rag.merging.methods import WITH_BASE, Mix, apply, check_mix
from ecom_rag.values import type_name

_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h|block)\.(\d+)\.")


class Models:
    """Checkpoints opened for merging; at any time one tensor of each is in memory.

    The *reference* is the base where one is named, else the first model: from it come the tokenizer, configuration and
    pooling files, the buffers of integers, and the dtype of every tensor.

    Args:
        names: Local folders, hub ids or ``starter``.
        base: The model that the others were tuned from.

    Raises:
        ModelError: A model cannot be found or read, or is another network than the reference: other tensors, shapes,
            configuration, pooling, prompts or tokenizer; the message names the difference.
    """

    def __init__(self, names: Sequence[str], *, base: str | None = None) -> None:
        self.opened = [files.open_model(name) for name in names]
        self.base = None if base is None else files.open_model(base)
        self.reference = self.base or self.opened[0]
        for model in self.opened:
            if model is not self.reference:
                check_alike(self.reference, model)
        network = self.reference.parts[files.NETWORK].keys()
        self.layers = 1 + max((int(found[1]) for key in network if (found := _LAYER.search(key))), default=0)

    def __len__(self) -> int:
        return len(self.opened)

    def merged(self, mix: Mix) -> Iterator[tuple[str, str, Tensor]]:
        """The merged tensors, one at a time: name of the part, name of the tensor, tensor.

        Args:
            mix: With more than one row of weights, each block of layers has its own.

        Raises:
            UsageError: The mix does not fit the models.
        """
        mix = self.checked(mix)
        for part, like in self.reference.parts.items():
            yield from ((part, key, self._merge(mix, part, key)) for key in files.write_order(like))

    def checked(self, mix: Mix) -> Mix:
        """The mix as ``check_mix`` gives it, if it fits these models.

        Raises:
            UsageError: It does not fit.
        """
        if len(mix.weights) > self.layers:
            raise UsageError(f"{len(mix.weights)} blocks of layers asked for, but the models have {self.layers} layers")
        return check_mix(mix, len(self), has_base=self.base is not None)

    def _merge(self, mix: Mix, part: str, key: str) -> Tensor:
        reference = self.reference.parts[part]
        own = [model.parts[part] for model in self.opened]
        if not reference.dtype(key).is_floating_point or not is_shared(key, [reference, *own]):
            return reference.tensor(key)  # positions, an unused pooler and the like: nothing to average
        block = block_of(key, self.layers, len(mix.weights), whole=part == files.NETWORK)
        tensors = [model.tensor(key) for model in own]
        base = reference.tensor(key) if mix.method in WITH_BASE else None
        return apply(mix, tensors, base, block=block).to(reference.dtype(key))

    def write(
        self,
        output: str,
        mix: Mix,
        *,
        details: dict[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Write the merged checkpoint; the folder appears only when it is complete.

        Args:
            output: Folder that does not exist yet.
            mix: How to merge.
            details: More for ``merge_report.json``, e.g. how the weights were found.
            progress: Called with the number of tensors done.

        Returns:
            What ``merge_report.json`` says: sources with fingerprints, weights, method, versions.

        Raises:
            UsageError: The folder exists, or the weights do not fit.
            ModelError: A tensor came out as NaN or infinity.
        """
        mix = self.checked(mix)
        with workfolders.new_folder(Path(output), kind="merge") as fresh:
            files.copy_settings(self.reference.folder, fresh)
            for part, like in self.reference.parts.items():
                files.write_part(fresh / part, like, self._checked(mix, part, like, progress))
            report = {**self._report(mix), **(details or {})}
            text = json.dumps(report, indent=1, ensure_ascii=False)
            (fresh / "merge_report.json").write_text(f"{text}\n", encoding="utf-8")
        return report

    def _checked(
        self, mix: Mix, part: str, like: files.Part, progress: Callable[[int], None] | None
    ) -> Iterator[tuple[str, Tensor]]:
        for key in files.write_order(like):
            tensor = self._merge(mix, part, key)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ModelError(
                    f"{part}: {key} merged to NaN or infinity; a model is damaged, or the weights are too"
                    f" large for {tensor.dtype}"
                )
            yield key, tensor
            if progress is not None:
                progress(1)

    def _report(self, mix: Mix) -> dict[str, Any]:
        report: dict[str, Any] = {
            "method": mix.method,
            "models": [
                {"model": one.name, "fingerprint": one.fingerprint, "weight": [row[position] for row in mix.weights]}
                for position, one in enumerate(self.opened)
            ],
        }
        if self.base is not None:
            report["base"] = {"model": self.base.name, "fingerprint": self.base.fingerprint}
        if len(mix.weights) > 1:
            report["blocks"] = len(mix.weights)
        if mix.method in WITH_BASE:
            report["lambda"] = mix.scale
        if mix.method == "ties":
            report["density"] = mix.density
        report["versions"] = {"ecom_rag": __version__, "torch": torch.__version__}
        return report


def merge(
    names: Sequence[PathLike],
    output: PathLike,
    mix: Mix,
    *,
    base: PathLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Merge checkpoints of one network into a new folder; encoders, rerankers and bge-m3 with its heads alike.

    Args:
        names: Local folders (``str`` or ``Path``), hub ids or ``starter``.
        output: Folder that does not exist yet; it appears only when complete.
        mix: Method and weights.
        base: For ``task-arithmetic`` and ``ties`` the model that the others were tuned from.
        progress: Called with the number of tensors done.

    Returns:
        What ``merge_report.json`` in the folder says.

    Raises:
        ModelError: The models are not the same network.
        UsageError: Options that make no sense.
    """
    found = [path_of(name, f"names[{row}]") for row, name in enumerate(listed(names, "names", "a list of models"))]
    output, base = path_of(output, "output"), path_or_none(base, "base")
    if not isinstance(mix, Mix):
        raise UsageError(f"mix is of type {type_name(mix)}; expected Mix(...)")
    workfolders.check_new(Path(output))
    check_mix(mix, len(found), has_base=base is not None)
    return Models(found, base=base).write(output, mix, progress=progress)


def block_of(key: str, layers: int, blocks: int, *, whole: bool = True) -> int:
    """The block of layers that a tensor belongs to: embeddings to the first, poolers and heads to the last.

    Args:
        key: Name of the tensor.
        layers: Of the network.
        blocks: How many blocks the layers are cut into, as equal as can be.
        whole: Whether the tensor is one of the network itself, not of a head beside it.
    """
    found = _LAYER.search(key)
    if found:
        return int(found[1]) * blocks // layers
    return 0 if whole and "embeddings" in key else blocks - 1
