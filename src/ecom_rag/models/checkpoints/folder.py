"""A checkpoint's folder: where its parts lie, and the check against the table of contents that every loader passes.

Reads small JSON files only, so that what is refused is refused before anything large is imported or loaded. No code in
a folder is ever run.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.contents import (
    ADAPTER,
    BERT_CONFIG,
    BERTS,
    CONFIG,
    FILES,
    LOADING,
    LOADING_OPTIONS,
    MODULE,
    MODULES,
    OWN_CONFIG,
    OWN_NETWORKS,
    SENTENCE_BERT,
    SENTENCE_TRANSFORMERS,
    SETTINGS,
    TEXT_METHODS,
    TOKENIZER_CONFIG,
    TOKENIZERS,
    WEIGHTS,
)
from ecom_rag.models.checkpoints.keys import HONOURED, NO_EFFECT, REFUSED, check_keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of ``modules.json``."""

    kind: str  # a key of ``MODULES``
    folder: Path


def check(folder: Path) -> None:
    """Refuse a checkpoint whose files ask for something that is not done here, before anything large is loaded.

    Args:
        folder: The checkpoint.

    Raises:
        ModelError: One line: the file, what stands in it, what to do.
    """
    _check_files(folder)
    if not (folder / "config.json").exists() and not any(folder.glob("0_*/config.json")):
        raise _no_config(folder)
    modules = modules_of(folder)
    network = network_folder(folder)
    if network != folder:
        _check_files(network)
    if not (network / "config.json").exists():
        raise _no_config(network)
    config = read_config(folder)
    berts = config.get("model_type") in BERTS
    ours = config.get("architectures") in [[name] for name in OWN_NETWORKS]
    table = BERT_CONFIG if berts else OWN_CONFIG if ours else CONFIG
    check_keys(network / "config.json", config, table, unknown=NO_EFFECT if berts else HONOURED)
    for name in ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        check_keys(network / name, read_object(network / name), TOKENIZER_CONFIG, unknown=HONOURED)
    if not any(True for pattern in TOKENIZERS for _ in network.glob(pattern)):
        raise ModelError(
            f"{network}: holds no tokenizer; expected tokenizer.json and tokenizer_config.json beside the"
            " weights, copy them from the model that it was tuned from"
        )
    _check_texts(network, modules)
    path = folder / "config_sentence_transformers.json"
    own = read_object(path)
    if own.get("similarity_fn_name") == "dot" and any(module.kind == "Normalize" for module in modules):
        own = {**own, "similarity_fn_name": "cosine"}  # the same of vectors of length 1
    check_keys(path, own, SENTENCE_TRANSFORMERS, unknown=REFUSED)
    if not all(isinstance(text, str | None) for text in (own.get("prompts") or {}).values()):
        raise ModelError(f"{path}: prompts are not all strings; expected a text for each name")
    for module in modules:
        if module.kind != "Transformer":
            check_keys(
                module.folder / "config.json",
                read_object(module.folder / "config.json"),
                MODULES[module.kind],
                unknown=REFUSED,
            )


def _no_config(folder: Path) -> ModelError:
    found = ", ".join(sorted(item.name for item in folder.iterdir())[:6]) if folder.is_dir() else ""
    return ModelError(
        f"{folder}: no config.json in this folder (found {found or 'nothing'}); expected a Hugging Face checkpoint"
    )


def modules_of(folder: Path) -> list[Module]:
    """The modules of a sentence-transformers folder, in order; empty where ``modules.json`` is missing.

    Raises:
        ModelError: A module that is not known, or an order that means another network.
    """
    path = folder / "modules.json"
    if not path.exists():
        return []
    entries = _read(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{path}: is not a list of modules; restore the checkpoint's file")
    modules = []
    for entry in entries:
        if not isinstance(entry.get("type"), str) or not isinstance(entry.get("path"), str):
            raise ModelError(f'{path}: a module has no "type" or no "path"; restore the checkpoint\'s file')
        check_keys(path, entry, MODULE, unknown=REFUSED)
        kind = entry["type"].rsplit(".", 1)[-1]
        if not entry["type"].startswith("sentence_transformers.") or kind not in MODULES:
            raise ModelError(
                f"{path}: module {entry['type']} is not supported; expected {', '.join(MODULES)} of"
                " sentence-transformers"
            )
        place = Path(entry["path"])
        if place.is_absolute() or ".." in place.parts:
            raise ModelError(
                f"{path}: the module folder {entry['path']} lies outside the checkpoint; expected one in it"
            )
        modules.append(Module(kind, folder / place))
    kinds = " ".join(module.kind for module in modules)
    if not re.fullmatch(r"Transformer( Pooling( Dense)*( Normalize)*| LogitScore)?", kinds):
        raise ModelError(
            f"{path}: the modules {kinds or 'are none'} are not supported in this order; expected"
            " Transformer, Pooling, then Dense layers, then Normalize; or Transformer, LogitScore"
        )
    return modules


def network_folder(folder: Path) -> Path:
    """Where network and tokenizer lie: the root, or the folder of the Transformer module (``0_Transformer``)."""
    modules = modules_of(folder)
    return modules[0].folder if modules else folder


def read_config(folder: Path) -> dict[str, Any]:
    """The network's ``config.json``.

    Raises:
        ModelError: It is not a JSON object.
    """
    return read_object(network_folder(folder) / "config.json")


def sentence_settings(folder: Path) -> dict[str, Any]:
    """``sentence_bert_config.json``, or the first of its older names that is there."""
    network = network_folder(folder)
    return next((found for name in SETTINGS if (found := read_object(network / name))), {})


def pooling_of(settings: Mapping[str, Any]) -> list[str]:
    """The poolings that are on in a Pooling module's settings, by our names where there is one."""
    names = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
    mode = settings.get("pooling_mode")
    if mode is not None:
        found = [mode] if isinstance(mode, str) else list(mode) if isinstance(mode, list) else [str(mode)]
    else:
        found = [
            key.removeprefix("pooling_mode_") for key, on in settings.items() if key.startswith("pooling_mode_") and on
        ]
    return [names.get(name, name) for name in found or ["mean"]]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing.

    Raises:
        ModelError: The file holds something else.
    """
    value = _read(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise ModelError(f"{path}: is not a JSON object; restore the checkpoint's file")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint, or a list under ``items``; empty where the file is missing."""
    value = _read(path) if path.exists() else {}
    return value if isinstance(value, dict) else {"items": value}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); restore the checkpoint's file") from None


def _check_files(folder: Path) -> None:
    for item in sorted(folder.iterdir()) if folder.is_dir() else []:
        does = next((does for pattern, does in FILES if fnmatch(item.name, pattern)), None)
        if does == REFUSED:
            raise ModelError(
                f"{folder}: holds an adapter ({item.name}), without which the vectors are another model's; {ADAPTER}"
            )
        if does is None and any(fnmatch(item.name, pattern) for pattern in WEIGHTS):
            logger.warning("%s: is not read, as no loader knows it; what it would change is missing", item)


def _check_texts(network: Path, modules: list[Module]) -> None:
    """The settings of the Transformer module."""
    path = next((network / name for name in SETTINGS if (network / name).exists()), network / SETTINGS[0])
    settings = read_object(path)
    check_keys(path, settings, SENTENCE_BERT, unknown=REFUSED)
    options = {
        key for key, does in SENTENCE_BERT.items() if key.endswith(("_args", "_kwargs")) and does.does == HONOURED
    }
    for key in settings.keys() & options:
        others = sorted((settings[key] or {}).keys() - LOADING_OPTIONS)
        if others:
            raise ModelError(f"{path}: {key} sets {others[0]}, which is not supported; {LOADING.remedy}")
    task = settings.get("transformer_task") or "feature-extraction"
    ways = settings.get("modality_config")
    if ways is not None and ways.get("text") != TEXT_METHODS[task]:
        raise ModelError(
            f"{path}: modality_config reads texts in a way that is not supported ({ways.get('text')});"
            f" expected {TEXT_METHODS[task]}"
        )
    if modules and task == "feature-extraction" and len(modules) == 1:
        raise ModelError(
            f"{network}: modules.json lists no Pooling; expected Transformer, Pooling, then Dense layers,"
            " then Normalize"
        )
    if (task == "text-generation") != any(module.kind == "LogitScore" for module in modules):
        raise ModelError(
            f"{path}: transformer_task is {task}, which does not fit the modules of modules.json; expected LogitScore"
            " with text-generation, and only with it"
        )
    if len(modules) > 1 and task == "sequence-classification":
        raise ModelError(f"{network}: modules.json lists modules after a reranker; expected the Transformer alone")
