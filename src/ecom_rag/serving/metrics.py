"""What the service counts, for Prometheus; no text and no name of a client is ever a label."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ecom_rag.serving.engine.batching import Ran

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own = {"registry": self._registry}
        self._requests = Counter("ecom_rag_requests", "Answered requests.", ("route", "method", "status"), **own)
        self._latency = Histogram(
            "ecom_rag_request_seconds", "Time to answer a request.", ("route",), buckets=_SECONDS, **own
        )
        self._waited = Histogram(
            "ecom_rag_queue_wait_seconds", "Longest wait of a request in a batch.", ("stage",), buckets=_SECONDS, **own
        )
        self._ran = Histogram("ecom_rag_batch_seconds", "Time of a batch.", ("stage",), buckets=_SECONDS, **own)
        self._units = Histogram(
            "ecom_rag_batch_units", "Texts, pairs or requests in a batch.", ("stage",), buckets=_UNITS, **own
        )
        self._truncated = Counter("ecom_rag_truncated_texts", "Texts that a model read in part.", ("route",), **own)
        self._decisions = Counter("ecom_rag_decisions", "Decisions.", ("bank", "action", "reason"), **own)
        self._refused = Counter("ecom_rag_problems", "Requests that failed.", ("code",), **own)

    def watch(self, ran: Ran) -> None:
        """Count a batch."""
        self._waited.labels(ran.batcher).observe(ran.waited)
        self._ran.labels(ran.batcher).observe(ran.seconds)
        self._units.labels(ran.batcher).observe(ran.units)

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Template of its path.
            method: Of HTTP.
            status: That it was answered with.
            seconds: From its first byte to its last.
        """
        self._requests.labels(route, method, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def truncated(self, route: str, count: int) -> None:
        """Count texts that a model read in part."""
        if count:
            self._truncated.labels(route).inc(count)

    def decided(self, bank: str, decision: Mapping[str, Any]) -> None:
        """Count a decision."""
        self._decisions.labels(bank, decision["action"], decision["reason"] or "").inc()

    def refused(self, code: str) -> None:
        """Count a request that failed."""
        self._refused.labels(code).inc()

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when the metrics are read.

        Args:
            name: Of the metric.
            help: In a sentence.
            value: Gives the number.
        """
        Gauge(name, help, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """In the format that Prometheus reads."""
        return generate_latest(self._registry)
