"""What a server counts, for Prometheus."""

from __future__ import annotations

import os
from typing import final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client adds up the counts of several processes."""

MEDIA_TYPE = CONTENT_TYPE_LATEST


@final
class Metrics:
    """Requests, images, batches and waiting times of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "stablepref_requests",
            "Requests by path and status.",
            ["path", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "stablepref_request_seconds", "Seconds until the answer.", ["path"], registry=registry
        )
        self._images = Counter(
            "stablepref_images",
            "Images by model and outcome, scored or failed.",
            ["model", "outcome"],
            registry=registry,
        )
        self._batches = Histogram(
            "stablepref_batch_images",
            "Images in a batch.",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self._active = Gauge(
            "stablepref_active_requests",
            "Requests that are worked on or wait.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def images(self, model: str, *, scored: int, failed: int) -> None:
        """Count images that got a score, and those that got a reason in its place."""
        self._images.labels(model, "scored").inc(scored)
        self._images.labels(model, "failed").inc(failed)

    def batch(self, model: str, size: int) -> None:
        """Count a batch."""
        self._batches.labels(model).observe(size)

    def active(self, count: int) -> None:
        """Note how many requests there are now."""
        self._active.set(count)

    def text(self) -> bytes:
        """All counts in Prometheus' text format: of all worker processes, where there are some."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
