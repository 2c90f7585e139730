"""Finding a checkpoint: a local folder, the packaged starter, or a model of the hub."""

import logging
import re
from pathlib import Path

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import check
from ecom_rag.models.checkpoints.quantized import PACKED, unpacked
from ecom_rag.models.checkpoints.starter import starter_encoder

logger = logging.getLogger(__name__)

STARTER = "starter"


def locate(model: str, *, reranker: bool = False) -> Path:
    """The folder of a model given as a local folder, ``starter``, or a hub id.

    Args:
        model: As the user names it.
        reranker: ``starter`` is the packaged cross-encoder instead of the packaged encoder.

    Raises:
        ModelError: There is no such folder and the hub has no such model or cannot be reached; or the folder asks for
            something that is not done here (see ``contents``).
    """
    path = Path(model).expanduser()
    if path.is_dir():
        check(path)
        return unpacked(path) if (path / PACKED).exists() else path.resolve()
    if path.is_file():
        raise ModelError(f"{model}: is a file; expected the checkpoint's folder")
    if model == STARTER and reranker:
        return unpacked(Path(__file__).parents[2] / "starter_reranker")
    if model == STARTER:
        return starter_encoder()
    kind = "reranker" if reranker else "encoder"
    ways_out = f"pass a local folder, or '{STARTER}' for the packaged small {kind}"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ModelError(f"{model}: no such folder; {ways_out}")
    folder = _from_hub(model, ways_out)
    check(folder)
    return folder


def _from_hub(model: str, ways_out: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    skip = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "imgs/*"]
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception:
        logger.info("%s is not in the local hub cache; asking the hub", model)
    try:
        return Path(snapshot_download(model, ignore_patterns=skip, etag_timeout=5))
    except RepositoryNotFoundError:
        raise ModelError(
            f"{model}: no such folder, and the hub has no such model; check the name, or {ways_out}"
        ) from None
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(f"{model}: no such folder, and the hub cannot be reached ({kind}); {ways_out}") from None


def hub_name(model: str) -> str | None:
    """The name for the family table where a model is not a folder: a hub's cache names folders by digests."""
    return None if Path(model).expanduser().is_dir() else model
