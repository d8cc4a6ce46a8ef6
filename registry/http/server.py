"""Routes of the server itself: whether it lives, whom it takes the caller for, and its metrics."""

from __future__ import annotations

from importlib.metadata import version as release_of
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from registry.http.access import router_of
from registry.http.metrics import Metrics
from registry.http.models import HealthModel, WhoModel
from registry.store import Registry

__all__ = ["server_routes"]


def server_routes(registry: Registry, metrics: Metrics) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is served.
        metrics: Where requests are counted.
    """
    router = router_of("server")

    @router.get("/health", response_model=HealthModel)
    def health() -> Any:
        """Say that the server answers and that its database can be read. Takes no token."""
        registry.outbox_head()
        return {"status": "ok", "version": release_of("tunewright")}

    @router.get("/whoami", response_model=WhoModel)
    def who(request: Request) -> Any:
        """Say whom the server takes the caller for."""
        return {"name": request.state.token.name, "role": request.state.token.role}

    @router.get("/metrics", response_class=PlainTextResponse)
    def show_metrics() -> Response:
        """Return the metrics as Prometheus reads them."""
        return Response(metrics.render(registry.outbox_head()), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
