"""Prometheus metrics of one server, in a registry of their own, so that two apps in a process don't mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Count requests and seconds by route: the path as the API declares it, so that no REF becomes a label."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "tunewright_registry_requests", "HTTP requests answered.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "tunewright_registry_request_seconds",
            "Seconds to the end of an answer.",
            ("route", "method"),
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "tunewright_registry_requests_in_flight", "HTTP requests being answered.", registry=registry
        )
        self._outbox = Gauge("tunewright_registry_outbox_head", "Id of the newest event.", registry=registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; status 499 stands for a client that left before it was answered."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, str(status or 499)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def render(self, outbox_head: int) -> bytes:
        """Return the metrics as Prometheus reads them."""
        self._outbox.set(outbox_head)
        return generate_latest(self._registry)
