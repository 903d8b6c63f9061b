"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "sgseg_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "sgseg_request_seconds", "From first to last byte.", ("route",), registry=self._registry
        )
        self.under_way = Gauge(
            "sgseg_requests_under_way", "Requests being answered.", registry=self._registry
        )
        self.waiting = Gauge("sgseg_queue_images", "Images waiting for the model.", registry=self._registry)
        self.encoded = Counter(
            "sgseg_encoded_images", "Images that the encoder saw.", registry=self._registry
        )
        self.decoded = Counter("sgseg_decoded_images", "Masks that were predicted.", registry=self._registry)
        self.batches = Histogram(
            "sgseg_batch_images",
            "Images answered together.",
            buckets=(1, 2, 4, 8, 16),
            registry=self._registry,
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
