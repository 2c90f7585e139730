"""A base checkpoint and an adapter of its network become one checkpoint (LoRA, Hu et al. 2021, arXiv:2106.09685).

The arithmetic is peft's. Names, types and settings of the new folder are those of the base, whichever class of
transformers the adapter was trained on: a language model with its head, or the network below it.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.files import workfolders
from ecom_rag.files.digest import of_file
from ecom_rag.merging import files
from ecom_rag.merging.compatible import backend_of
from ecom_rag.models.checkpoints.folder import network_folder, read_config, read_object
from ecom_rag.models.checkpoints.weights import plain_name, read_tensors
from ecom_rag.models.networks.loading import LOCAL, loading

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."  # peft's, before the names of the network


def merge_adapter(
    base: PathLike, adapter: PathLike, output: PathLike, *, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Merge an adapter into its base model, and write a folder of the base's form.

    Args:
        base: Local folder (``str`` or ``Path``), hub id or ``starter``.
        adapter: Local folder that peft wrote: ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``).
        output: Folder that does not exist yet; it appears only when complete.
        progress: Called with the number of tensors done.

    Returns:
        What ``merge_report.json`` in the folder says.

    Raises:
        ModelError: Not an adapter of this network, or of a kind that cannot be merged.
        UsageError: The folder exists, or peft is not installed.
    """
    name, place, output = path_of(base, "base"), Path(path_of(adapter, "adapter")), path_of(output, "output")
    workfolders.check_new(Path(output))
    weights = _checked(place)
    opened = files.open_model(name)
    _check_tokens(opened.folder, place)
    network = _network(opened.folder, place, read_tensors(weights))
    changed = {plain_name(f"{path}.weight") for path in _adapted(network)}
    if absent := sorted(changed - set(opened.parts[files.NETWORK].keys())):
        raise ModelError(
            f"{place}: adapts {absent[0]}, which {name} does not store by itself (its output embeddings are its token"
            " embeddings); expected an adapter of other layers"
        )
    merged = _merged(network, place)
    report = {
        "method": "adapter",
        "base": {"model": name, "fingerprint": opened.fingerprint},
        "adapter": {"folder": str(place), "digest": of_file(weights), "layers": len(changed)},
        "versions": {"ecom_rag": __version__, "torch": torch.__version__},
    }
    with workfolders.new_folder(Path(output), kind="merge") as fresh:
        files.copy_settings(opened.folder, fresh)
        for part, like in opened.parts.items():
            own = merged if part == files.NETWORK else {}
            files.write_part(fresh / part, like, _tensors(like, own, progress))
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (fresh / "merge_report.json").write_text(f"{text}\n", encoding="utf-8")
    return report


def _checked(adapter: Path) -> Path:
    """The adapter's weights, once its configuration has been looked at."""
    if importlib.util.find_spec("peft") is None:
        raise UsageError(
            "merging an adapter needs a package that is not installed (peft); install it in the checkout with"
            ' pip install -c constraints.txt -e ".[train]"'
        )
    found = ", ".join(sorted(item.name for item in adapter.iterdir())[:6]) if adapter.is_dir() else "no such folder"
    if not (adapter / _CONFIG).exists():
        raise ModelError(f"{adapter}: holds no {_CONFIG} (found {found or 'nothing'}); expected a folder of peft's")
    kind = read_object(adapter / _CONFIG).get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{adapter / _CONFIG}: the adapter is of type {kind}; expected LORA")
    for name in _WEIGHTS:
        if (adapter / name).exists():
            return adapter / name
    raise ModelError(f"{adapter}: holds no weights (found {found}); expected {' or '.join(_WEIGHTS)}")


def _check_tokens(base: Path, adapter: Path) -> None:
    """Refuse an adapter that brings another vocabulary than the base has."""
    if (adapter / "tokenizer.json").exists():
        own, new = (backend_of(folder).get_vocab(with_added_tokens=True) for folder in (network_folder(base), adapter))
        if own != new:
            other = sorted(own.items() ^ new.items(), key=lambda item: (item[1], item[0]))[0][0]
            raise ModelError(
                f"{adapter / 'tokenizer.json'}: differs from that of {base} (e.g. in the token {other!r}); merge into"
                " the base that the adapter was trained on, with its tokens added"
            )


def _network(base: Path, adapter: Path, stored: dict[str, Tensor]) -> Any:
    """The base with the adapter in it, as peft's model, in float32."""
    import transformers
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    paths = {_path(key) for key in stored}
    config = read_config(base)
    with loading(base, "a network with an adapter"):
        kind = next((kind for kind in _classes(config) if paths <= _modules(kind, base)), None)
        if kind is None:
            strange = sorted(paths - _modules("AutoModel", base))[0]
            raise ModelError(f"{adapter}: adapts {strange}, which {base} does not have; expected an adapter of it")
        network = getattr(transformers, kind).from_pretrained(network_folder(base), dtype=torch.float32, **LOCAL)
    with loading(adapter, "an adapter"):
        asked: Any = PeftConfig.from_pretrained(str(adapter))
        asked.inference_mode, asked.init_lora_weights = True, True  # what is stored is put in the place of either
        model = get_peft_model(network, asked)
        expected = get_peft_model_state_dict(model).keys()
        if different := sorted(expected ^ stored.keys()):
            raise ModelError(
                f"{adapter}: its weights are not those that its {_CONFIG} describes (e.g. {different[0]}); copy the"
                " adapter again"
            )
        set_peft_model_state_dict(model, stored)
    return model


def _classes(config: dict[str, Any]) -> list[str]:
    """The classes of transformers that an adapter of a checkpoint may have been trained on, its own first."""
    import transformers

    named = [name for name in config.get("architectures") or [] if hasattr(transformers, name)]
    return [*named, "AutoModel", "AutoModelForCausalLM"]


def _modules(kind: str, base: Path) -> set[str]:
    """The paths of all modules, without reading a weight; none where the class is not for this checkpoint."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        network_folder(base), trust_remote_code=False, local_files_only=True
    )
    auto = getattr(transformers, kind)
    try:
        with torch.device("meta"):
            network = auto.from_config(config) if kind.startswith("Auto") else auto(config)
    except ValueError:  # e.g. no causal language model
        return set()
    return {name for name, _ in network.named_modules()}


def _path(key: str) -> str:
    """Of the module that a weight in peft's file belongs to."""
    name = key.removeprefix(_PREFIX)
    place = name.partition(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0]
    return place.removesuffix(".base_layer")  # of output embeddings, which peft stores beside their adapter


def _adapted(model: Any) -> list[str]:
    """Paths of the layers that the adapter changes, in the network."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    kinds = (BaseTunerLayer, ModulesToSaveWrapper)
    return [name for name, module in model.get_base_model().named_modules() if isinstance(module, kinds)]


def _merged(model: Any, adapter: Path) -> dict[str, Tensor]:
    with loading(adapter, "an adapter"):  # NaN and infinity are an error of peft's
        network = model.merge_and_unload(safe_merge=True)
    return {plain_name(name): tensor for name, tensor in network.state_dict().items()}


def _tensors(
    like: files.Part, merged: dict[str, Tensor], progress: Callable[[int], None] | None
) -> Iterator[tuple[str, Tensor]]:
    """Of the merged network as far as it has them, in the base's types."""
    for key in files.write_order(like):
        own = merged.get(key)
        yield key, like.tensor(key) if own is None else own.to(like.dtype(key))
        if progress is not None:
            progress(1)
