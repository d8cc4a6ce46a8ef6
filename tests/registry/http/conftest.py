"""The app in process, asked by a real httpx client; and one base and one adapter in its registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from registry.http.app import make_app
from registry.http.guard import Limits
from registry.http.tokens import Tokens
from registry.store import Registry

LIMITS = Limits(body_bytes=200_000, blob_bytes=50_000_000, idle_seconds=5, request_seconds=20)


class InProcess(httpx.BaseTransport):
    """A synchronous way to an app: httpx's own is asynchronous."""

    def __init__(self, app: FastAPI, client: tuple[str, int] = ("127.0.0.1", 5000)) -> None:
        self._ours = httpx.ASGITransport(app, client=client, raise_app_exceptions=False)
        self._portal_context = start_blocking_portal()
        self._portal = self._portal_context.__enter__()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            # with its own headers alone: of a body that comes in pieces none says how long it is
            stream = httpx.ByteStream(request.read())
            sent = httpx.Request(request.method, request.url, headers=request.headers, stream=stream)
            answer = await self._ours.handle_async_request(sent)
            body = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=body, request=request)

        return self._portal.call(ask)

    def close(self) -> None:
        self._portal_context.__exit__(None, None, None)


@pytest.fixture
def in_process() -> Iterator[Callable[..., InProcess]]:
    opened: list[InProcess] = []

    def open_one(app: FastAPI, **options: Any) -> InProcess:
        opened.append(InProcess(app, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def tokens(registry: Registry) -> Tokens:
    return Tokens(registry.folder)


@pytest.fixture
def secrets(tokens: Tokens) -> dict[str, str]:
    """A token for each role, named after it."""
    return {role: tokens.add(f"{role}er", role) for role in ("read", "write", "promote")}


@pytest.fixture
def app(registry: Registry, tokens: Tokens, secrets: dict[str, str]) -> FastAPI:
    return make_app(registry, tokens, limits=LIMITS)


@pytest.fixture
def ask(app: FastAPI, secrets: dict[str, str], in_process: Callable[..., InProcess]) -> Callable[..., httpx.Response]:
    """Ask the app as a role: `ask("GET", "/v1/models", "read")`."""
    client = httpx.Client(transport=in_process(app), base_url="http://registry.test")

    def call(method: str, path: str, role: str | None = "promote", **options: Any) -> httpx.Response:
        headers = httpx.Headers(options.pop("headers", {}))
        if role is not None:
            headers.setdefault("Authorization", f"Bearer {secrets[role]}")
        return client.request(method, path, headers=headers, **options)

    return call
