"""Which language models can be rerankers, and how each is read: prompt, exit layer, head, compression."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecom_rag.arguments import listed, one_of, text_or_none, whole, whole_or_none
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.checkpoint import check_no_prompt, default_prompt, names_logger, position_limit
from ecom_rag.models.checkpoints.contents import OWN_NETWORKS
from ecom_rag.models.checkpoints.folder import modules_of, read_config, read_object
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.families import family_of
from ecom_rag.models.prompts import BGE, LIGHTWEIGHT, PROMPTS, QWEN3, Frame, Prompt, frame_of, word_id

if TYPE_CHECKING:
    import torch

_LAYERWISE, _LIGHTWEIGHT = OWN_NETWORKS
_PLAIN = ("Gemma", "Gemma2", "Llama", "Mistral", "Qwen2")
# By architecture; for plain language models the prompt that most rerankers of this kind were trained with.
_PROMPTS: dict[str, Prompt] = {
    _LAYERWISE: BGE,
    _LIGHTWEIGHT: LIGHTWEIGHT,
    "Qwen3ForCausalLM": QWEN3,
    **{f"{name}ForCausalLM": BGE for name in _PLAIN},
}
ARCHITECTURES = tuple(_PROMPTS)
RATIOS = (1, 2, 4, 8)  # that the lightweight reranker was trained with
_COMPRESS_AT = (8,)  # FlagEmbedding's default


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks of a reranker that is a language model; ``None`` where the checkpoint decides.

    Args:
        template: Name of the prompt, or ``auto``.
        instruction: What is asked in the prompt.
        exit_layer: Layer after which the score is read.
        compress_ratio: Neighbouring tokens of a document that become one.
        compress_layers: Layers before which they do.
    """

    template: str = "auto"
    instruction: str | None = None
    exit_layer: int | None = None
    compress_ratio: int | None = None
    compress_layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        one_of(self.template, "template", ("auto", *PROMPTS))
        text_or_none(self.instruction, "instruction")
        whole_or_none(self.exit_layer, "exit_layer")
        if self.compress_ratio is not None and self.compress_ratio not in RATIOS:
            shown = ", ".join(map(str, RATIOS))
            raise UsageError(f"`compress_ratio` is {self.compress_ratio!r}; expected one of {shown}")
        for layer in listed(self.compress_layers or (), "compress_layers", "layers by number"):
            whole(layer, "compress_layers")
        if self.compress_layers is not None and self.compress_ratio in (None, 1):
            raise UsageError("`compress_layers` has no effect without `compress_ratio` 2, 4 or 8; leave it out")

    @property
    def given(self) -> list[str]:
        """Names of what is not left to the checkpoint."""
        return [name for name in self.__slots__ if getattr(self, name) not in (None, "auto")]


@dataclass(frozen=True, slots=True)
class Prompted:
    """How one checkpoint is read.

    Args:
        folder: The checkpoint.
        architecture: Of ``ARCHITECTURES``.
        prompt: The prompt.
        instruction: What is asked in it.
        exit_layer: Layer after which the score is read; ``None`` where only the last has a head.
        compress_ratio: Tokens of a document that become one, from 1 on.
        compress_layers: Layers before which they do.
    """

    folder: Path
    architecture: str
    prompt: Prompt
    instruction: str
    exit_layer: int | None
    compress_ratio: int
    compress_layers: tuple[int, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return {
            "template": self.prompt.name,
            "instruction": self.instruction,
            "exit_layer": self.exit_layer,
            "compress_ratio": self.compress_ratio,
            "compress_layers": list(self.compress_layers),
        }

    @property
    def digest(self) -> str:
        """Of the settings: token ids and scores made with others are another model's."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]

    def frame(self, tokenizer: Tokenizer, max_length: int) -> Frame:
        """The prompt as token ids.

        Raises:
            ModelError: Pairs of this length do not fit the prompt or the checkpoint.
        """
        frame = frame_of(self.prompt, tokenizer, self.instruction, max_length)
        limit = position_limit(read_config(self.folder))
        if frame.room < 32 or frame.longest > limit:
            raise ModelError(
                f"{self.folder.name}: max length {max_length} leaves {frame.room} tokens for query and document, and"
                f" {frame.longest} with the prompt; expected at least 32, and at most {limit}"
            )
        return frame

    def network(self, tokenizer: Tokenizer, frame: Frame, dtype: "torch.dtype") -> Any:
        """The network with its weights, in memory as ``dtype``."""
        from ecom_rag.models.networks.decoder_reranker import Compression, DecoderReranker, Head

        compression = None
        if self.compress_ratio > 1:
            compression = Compression(self.compress_ratio, self.compress_layers, len(frame.end))
        if self.architecture in OWN_NETWORKS:
            head = Head(tensor=self._head_name(), layer=self.exit_layer)
        else:
            head = Head(self.answers(tokenizer))
        return DecoderReranker(self.folder, head, compression=compression, dtype=dtype)

    def answers(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The tokens whose logits make the score: one, or a second that is subtracted.

        Raises:
            ModelError: The tokenizer has no such tokens, or the folder names others.
        """
        words = [word for word in (self.prompt.yes, self.prompt.no) if word]
        tokens = tuple(word_id(tokenizer, word, whole=len(words) > 1, folder=self.folder) for word in words)
        self._check_answers(tokens)
        return tokens

    def _check_answers(self, tokens: tuple[int, ...]) -> None:
        """Refuse a folder of sentence-transformers that reads other answers than the prompt has."""
        for module in modules_of(self.folder):
            own = read_object(module.folder / "config.json") if module.kind == "LogitScore" else None
            if own and (own.get("true_token_id"), own.get("false_token_id")) != (*tokens, None)[:2]:
                raise ModelError(
                    f"{module.folder / 'config.json'}: reads the tokens {own.get('true_token_id')} and"
                    f" {own.get('false_token_id')}; the prompt {self.prompt.name} is answered by"
                    f" {' and '.join(map(str, tokens))}, and no other prompt is supported"
                )

    def _head_name(self) -> str:
        """Of the weights of the linear head that is used.

        FlagEmbedding 1.4.2 uses the lightweight reranker's first head whatever the layer, where one layer is asked for.
        """
        config = read_config(self.folder)
        if self.architecture == _LIGHTWEIGHT:
            return "lm_head.0.linear_head.weight"
        if not config.get("head_multi", True):
            return "lm_head.linear_head.weight"
        number = _exits(config, self.architecture, str(self.folder)).index(self.exit_layer or 0)
        return f"lm_head.{number}.linear_head.weight"


def is_reranker(folder: Path) -> bool:
    """Whether a folder is a language model that is no encoder, by its files or its name."""
    architectures = read_config(folder).get("architectures") or []
    pools = any(module.kind == "Pooling" for module in modules_of(folder)) or family_of(folder.name) is not None
    return any(name in ARCHITECTURES for name in architectures) and not pools


def prompted(folder: Path, model: str, asked: Asked) -> Prompted | None:
    """How a checkpoint is read as a reranker; ``None`` where it is no language model.

    Args:
        folder: The checkpoint.
        model: As the user names it, for messages.
        asked: What the caller asks for.

    Raises:
        ModelError: A language model that is made for something else, or has no such layer.
        UsageError: Something is asked for that this checkpoint does not have.
    """
    config = read_config(folder)
    found = [name for name in config.get("architectures") or [] if name in ARCHITECTURES]
    if not found:
        if asked.given:
            raise UsageError(f"`{asked.given[0]}` has no effect on {model}, which is no language model; leave it out")
        return None
    kinds = [module.kind for module in modules_of(folder)]
    if "Pooling" in kinds:
        raise ModelError(f"{model}: is an encoder (modules.json lists a Pooling), not a reranker; use it as an encoder")
    architecture = found[0]
    prompt = _PROMPTS[architecture] if asked.template == "auto" else PROMPTS[asked.template]
    if asked.template == "auto" and architecture not in OWN_NETWORKS and "LogitScore" not in kinds:
        names_logger.warning(
            "%s: its files do not say in which prompt it reads; read as %s by its architecture (override with"
            " `template`)",
            folder.name,
            prompt.name,
        )
    if "LogitScore" not in kinds:
        check_no_prompt(folder)
    instruction = asked.instruction
    if instruction is None:
        instruction = default_prompt(folder) or prompt.instruction
    exit_layer = _exit_layer(config, architecture, model, asked)
    ratio = asked.compress_ratio or 1
    if ratio > 1 and architecture != _LIGHTWEIGHT:
        raise UsageError(
            f"`compress_ratio` has no effect on {model} ({architecture}); it is for {_LIGHTWEIGHT}, leave it out"
        )
    layers = _compress_layers(model, ratio, exit_layer, asked)
    return Prompted(folder, architecture, prompt, instruction, exit_layer, ratio, layers)


def _exit_layer(config: dict[str, Any], architecture: str, model: str, asked: Asked) -> int | None:
    """The exit layer, if the checkpoint has a head for it."""
    if architecture not in OWN_NETWORKS:
        if asked.exit_layer is not None:
            raise UsageError(
                f"`exit_layer` has no effect on {model} ({architecture}), which has no heads for earlier layers; it is"
                f" for {' and '.join(OWN_NETWORKS)}, leave it out"
            )
        return None
    kind = config.get("head_type", "simple") if architecture == _LAYERWISE else config.get("layer_wise", False)
    if kind not in ("simple", True):
        raise ModelError(f"{model}: its heads ({kind}) do not give one score; expected one linear head per exit layer")
    exits = _exits(config, architecture, model)
    layer = exits[-1] if asked.exit_layer is None else asked.exit_layer
    if layer not in exits:
        each = "" if exits.step == 1 else f", every {exits.step}"
        raise UsageError(f"`exit_layer` is {layer}; {model} has heads for layers {exits[0]} to {exits[-1]}{each}")
    return layer


def _exits(config: dict[str, Any], architecture: str, model: str) -> range:
    """The layers that have heads; what ``config.json`` leaves out is as in FlagEmbedding's configurations."""
    first, step = (8, 1) if architecture == _LAYERWISE else (28, 28)
    step = step if architecture == _LAYERWISE else int(config.get("layer_sep", step))
    exits = range(int(config.get("start_layer", first)), int(config.get("num_hidden_layers", 0)) + 1, step)
    if not exits:
        raise ModelError(f"{model}: config.json names no layer with a head; restore the checkpoint's file")
    return exits


def _compress_layers(model: str, ratio: int, exit_layer: int | None, asked: Asked) -> tuple[int, ...]:
    """The layers before which a document is compressed, if one of them runs."""
    if ratio == 1:
        return ()
    layers = tuple(asked.compress_layers or _COMPRESS_AT)
    if exit_layer is not None and min(layers) >= exit_layer:
        raise UsageError(
            f"`compress_ratio` has no effect on {model}: no layer of {', '.join(map(str, layers))} runs before the exit"
            f" layer {exit_layer}; name others with `compress_layers`"
        )
    return layers
