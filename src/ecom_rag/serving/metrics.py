"""What the service counts, for Prometheus; no text and no name of a client is ever a label."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ecom_rag.serving.engine.batching import Ran

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own = self._registry
        count, spread = partial(Counter, registry=own), partial(Histogram, registry=own, buckets=_SECONDS)
        self._requests = count("ecom_rag_requests", "Answered requests.", ("route", "method", "status"))
        self._latency = spread("ecom_rag_request_seconds", "Time to answer a request.", ("route",))
        self._waited = spread("ecom_rag_queue_wait_seconds", "Longest wait of a request in a batch.", ("stage",))
        self._ran = spread("ecom_rag_batch_seconds", "Time of a batch.", ("stage",))
        self._units = Histogram(
            "ecom_rag_batch_units", "Texts, pairs or requests in a batch.", ("stage",), buckets=_UNITS, registry=own
        )
        self._truncated = count("ecom_rag_truncated_texts", "Texts that a model read in part.", ("route",))
        self._decisions = count("ecom_rag_decisions", "Decisions.", ("bank", "action", "reason"))

    def watch(self, ran: Ran) -> None:
        """Count a batch."""
        self._waited.labels(ran.batcher).observe(ran.waited)
        self._ran.labels(ran.batcher).observe(ran.seconds)
        self._units.labels(ran.batcher).observe(ran.units)

    def answered(self, line: Mapping[str, Any]) -> None:
        """Count a request.

        Args:
            line: As ``logs.Access`` tells it: ``route``, ``method``, ``status`` and ``milliseconds``.
        """
        self._requests.labels(line["route"], line["method"], str(line["status"])).inc()
        self._latency.labels(line["route"]).observe(line["milliseconds"] / 1000)

    def truncated(self, route: str, count: int) -> None:
        """Count texts that a model read in part."""
        if count:
            self._truncated.labels(route).inc(count)

    def decided(self, bank: str, decision: Mapping[str, Any]) -> None:
        """Count a decision."""
        self._decisions.labels(bank, decision["action"], decision["reason"] or "").inc()

    def gauge(self, name: str, said: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Show numbers that are looked up when the metrics are read.

        Args:
            name: Of the metric.
            said: What it is, in a sentence.
            label: What the numbers are told apart by.
            values: Gives them.
        """
        self._registry.register(_Lookup(name, said, label, values))

    def text(self) -> bytes:
        """In the format that Prometheus reads."""
        return generate_latest(self._registry)


class _Lookup(Collector):
    """Numbers that are looked up."""

    def __init__(self, name: str, said: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._said, self._label, self._values = name, said, label, values

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What the registry asks for."""
        family = GaugeMetricFamily(self._name, self._said, labels=[self._label])
        for name, value in self._values().items():
            family.add_metric([name], value)
        yield family
