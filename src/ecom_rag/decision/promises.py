"""What a policy promises for each class, read from its file; all else in the file is passed over."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.files.json_text import loads_file
from ecom_rag.files.values import shown

KIND = "ecom_rag policy"


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised for one class.

    Args:
        label: The class.
        target: The precision of its decisions, over campaigns, above 0 and below 1.
        threshold: The probability from which a text is decided to be of the class.
    """

    label: str
    target: float
    threshold: float


def promises_of(path: PathLike) -> tuple[Promise, ...]:
    """The classes of a policy that have a threshold, in the order of the file.

    Args:
        path: Of ``policy.json``.

    Raises:
        UsageError: No such file, not a policy, or none of its classes has a threshold.
    """
    name = path_of(path, "policy")
    content = _content(name)
    classes = content.get("classes")
    if not isinstance(classes, Mapping):
        raise UsageError(f'{name}: "classes" is {shown(classes)}; expected an object with an entry per class')
    read = (_promise(f'{name}: class "{label}"', str(label), entry) for label, entry in classes.items())
    found = tuple(one for one in read if one is not None)
    if not found:
        raise UsageError(f"{name}: no class has a threshold, so nothing is promised; calibrate on more labels")
    return found


def _content(name: str) -> Mapping[str, Any]:
    try:
        content = loads_file(Path(name).read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file; name a policy that ecom-rag calibrate wrote") from None
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; name a policy that ecom-rag calibrate wrote") from None
    except ValueError as error:
        raise UsageError(f"{name}: {error}; expected a policy that ecom-rag calibrate wrote") from None
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind != KIND:
        raise UsageError(f'{name}: "kind" is {shown(kind)}; expected {KIND!r}, a policy that ecom-rag calibrate wrote')
    found: Mapping[str, Any] = content
    return found


def _promise(where: str, label: str, entry: Any) -> Promise | None:
    """``None`` for a class that has no threshold."""
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} is {shown(entry)}; expected an object with target and threshold")
    threshold, target = entry.get("threshold"), entry.get("target")
    if threshold is None:
        return None
    if not _is_number(threshold) or not 0 <= threshold <= 1:
        raise UsageError(f"{where}: threshold is {shown(threshold)}; expected a number from 0 to 1, or null")
    if not _is_number(target) or not 0 < target < 1:
        raise UsageError(f"{where}: target is {shown(target)}; expected a precision above 0 and below 1")
    return Promise(as_label(label) or label, float(target), float(threshold))


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
