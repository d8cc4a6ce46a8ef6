"""Prometheus metrics of one endpoint, in a registry of their own, so that two apps in a process don't mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deploy.engines.engine import Engine

__all__ = ["Metrics"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Count requests, tokens and seconds.

    Args:
        engine: Asked for its state when metrics are read.
        model_name: Label of the info metric.
        digest: Label of the info metric.
    """

    def __init__(self, engine: Engine, model_name: str, digest: str) -> None:
        self._engine = engine
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tunewright_requests", "HTTP requests answered.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "tunewright_request_seconds",
            "Seconds to the end of an answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "tunewright_first_token_seconds", "Seconds to an answer's first token.", buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge("tunewright_requests_in_flight", "HTTP requests being answered.", registry=registry)
        self.prompt_tokens = Counter("tunewright_prompt_tokens", "Prompt tokens accepted.", registry=registry)
        self.completion_tokens = Counter("tunewright_completion_tokens", "Tokens generated.", registry=registry)
        self.disconnects = Counter(
            "tunewright_disconnects", "Generations stopped because the client had gone.", registry=registry
        )
        self._running = Gauge("tunewright_engine_running", "Answers being generated.", registry=registry)
        self._waiting = Gauge("tunewright_engine_waiting", "Requests waiting for the engine.", registry=registry)
        self._ready = Gauge("tunewright_ready", "1 when the model has passed its canary.", registry=registry)
        Gauge("tunewright_model_info", "The model served.", ("model", "digest"), registry=registry).labels(
            model_name, digest
        ).set(1)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        status = self._engine.status()
        self._running.set(status.running)
        self._waiting.set(status.waiting)
        self._ready.set(status.state == "ready")
        return generate_latest(self._registry)
