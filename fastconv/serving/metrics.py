"""What the server counts: for Prometheus, and for the protocol's statistics.

Everything is counted on the event loop's thread. Labels come from the server's own lists, never
from a request's words, so that strangers cannot make them grow.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["CONTENT_TYPE", "LATENCY_BOUNDS", "Metrics", "Statistics"]

MODEL = ("model", "version")
LATENCY_BOUNDS = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0,
)  # fmt: skip
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "fastconv_requests", "Requests answered", ("route", "code"), registry=registry
        )
        self.errors = Counter(
            "fastconv_errors", "Requests that failed, by cause", ("cause",), registry=registry
        )
        self.latency = Histogram(
            "fastconv_inference_seconds", "From the request's body to its answer", MODEL,
            buckets=LATENCY_BOUNDS, registry=registry,
        )  # fmt: skip
        self.queue = Histogram(
            "fastconv_queue_seconds", "Waiting for the network", MODEL,
            buckets=LATENCY_BOUNDS, registry=registry,
        )  # fmt: skip
        self.compute = Histogram(
            "fastconv_compute_seconds", "The network's run, per batch", MODEL,
            buckets=LATENCY_BOUNDS, registry=registry,
        )  # fmt: skip
        self.batch = Histogram(
            "fastconv_batch_size", "Samples that ran together", MODEL,
            buckets=BATCH_BOUNDS, registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "fastconv_queue_samples", "Samples that wait now", MODEL, registry=registry
        )
        self.in_flight = Gauge(
            "fastconv_requests_in_flight", "Requests being answered now", registry=registry
        )
        self.ready = Gauge("fastconv_ready", "1 while the server takes requests", registry=registry)
        self.device = Gauge(
            "fastconv_model_info", "1 for each version that is served, and where it runs",
            (*MODEL, "device", "provider", "fallback"), registry=registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)


@dataclass(slots=True)
class Duration:
    """How often, and nanoseconds in all, as the protocol counts."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += int(seconds * 1e9)

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class Statistics:
    """The numbers of one version of a model: of the protocol's statistics and of the metrics."""

    metrics: Metrics
    model: str
    version: str
    inferences: int = 0  # samples
    executions: int = 0  # batches
    last: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels, metrics = (self.model, self.version), self.metrics
        self._latency = metrics.latency.labels(*labels)
        self._queue = metrics.queue.labels(*labels)
        self._compute = metrics.compute.labels(*labels)
        self._batch = metrics.batch.labels(*labels)

    def ran(self, rows: int, seconds: float, failed: bool) -> None:
        """A batch was run."""
        self._compute.observe(seconds)
        self._batch.observe(rows)
        if not failed:
            self.executions += 1
            self.inferences += rows
            self.batches.setdefault(rows, Duration()).add(seconds)

    def answered(
        self, read: float, queue: float, compute: float, write: float, total: float
    ) -> None:
        """A request was answered; seconds of its parts."""
        self.last = time.time()
        self.success.add(total)
        self.queue.add(queue)
        self.compute_input.add(read)
        self.compute_infer.add(compute)
        self.compute_output.add(write)
        self._latency.observe(total)
        self._queue.observe(queue)

    def to_json(self) -> dict[str, Any]:
        """As the statistics extension has it."""
        parts = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        return {
            "name": self.model,
            "version": self.version,
            "last_inference": int(self.last * 1000),
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {part: getattr(self, part).to_json() for part in parts},
            "batch_stats": [
                {"batch_size": rows, "compute_infer": duration.to_json()}
                for rows, duration in sorted(self.batches.items())
            ],
        }

    def histogram(self) -> dict[str, list[float]]:
        """Answers by latency: upper bounds in seconds, and how many lie below each and above the
        one before."""
        bounds, counts, before = [], [], 0.0
        for metric in self._latency.collect():
            for sample in metric.samples:
                if sample.name.endswith("_bucket"):
                    bounds.append(float(sample.labels["le"]))
                    counts.append(sample.value - before)
                    before = sample.value
        return {"bounds": bounds[:-1], "counts": counts}

    def forget(self) -> None:
        """Take the metrics of a version away that is served no more."""
        labels = (self.model, self.version)
        for metric in (
            self.metrics.latency, self.metrics.queue, self.metrics.compute, self.metrics.batch,
        ):  # fmt: skip
            metric.remove(*labels)
