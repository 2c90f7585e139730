"""Rerankers that are language models, in training: the logit of yes, or of yes minus no, at the end of a prompt.

What is trained is the score that ``models.prompted`` reads, from the same token ids. The finished folder has the files
of the one that it started from, and other weights, so whatever read that folder reads this one.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from ecom_rag.errors import ModelError
from ecom_rag.merging.files import copy_settings
from ecom_rag.models.checkpoints.contents import OWN_NETWORKS
from ecom_rag.models.checkpoints.folder import network_folder, read_config
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.networks.loading import loading, nothing_of_its_own
from ecom_rag.models.prompted import Prompted
from ecom_rag.training.recipe import Recipe


def check(recipe: Recipe, found: Prompted) -> None:
    """Refuse language models that cannot be trained, or not as a recipe asks.

    Raises:
        ModelError: A network that transformers does not have, or no adapter.
    """
    if found.architecture in OWN_NETWORKS:
        raise ModelError(
            f"{recipe.model}: {found.architecture} cannot be trained, since transformers has no such network; start"
            " from a language model that answers yes or no, or from a sequence classifier"
        )
    if not recipe.lora.rank:
        raise ModelError(
            f"{recipe.model}: is a language model, of which only an adapter is trained; set lora.rank, e.g. to 16"
        )


def load(found: Prompted, model_kwargs: dict[str, Any], device: str | None) -> Any:
    """A ``CrossEncoder`` of sentence-transformers whose score is the answer's logit.

    Args:
        found: The checkpoint and its prompt.
        model_kwargs: Of loading the network, as transformers takes them.
        device: Where it goes; ``None`` is what the machine has.

    Raises:
        ModelError: The weights cannot be read, or the tokenizer lacks the answers.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    answers: Any = found.answers(Tokenizer(found.folder))
    with loading(found.folder, "CrossEncoder"):
        network: Any = Transformer(
            str(network_folder(found.folder)),
            transformer_task="text-generation",
            model_kwargs=model_kwargs,
            **nothing_of_its_own(),
        )
    network.model.register_forward_pre_hook(_at_the_end, with_kwargs=True)
    return CrossEncoder(modules=[network, LogitScore(*answers)], device=device, trust_remote_code=False)


def save(model: Any, folder: Path, start: Path) -> None:
    """Write a finished model.

    Args:
        model: As trained, its adapter merged.
        folder: The new folder.
        start: The one that the training started from.
    """
    place = folder / network_folder(start).relative_to(start)
    model[0].model.save_pretrained(str(place))
    copy_settings(start, folder)  # over what was written, since the trainer changes ids in the configuration
    config = {key: value for key, value in read_config(start).items() if key != "torch_dtype"} | {"dtype": "float32"}
    (place / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _at_the_end(_: nn.Module, positional: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The logits of the last token alone: those of all would take more memory than the network."""
    return positional, {**named, "logits_to_keep": 1}
