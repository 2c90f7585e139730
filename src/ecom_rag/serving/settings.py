"""What the service is asked to do, and all of its limits with their defaults."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args, get_origin

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import UsageError
from ecom_rag.files import readers
from ecom_rag.values import shown


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for; beyond it the answer is an error that names the limit.

    Args:
        body_bytes: Size of a request's body (413).
        texts: Texts or records per request (413).
        documents: Documents per reranking (413).
        characters: Characters per text (422).
        seeds: Seeds per write (413).
        depth: Largest ``depth`` and ``top_k`` (422).
        body_seconds: Time in which a body must arrive (408).
        deadline_ms: Time after which a request is given up where it does not say so itself (504).
        queue_seconds: Seconds of work that may wait for a model; beyond it new requests are refused (429).
        requests_per_second: Requests per key, averaged (429); ``None`` for no limit.
        burst: Requests that a key may make at once before that rate counts.
    """

    body_bytes: int = 8 * 1024 * 1024
    texts: int = 256
    documents: int = 1000
    characters: int = 32_768
    seeds: int = 10_000
    depth: int = 1000
    body_seconds: float = 20.0
    deadline_ms: int = 30_000
    queue_seconds: float = 4.0
    requests_per_second: float | None = None
    burst: int = 100


@dataclass(frozen=True, slots=True)
class Serve:
    """The settings of a service; the keys of its TOML file are these names.

    Args:
        banks: Folder of each bank by its name in the API.
        model: Encoder for ``/v1/embeddings``; by default the encoder of the first bank that has one.
        rerank: Reranker; by default reranking is not offered.
        policies: Policy file of each bank that decisions are made over, by the bank's name.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        keys: File of API keys; by default everybody who reaches the address may do everything.
        state: Folder for decisions, reviews and idempotency keys; by default nothing is kept and ``/review`` is off.
        placement: Runtime, precision, device and batch tokens of the models.
        recall: Settings of recall (``pipeline.Recall``) that requests may override, and policies replace.
        limits: Of requests.
        poll_seconds: How often a bank is asked whether another process has changed it.
        drain_delay: Seconds between the signal to stop, from which ``/readyz`` says 503, and the last new connection.
        drain_seconds: Seconds for requests to finish after that.
        second_looks: Share of reviewed items that a second person is shown without the first one's verdict.
        lease_seconds: How long an item is kept for the person who opened it.
    """

    banks: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    rerank: str | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    keys: str | None = None
    state: str | None = None
    placement: Mapping[str, Any] = field(default_factory=dict)
    recall: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    poll_seconds: float = 0.5
    drain_delay: float = 0.0
    drain_seconds: float = 30.0
    second_looks: float = 0.05
    lease_seconds: float = 600.0


def read_serve(path: PathLike | None, options: Mapping[str, Any]) -> Serve:
    """The settings of a TOML file, with those of ``options`` that are not ``None`` on top.

    Args:
        path: Of the file; ``None`` for none. Its keys are those of ``Serve``, with tables for ``banks``, ``policies``,
            ``placement``, ``recall`` and ``limits``.
        options: By the same names.

    Raises:
        UsageError: No such file, no TOML, an unknown key, or a value of the wrong kind or out of range.
    """
    where = "" if path is None else f"{path_of(path, 'path')}: "
    found: dict[str, Any] = {} if path is None else readers.read_toml(path_of(path, "path"), remedy=_REMEDY)
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(placement := found.get("placement"), Mapping):
        given["placement"] = {**placement, **given.get("placement", {})}
    found |= given
    limits = found.pop("limits", {})
    _check(limits, Limits, f"{where}limits.")
    _check(found, Serve, where)
    if unknown := set(found.get("placement", {})) - set(_PLACEMENT):
        raise UsageError(f"{where}placement.{min(unknown)} is unknown; expected some of {', '.join(_PLACEMENT)}")
    return Serve(**found, limits=Limits(**limits))


def _check(found: Any, kind: type, where: str) -> None:
    """Refuse keys that are not those of a class, and values of other kinds than its fields have."""
    if not isinstance(found, Mapping):
        raise UsageError(f"{where.rstrip('.')} is {shown(found)}; expected a table of settings")
    known = {one.name: one.type for one in fields(kind)}
    for key, value in found.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}"
            raise UsageError(f"{where}{key} is unknown; {hint}")
        said, kinds = _kinds(known[key])
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UsageError(f"{where}{key} is {shown(value)}; expected {said}")
        if isinstance(value, int | float) and not 0 <= value <= _HIGHEST.get(key, sys.float_info.max):  # nor NaN
            until = f"to {_HIGHEST[key]}" if key in _HIGHEST else "on"
            raise UsageError(f"{where}{key} is {shown(value)}; expected a number from 0 {until}")
        paths = value.values() if isinstance(value, Mapping) and key in ("banks", "policies") else ()
        if not all(isinstance(path, str) for path in paths):
            raise UsageError(f"{where}{key} is {shown(value)}; expected a path for each name of a bank")


def _kinds(annotation: Any) -> tuple[str, tuple[type, ...]]:
    """The classes that a value may be of, and how they are called."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = {get_origin(part) or part for part in parts}
    said = " or ".join(_CALLED[part] for part in kinds if part in _CALLED)
    return said, (*kinds, int) if float in kinds else tuple(kinds)


_HIGHEST: Mapping[str, int] = {"port": 65_535, "second_looks": 1}
_PLACEMENT = ("runtime", "precision", "device", "batch_tokens")
_REMEDY = "see docs/service.md for an example"
_CALLED: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number", Mapping: "a table"}
