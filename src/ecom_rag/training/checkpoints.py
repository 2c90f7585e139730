"""The model that is trained, loaded from any checkpoint we know, and its folder when it is done.

A finished folder is complete for ecom_rag, for sentence-transformers (modules, pooling, prompts) and for FlagEmbedding
(transformer and tokenizer at its root, bge-m3's heads beside them).
"""

import logging
from pathlib import Path
from typing import Any

import torch

from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.checkpoint import (
    Checkpoint,
    check_no_prompt,
    encoder_checkpoint,
    own_length,
    position_limit,
)
from ecom_rag.models.checkpoints.folder import network_folder, read_config, sentence_settings
from ecom_rag.models.checkpoints.locate import hub_name, locate
from ecom_rag.models.networks.loading import LOCAL, loading
from ecom_rag.training.recipe import Recipe

logger = logging.getLogger(__name__)

_SHORT = 128  # tokens; beyond it the (heads, length, length) arrays of plain attention take too much memory
_PAIR_LENGTH = 512  # tokens of a pair, bge-reranker's own
INSTALL = (
    "training needs packages that are not installed ({}); install them in the checkout with"
    ' pip install -c constraints.txt -e ".[train]"'
)


def require_extra() -> None:
    """Raise ``UsageError`` where the ``train`` extra is not installed."""
    import importlib.util

    missing = [
        name
        for name in ("sentence_transformers", "datasets", "accelerate", "peft", "matplotlib")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UsageError(INSTALL.format(", ".join(missing)))


def base_checkpoint(recipe: Recipe) -> Checkpoint:
    """What the model to start from says of itself, with the recipe's length and instructions.

    Raises:
        ModelError: No such checkpoint, a length it cannot read, or heads that loss m3 needs are missing.
    """
    found = encoder_checkpoint(
        locate(recipe.model),
        name=hub_name(recipe.model),
        max_length=recipe.data.max_length,
        query_instruction=recipe.data.query_instruction,
        passage_instruction=recipe.data.passage_instruction,
    )
    if recipe.loss.name == "m3" and not (found.has_sparse and found.has_multivector):
        raise ModelError(
            f'{recipe.model}: has no sparse_linear.pt and colbert_linear.pt, which loss "m3" trains;'
            " start from a bge-m3 checkpoint"
        )
    return found


def load_embedder(recipe: Recipe, checkpoint: Checkpoint) -> Any:
    """A ``SentenceTransformer`` with our pooling, normalising, with bge-m3's heads for loss m3."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from ecom_rag.training.m3 import M3Heads

    folder = checkpoint.folder
    with loading(folder, "SentenceTransformer"):
        transformer = Transformer(
            str(network_folder(folder)),
            max_seq_length=checkpoint.max_length,
            do_lower_case=bool(sentence_settings(folder).get("do_lower_case")),
            model_kwargs=_loading(recipe, checkpoint.max_length),
            **_nothing_of_its_own(),
        )
    size = int(transformer.get_embedding_dimension())
    modes = {"cls": "cls", "mean": "mean", "last": "lasttoken"}
    modules: list[Any] = [transformer, Pooling(size, modes[checkpoint.pooling])]
    with loading(folder, "Dense"):
        modules += [Dense.load(str(path), trust_remote_code=False) for path in checkpoint.dense_layers]
    modules.append(Normalize())
    if recipe.loss.name == "m3":
        modules.append(M3Heads.of(checkpoint.folder))
    prompts = {"query": checkpoint.query_instruction, "document": checkpoint.passage_instruction}
    model = SentenceTransformer(
        modules=modules,
        prompts=prompts,
        device=_device(recipe),
        truncate_dim=checkpoint.truncate_dim,
        trust_remote_code=False,
    )
    return _prepared(model, recipe, "FEATURE_EXTRACTION")


def load_reranker(recipe: Recipe, max_length: int) -> Any:
    """A ``CrossEncoder`` of sentence-transformers with one logit; an encoder gets a new head, and says so."""
    from sentence_transformers import CrossEncoder

    folder = locate(recipe.model, reranker=True)
    check_no_prompt(folder)
    config = read_config(folder)
    if not any("SequenceClassification" in name for name in config.get("architectures") or []):
        if recipe.lora.rank:
            raise ModelError(
                f"{recipe.model}: is no reranker yet, and its new classification head has no adapter;"
                " leave out lora, or start from a reranker"
            )
        logger.warning("%s: is no reranker yet; its classification head starts from random weights", recipe.model)
    elif (labels := len(config.get("id2label") or "01")) != 1:
        raise ModelError(
            f"{recipe.model}: gives {labels} numbers for a pair, a reranker gives one; start from a"
            " reranker or an encoder"
        )
    torch.manual_seed(recipe.seed)  # of that head
    with loading(folder, "CrossEncoder"):
        model = CrossEncoder(
            str(network_folder(folder)),
            num_labels=1,
            max_length=max_length,
            device=_device(recipe),
            model_kwargs=_loading(recipe, max_length),
            trust_remote_code=False,
            local_files_only=True,
            **_nothing_of_its_own(),
        )
    return _prepared(model, recipe, "SEQ_CLS")


def reranker_length(recipe: Recipe) -> int:
    """Tokens of a pair: the recipe's, else 512 or what the checkpoint can read.

    Raises:
        ModelError: The recipe's is more than the checkpoint can read.
    """
    limit = _pair_limit(recipe)
    length = recipe.data.max_length or min(_PAIR_LENGTH, limit)
    if not 32 <= length <= limit:
        raise ModelError(
            f"{recipe.model}: max length {length} is outside what this checkpoint can read; expected 32 to {limit}"
        )
    return length


def save_embedder(model: Any, folder: Path, recipe: Recipe) -> None:
    """Write a finished embedder; the heads go to the root, where FlagEmbedding and ecom_rag look for them.

    It reads texts of the length that the model it began from reads: that of training is often less, to save time.
    """
    from sentence_transformers import SentenceTransformer

    from ecom_rag.training.m3 import M3Heads

    modules = [module for module in model if not isinstance(module, M3Heads)]
    plain = SentenceTransformer(
        modules=modules,
        prompts=model.prompts,
        device=str(model.device),
        truncate_dim=model.truncate_dim,
        trust_remote_code=False,
    )
    plain.max_seq_length = own_length(locate(recipe.model))
    plain.save_pretrained(str(folder), create_model_card=False)
    for module in model:
        if isinstance(module, M3Heads):
            module.save(str(folder))


def save_reranker(model: Any, folder: Path, recipe: Recipe) -> None:
    """Write a finished reranker, for pairs of the length that it can read, whatever that of training was."""
    model.max_seq_length = min(_PAIR_LENGTH, _pair_limit(recipe))
    model.save_pretrained(str(folder), create_model_card=False)


def merge_lora(model: Any) -> None:
    """Fold adapters into the weights, so that the folder is an ordinary checkpoint."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    model[0].model._hf_peft_config_loaded = False


def _prepared(model: Any, recipe: Recipe, task: str) -> Any:
    """Adapters where asked for; and no generated model cards, which would quote training data and take their time."""
    if recipe.schedule.dropout is not None:  # not of the adapters, which have their own
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = recipe.schedule.dropout
    if recipe.lora.rank:
        from peft import LoraConfig

        asked = recipe.lora
        model.add_adapter(
            LoraConfig(
                task_type=task,
                r=asked.rank,
                lora_alpha=asked.alpha,
                lora_dropout=asked.dropout,
                target_modules="all-linear",
            )
        )
    model.model_card_data.set_widget_examples = lambda *_: None
    model._create_model_card = lambda *_, **__: None
    return model


def _loading(recipe: Recipe, max_length: int) -> dict[str, Any]:
    """float32 whatever the checkpoint is stored in: in half precision small steps would be rounded away.

    On a CPU plain products are twice as fast for short texts as torch's attention kernel, forward and backward.
    """
    on_cpu = recipe.schedule.device == "cpu" or not torch.cuda.is_available()
    attention = {"attn_implementation": "eager"} if on_cpu and max_length <= _SHORT else {}
    return {"dtype": torch.float32, **attention, **LOCAL}


def _nothing_of_its_own() -> dict[str, dict[str, Any]]:
    """Options of loading a tokenizer and a configuration: no code of theirs, no hub."""
    local = {"trust_remote_code": False, "local_files_only": True}
    return {"processor_kwargs": dict(local), "config_kwargs": dict(local)}


def _pair_limit(recipe: Recipe) -> int:
    return position_limit(read_config(locate(recipe.model, reranker=True)))


def _device(recipe: Recipe) -> str | None:
    return "cpu" if recipe.schedule.device == "cpu" else None
