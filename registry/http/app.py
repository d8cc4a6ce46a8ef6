"""The FastAPI app round one open registry. The same app runs under uvicorn and in process in the tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from importlib.metadata import version as release_of
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from registry.errors import MissingError, RegistryError, RequestInvalid
from registry.http.access import NOTHING_ELSE
from registry.http.aliases import alias_routes
from registry.http.approvals import approval_routes
from registry.http.contents import content_routes
from registry.http.guard import OPEN_PATHS, PREFIX, Guard, Limits, respond
from registry.http.journal import journal_routes
from registry.http.lifecycle import lifecycle_routes
from registry.http.metrics import Metrics
from registry.http.models import Problem
from registry.http.problems import MEDIA_TYPE, Refused
from registry.http.server import server_routes
from registry.http.signatures import signature_routes
from registry.http.tokens import Tokens
from registry.http.uploads import Uploads
from registry.http.versions import version_routes
from registry.layout import UPLOADS
from registry.store import Registry

__all__ = ["make_app"]

Background = Callable[[], AbstractAsyncContextManager[None]]
# What FastAPI reads as JSON; of another body it says that it is no object.
_JSON = re.compile(r"application/([^;]+\+)?json\s*(;|$)", re.IGNORECASE)


def make_app(
    registry: Registry,
    tokens: Tokens | None,
    *,
    limits: Limits | None = None,
    background: Background | None = None,
) -> FastAPI:
    """Build the API of a registry.

    Args:
        registry: An open registry; stays open.
        tokens: Who may ask; None, or no token in it, answers this machine only, in the login name.
        limits: Bounds on bodies and time.
        background: What runs beside the app, webhooks for instance.

    Returns:
        The app.
    """
    limits = limits or Limits()
    metrics = Metrics()
    uploads = Uploads(registry.folder / UPLOADS, registry.blobs)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(uploads.sweep)
        if background is None:
            yield
        else:
            async with background():
                yield

    app = FastAPI(
        title="Tunewright registry",
        description="Models, versions, aliases and what was proven about them.",
        version=release_of("tunewright"),
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
    )
    for routes in (
        version_routes(registry),
        alias_routes(registry),
        approval_routes(registry),
        lifecycle_routes(registry),
        signature_routes(registry),
        content_routes(registry, uploads, limits),
        journal_routes(registry),
        server_routes(registry, metrics),
    ):
        app.include_router(routes, prefix=PREFIX, dependencies=[NOTHING_ELSE])
    app.add_exception_handler(RegistryError, _tell)
    app.add_exception_handler(Refused, _tell)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(RecursionError, _tell_deep)
    app.add_exception_handler(HTTPException, _tell_unrouted)
    app.add_middleware(Guard, tokens=tokens, limits=limits, metrics=metrics)
    app.state.closed = tokens is not None and bool(tokens.all())  # and from the first token on, by the guard
    app.state.long_acts, app.state.most_long_acts = 0, limits.long_acts
    described = cache(partial(_describe, app))
    app.openapi = lambda: described(app.state.closed)  # type: ignore[method-assign]
    return app


async def _tell(_request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return respond(error.error, error.status_code, error.headers)
    assert isinstance(error, RegistryError)
    return respond(error)


async def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    kind = request.headers.get("content-type", "none")
    sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if sent and [tuple(one["loc"]) for one in found] == [("body",)] and not _JSON.match(kind):
        return respond(
            RequestInvalid(
                f"the body has the content-type {kind[:100]!r}, and was not read as JSON",
                allowed="content-type: application/json",
                next_step="send that header with it: curl has it with --json",
            )
        )
    told = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found[:5]]
    more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
    problem = RequestInvalid("; ".join(told + more), next_step=f"GET {PREFIX}/openapi.json has the schema")
    return respond(problem)


async def _tell_deep(_request: Request, _error: Exception) -> Response:
    return respond(RequestInvalid("the request's JSON is nested too deeply"))


async def _tell_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = MissingError if error.status_code == 404 else RequestInvalid
    problem = kind(
        f"{error.detail}: {request.method} {request.url.path}",
        next_step=f"GET {PREFIX}/openapi.json lists what there is",
    )
    return respond(problem, error.status_code, dict(error.headers or {}))


def _describe(app: FastAPI, secured: bool) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's own, with our problem documents as the errors.

    Args:
        app: The app.
        secured: Whether requests need a bearer token; then it says so of each path that isn't open to everybody.
    """
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=__doc__)
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"Problem": problem}
    told = {"description": "A problem.", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] = {
                code: told if code == "422" else answer for code, answer in operation["responses"].items()
            } | {"default": told}
            if secured and path not in OPEN_PATHS:
                operation["security"] = [{"bearer": []}]
                operation["responses"] |= {"401": told, "403": told}
    if secured:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return document
