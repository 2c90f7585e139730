"""Low-rank adapters of a run (Hu et al. 2021, arXiv:2106.09685): put into a network, read back, kept, and merged.

All that is trained is the adapter; whatever else the model has stays as it was read, to the last bit.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ecom_rag.errors import ModelError
from ecom_rag.files import disk
from ecom_rag.models.checkpoints.folder import network_folder
from ecom_rag.models.checkpoints.weights import read_tensors
from ecom_rag.models.networks.decoder_shape import MODEL_TYPES
from ecom_rag.models.networks.loading import loading
from ecom_rag.training.recipe import Lora

FOLDER = "adapter"  # of a finished folder
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # peft's, before the names of the network
# All linear layers of a decoder but the head; of other networks peft finds them.
_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def check_targets(folder: Path, targets: tuple[str, ...]) -> None:
    """Refuse names that no linear layer of a checkpoint's network has.

    Args:
        folder: The checkpoint; its weights are not read.
        targets: Names of layers, or the ends of their paths.

    Raises:
        ModelError: Names those that there are.
    """
    from transformers import AutoConfig, AutoModel

    with loading(folder, "AutoModel"), torch.device("meta"):
        network = AutoModel.from_config(
            AutoConfig.from_pretrained(network_folder(folder), trust_remote_code=False, local_files_only=True)
        )
    paths = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            names = dict.fromkeys(path.rpartition(".")[2] for path in paths)
            raise ModelError(
                f"{folder}: no linear layer is called {target!r}, which lora.targets names; expected some of"
                f" {', '.join(names)}"
            )


def add(model: Any, asked: Lora, task: str) -> None:
    """Put a new adapter into a model, and train nothing else.

    Args:
        model: A ``SentenceTransformer`` or a ``CrossEncoder`` whose first module is a transformer.
        asked: Its rank and the like.
        task: peft's name for what the network does, which says what is a head.
    """
    from peft import LoraConfig

    targets = asked.targets or (_DECODER if model[0].model.config.model_type in MODEL_TYPES else ())
    model.add_adapter(
        LoraConfig(
            task_type=task,
            r=asked.rank,
            lora_alpha=asked.alpha,
            lora_dropout=asked.dropout,
            target_modules=list(targets) or "all-linear",
        )
    )
    own = {id(weight) for _, weight in _weights(model)}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in own)


def load(model: Any, checkpoint: str) -> None:
    """Put a checkpoint's adapter into the model in training, whose other weights it shares.

    Args:
        model: As ``add`` left it.
        checkpoint: Folder that the trainer wrote.
    """
    stored = read_tensors(Path(checkpoint) / _WEIGHTS)
    with torch.no_grad():
        for name, weight in _weights(model):
            weight.copy_(stored[name])


def save(model: Any, folder: Path, base: str) -> None:
    """Write the adapter alone, as peft does.

    Args:
        model: As trained, not merged yet.
        folder: The new folder.
        base: The checkpoint that it belongs to, as the recipe names it.
    """
    network = model[0].model
    config = network.peft_config[network.active_adapters()[0]]
    config.base_model_name_or_path = base
    config.target_modules = sorted(config.target_modules)  # peft's set has another order in every process
    folder.mkdir(exist_ok=True)
    config.save_pretrained(str(folder))
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _weights(model)}
    with disk.writing(folder):
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    disk.open_to_others(folder / _WEIGHTS)


def merge(model: Any) -> None:
    """Fold the adapter into the weights, so that the network is an ordinary one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    model[0].model._hf_peft_config_loaded = False


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The adapter's weights by the names that they have in peft's files."""
    for name, weight in model[0].model.named_parameters():
        if ".lora_" in name:
            yield _PREFIX + name.replace(".default.", "."), weight
