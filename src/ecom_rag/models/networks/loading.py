"""Loading a network that ``transformers`` has itself, with no code of the checkpoint's and no random weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import network_folder, read_config
from ecom_rag.models.checkpoints.weights import check_unused

# How any other library is asked to load a checkpoint: no code of its own, no pickles but of tensors, no hub.
LOCAL: dict[str, Any] = {"trust_remote_code": False, "weights_only": True, "local_files_only": True}
_ENCODER_HALVES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
# What encoders leave out of a whole checkpoint: the decoder, or the head of masked language modelling.
_DECODERS = {**dict.fromkeys(_ENCODER_HALVES, ("decoder.",)), "modernbert": ("decoder.", "head.")}


def nothing_of_its_own() -> dict[str, dict[str, Any]]:
    """Options of sentence-transformers' ``Transformer``, for the tokenizer and the configuration that it loads."""
    local = {"trust_remote_code": False, "local_files_only": True}
    return {"processor_kwargs": dict(local), "config_kwargs": dict(local)}


def load_transformer(folder: Path, auto_class: str, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of a checkpoint.

    Args:
        folder: The checkpoint.
        auto_class: Of ``transformers``; where that is ``AutoModel``, T5 and its like give their encoder.
        dtype: Of the weights in memory: those of a large model fit in 16 bits where they would not in 32.

    Raises:
        ModelError: It cannot be loaded, lacks tensors, or has some that the network has no place for.
    """
    import transformers
    from transformers.utils import logging as transformers_logging

    config = read_config(folder)
    if auto_class == "AutoModel":
        auto_class = _ENCODER_HALVES.get(str(config.get("model_type")), auto_class)
        if config.get("is_encoder_decoder") and auto_class == "AutoModel":
            raise ModelError(
                f"{folder}: is an encoder-decoder ({config.get('model_type')}), of which only T5, mT5 and umT5 are"
                " supported; use an encoder"
            )
    transformers_logging.disable_progress_bar()
    with loading(folder, auto_class):
        loaded: Any = getattr(transformers, auto_class).from_pretrained(
            network_folder(folder), dtype=dtype, output_loading_info=True, **LOCAL
        )
    model, info = loaded
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.") and "position_ids" not in key]
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} tensors (e.g. {sorted(missing)[0]}) and would be random;"
            " expected a complete checkpoint of this kind"
        )
    decoders = _DECODERS.get(str(config.get("model_type")), ())
    check_unused((key for key in info["unexpected_keys"] if not key.startswith(decoders)), folder)
    return model


@contextmanager
def loading(folder: Path, kind: str) -> Iterator[None]:
    """Turn whatever another library raises of a checkpoint into one line of ours.

    Raises:
        ModelError: Anything was raised. Torch's advice to read an unsafe pickle all the same is not passed on.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "weights_only" in str(error) or "Weights only load" in str(error):
            raise ModelError(
                f"{folder}: its weights are damaged, or a pickle of something else than tensors, which is never run;"
                " copy them again, or use a checkpoint in safetensors"
            ) from None
        raise ModelError(
            f"{folder}: cannot be loaded as {kind} ({first[:200]}); expected a checkpoint whose network"
            " transformers has itself"
        ) from None
