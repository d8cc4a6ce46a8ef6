"""The app in process, asked by a real httpx client; one base and one adapter in its registry; a webhook's receiver."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from registry.http.app import make_app
from registry.http.guard import Limits
from registry.http.hosts import HOSTS_FILE
from registry.http.tokens import Tokens
from registry.http.webhooks import Webhooks
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


class Receiver:
    """A server that keeps what it is sent, and answers with the status that it is told to."""

    def __init__(self) -> None:
        self.status = 204
        self.location: str | None = None
        # called once, before the first answer
        self.first: Callable[[], Any] | None = None
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                if receiver.first and len(receiver.received) == 1:
                    receiver.first()
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def told(self) -> list[int]:
        return [json.loads(body)["id"] for _, body in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()
    one.thread.join()
    one.server.server_close()


@pytest.fixture
def hooks(registry: Registry, receiver: Receiver) -> Webhooks:
    (registry.folder / HOSTS_FILE).write_text(f"localhost:{receiver.port} private  # the tests' own\n")
    return Webhooks(registry.folder)


@pytest.fixture
def url(receiver: Receiver) -> str:
    return f"http://localhost:{receiver.port}/hook?team=a"


@contextmanager
def dripping(first: bytes, *, seconds: float = 6.0) -> Iterator[tuple[int, threading.Event]]:
    """Answer each connection with some bytes and then one after another, for so long; yield the port and who came."""
    done, came = threading.Event(), threading.Event()

    def drip(client: socket.socket) -> None:
        ends = time.monotonic() + seconds
        with client, suppress(OSError):
            client.recv(65536)
            came.set()
            client.sendall(first)
            while time.monotonic() < ends and not done.wait(0.05):
                client.sendall(b"a")

    def accept() -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                client, _ = listening.accept()
                threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1], came
        finally:
            done.set()
            thread.join()
