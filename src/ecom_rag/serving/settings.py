"""What the service is asked to do, and all of its limits with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        queue_tokens: Tokens that may wait for a model; beyond it new requests are refused (429).
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
    queue_tokens: int = 200_000
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
