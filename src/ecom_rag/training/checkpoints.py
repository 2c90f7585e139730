"""The checkpoint that a training starts from, the model that is made of it, and its folder when it is done.

A finished folder is complete for ecom_rag, for sentence-transformers (modules, pooling, prompts) and for FlagEmbedding
(transformer and tokenizer at its root, bge-m3's heads beside them).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.checkpoint import (
    Checkpoint,
    check_no_prompt,
    encoder_checkpoint,
    own_length,
    position_limit,
)
from ecom_rag.models.checkpoints.folder import network_folder, read_config, sentence_settings
from ecom_rag.models.checkpoints.locate import hub_name, locate
from ecom_rag.models.checkpoints.tokens import Tokenizer, end_with_eos
from ecom_rag.models.instructions import TEXT
from ecom_rag.models.networks.loading import LOCAL, loading, nothing_of_its_own
from ecom_rag.models.prompted import Asked, Prompted, prompted
from ecom_rag.models.prompts import Frame
from ecom_rag.training import adapters, answering
from ecom_rag.training.recipe import Recipe

logger = logging.getLogger(__name__)

_SHORT = 128  # tokens; beyond it the (heads, length, length) arrays of plain attention take too much memory
_PAIR_LENGTH = 512  # tokens of a pair, bge-reranker's own


@dataclass(frozen=True, slots=True)
class Start:
    """The checkpoint that a training starts from: found, checked and read once.

    Args:
        folder: Where it lies.
        max_length: Tokens of a text, or of a pair, in training.
        final_length: Tokens that the finished checkpoint reads; that of training is often less, to save time.
        encoder: Pooling, instructions and layers of an embedder; ``None`` for a reranker.
        prompted: How a reranker that is a language model is read; ``None`` for others.
    """

    folder: Path
    max_length: int
    final_length: int
    encoder: Checkpoint | None
    prompted: Prompted | None = None

    @property
    def instructions(self) -> tuple[str, str]:
        """What is put before queries and before passages; rerankers have no instructions."""
        return (self.encoder.query_instruction, self.encoder.passage_instruction) if self.encoder else ("", "")

    @property
    def ends_with_eos(self) -> bool:
        """Whether texts end with the EOS token, be it that the tokenizer leaves it out."""
        return self.encoder is not None and self.encoder.ends_with_eos

    def frame(self, tokenizer: Tokenizer) -> Frame | None:
        """The prompt as token ids, of a reranker that is a language model."""
        return None if self.prompted is None else self.prompted.frame(tokenizer, self.max_length)


def find_start(recipe: Recipe) -> Start:
    """Find and check the checkpoint that a recipe starts from, with the recipe's length and instructions.

    Raises:
        ModelError: No such checkpoint, a length that it cannot read, or one that cannot be trained as the recipe asks.
    """
    start = _embedder_start(recipe) if recipe.task == "embedder" else _reranker_start(recipe)
    if recipe.lora.targets:
        adapters.check_targets(start.folder, recipe.lora.targets)
    return start


def _embedder_start(recipe: Recipe) -> Start:
    found = encoder_checkpoint(
        locate(recipe.model),
        name=hub_name(recipe.model),
        max_length=recipe.data.max_length,
        query_instruction=recipe.data.query_instruction,
        passage_instruction=recipe.data.passage_instruction,
    )
    for instruction in (found.query_instruction, found.passage_instruction):
        if TEXT in instruction:
            raise ModelError(
                f"{recipe.model}: its instruction {instruction!r} stands around a text, which is not trained; give a"
                " prefix as query_instruction under [data]"
            )
    if recipe.loss.name == "m3" and not (found.has_sparse and found.has_multivector):
        raise ModelError(
            f'{recipe.model}: has no sparse_linear.pt and colbert_linear.pt, which loss "m3" trains;'
            " start from a bge-m3 checkpoint"
        )
    return Start(found.folder, found.max_length, own_length(found.folder), found)


def _reranker_start(recipe: Recipe) -> Start:
    folder = locate(recipe.model, reranker=True)
    config = read_config(folder)
    limit = position_limit(config)
    own = min(_PAIR_LENGTH, limit)
    length = recipe.data.max_length or own
    if not 32 <= length <= limit:
        raise ModelError(
            f"{recipe.model}: max length {length} is outside what this checkpoint can read; expected 32 to {limit}"
        )
    asked = Asked(template=recipe.data.template, instruction=recipe.data.instruction)
    if (found := prompted(folder, recipe.model, asked)) is not None:
        answering.check(recipe, found)
        return Start(folder, length, own, None, found)
    check_no_prompt(folder)
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
    return Start(folder, length, own, None)


def load(recipe: Recipe, start: Start) -> Any:
    """The model to train: a ``SentenceTransformer``, or for a reranker a ``CrossEncoder`` of sentence-transformers.

    Raises:
        ModelError: The weights cannot be read.
    """
    if start.prompted is not None:
        model = answering.load(start.prompted, _loading(recipe, start.max_length), _device(recipe))
        return _prepared(model, recipe, "CAUSAL_LM")
    if start.encoder is None:
        return _prepared(_load_reranker(recipe, start), recipe, "SEQ_CLS")
    return _prepared(_load_embedder(recipe, start.encoder), recipe, "FEATURE_EXTRACTION")


def _load_embedder(recipe: Recipe, checkpoint: Checkpoint) -> Any:
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
            **nothing_of_its_own(),
        )
    if checkpoint.ends_with_eos:
        end_with_eos(transformer.tokenizer)
    size = int(transformer.get_embedding_dimension())
    modes = {"cls": "cls", "mean": "mean", "last": "lasttoken"}
    modules: list[Any] = [transformer, Pooling(size, modes[checkpoint.pooling])]
    with loading(folder, "Dense"):
        modules += [Dense.load(str(path), trust_remote_code=False) for path in checkpoint.dense_layers]
    modules.append(Normalize())
    if recipe.loss.name == "m3":
        modules.append(M3Heads.of(folder))
    prompts = {"query": checkpoint.query_instruction, "document": checkpoint.passage_instruction}
    return SentenceTransformer(
        modules=modules,
        prompts=prompts,
        device=_device(recipe),
        truncate_dim=checkpoint.truncate_dim,
        trust_remote_code=False,
    )


def _load_reranker(recipe: Recipe, start: Start) -> Any:
    """A ``CrossEncoder`` of sentence-transformers with one logit; an encoder gets a new head."""
    from sentence_transformers import CrossEncoder

    torch.manual_seed(recipe.seed)  # of that head
    with loading(start.folder, "CrossEncoder"):
        return CrossEncoder(
            str(network_folder(start.folder)),
            num_labels=1,
            max_length=start.max_length,
            device=_device(recipe),
            model_kwargs=_loading(recipe, start.max_length),
            trust_remote_code=False,
            local_files_only=True,
            **nothing_of_its_own(),
        )


def save(model: Any, folder: Path, start: Start) -> None:
    """Write a finished model; bge-m3's heads go to the root, where FlagEmbedding and ecom_rag look for them."""
    if start.prompted is not None:
        answering.save(model, folder, start.folder)
        return
    from ecom_rag.training.m3 import M3Heads

    heads = [module for module in model if isinstance(module, M3Heads)]
    if start.encoder is not None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            modules=[module for module in model if not isinstance(module, M3Heads)],
            prompts=model.prompts,
            device=str(model.device),
            truncate_dim=model.truncate_dim,
            trust_remote_code=False,
        )
    model.max_seq_length = start.final_length
    model.save_pretrained(str(folder), create_model_card=False)
    for module in heads:
        module.save(str(folder))


def _prepared(model: Any, recipe: Recipe, task: str) -> Any:
    """Adapters where asked for; and no generated model cards, which would quote training data and take their time."""
    if recipe.schedule.dropout is not None:  # not of the adapters, which have their own
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = recipe.schedule.dropout
    if recipe.lora.rank:
        adapters.add(model, recipe.lora, task)
    model.model_card_data.set_widget_examples = lambda *_: None
    model._create_model_card = lambda *_, **__: None
    return model


def _loading(recipe: Recipe, max_length: int) -> dict[str, Any]:
    """float32 whatever the checkpoint is stored in: in half precision small steps would be rounded away.

    On a CPU plain products are twice as fast for short texts as torch's attention kernel, forward and backward.
    """
    attention = {"attn_implementation": "eager"} if on_cpu(recipe) and max_length <= _SHORT else {}
    return {"dtype": torch.float32, **attention, **LOCAL}


def on_cpu(recipe: Recipe) -> bool:
    """Whether a recipe is trained on the CPU."""
    return recipe.schedule.device == "cpu" or not torch.cuda.is_available()


def _device(recipe: Recipe) -> str | None:
    return "cpu" if recipe.schedule.device == "cpu" else None
