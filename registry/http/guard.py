"""What holds for every request: who asks, from where, how large a body, and an answer even to an internal failure.

An ASGI layer round all routes, so that no answer goes round it. Without tokens only this machine is answered, and no
web page in its browser: a name that resolves to loopback (DNS rebinding) shows in the Host, a page's own script in the
Origin, and a form, or a request that the browser sends without asking first, in the content type.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from registry.audit import login_name
from registry.errors import CallerRefused, RegistryBusy, RegistryError, RegistryPathError, RequestInvalid, TokenInvalid
from registry.http.loopback import is_loopback, names_loopback
from registry.http.problems import MEDIA_TYPE, RETRY_SECONDS, Refused, document_of, headers_of, status_of
from registry.http.tokens import Token, Tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from registry.http.metrics import Metrics

__all__ = ["OPEN_PATHS", "PREFIX", "Guard", "Limits", "respond"]

logger = logging.getLogger(__name__)

PREFIX = "/v1"
# Told to everybody: that the server lives, and what it can be asked.
OPEN_PATHS = frozenset({f"{PREFIX}/health", f"{PREFIX}/openapi.json"})
# Their bodies are contents: streamed, bounded by `Limits.blob_bytes`, and of a type that no form has.
BLOBS = f"{PREFIX}/blobs/"
STREAMED = (BLOBS, f"{PREFIX}/uploads/")


@dataclass(frozen=True)
class Limits:
    """Bounds on what a request may take.

    Attributes:
        body_bytes: Largest JSON body.
        blob_bytes: Largest content.
        idle_seconds: Longest wait for the next piece of a body or a content.
        request_seconds: Longest time for all of one; what came of a content by then can be gone on with.
        requests: Most requests that are answered at once; connections through which nothing is asked don't count.
        long_acts: Most verifications and collections at once, which may hold a thread for hours.
    """

    body_bytes: int = 8 << 20
    blob_bytes: int = 1 << 40
    idle_seconds: float = 60.0
    request_seconds: float = 3600.0
    requests: int = 256
    long_acts: int = 4


def respond(error: RegistryError, status: int | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer that tells of an error."""
    status = status or status_of(error)
    return JSONResponse(
        document_of(error, status), status, {**headers_of(error, status), **(headers or {})}, media_type=MEDIA_TYPE
    )


class Guard:
    """Wrap the app.

    Args:
        app: What is within; finds who asks in `scope["state"]["token"]`.
        tokens: The tokens of clients; None answers this machine only. So do tokens of which there never was one since
            the server began: once there was one, every request needs one, for good.
        limits: Bounds.
        metrics: Where requests are counted.

    Whether every request needs a token is `state.closed` of the app round this, which begins with whether there was one
    when that was made.
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens | None, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._tokens = tokens
        self._limits = limits
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope
        if scope["method"] == "HEAD" and not scope["path"].startswith(BLOBS):
            # what GET answers; the server leaves the body out, and the router knows of no second method
            asked = {**scope, "method": "GET"}
        request_id = f"req-{uuid4().hex}".encode()
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-request-id", request_id), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        self._metrics.in_flight.inc()
        self._answering += 1
        try:
            if self._answering > self._limits.requests and scope["path"] not in OPEN_PATHS:
                raise RegistryBusy(
                    f"the server is answering {self._limits.requests} requests already",
                    allowed="fewer at once",
                    next_step=f"ask again in {RETRY_SECONDS} s",
                )
            asked.setdefault("state", {})["token"] = await self._authenticate(scope)
            await self._app(asked, self._limited(scope, receive), send_with_headers)
        except Refused as refused:
            await respond(refused.error, refused.status_code, refused.headers)(scope, receive, send_with_headers)
        except RegistryError as error:
            if status:
                raise  # the connection breaks off, which tells the client that what it has is not the whole
            await respond(error)(scope, receive, send_with_headers)
        except ClientDisconnect:
            logger.info("a client left before its request was whole")
        except Exception:
            logger.exception("request %s failed: %s %s", request_id.decode(), scope["method"], scope["path"])
            if status:
                raise
            failure = RegistryError(
                "the server failed to answer this request", next_step=f"look for {request_id.decode()} in its log"
            )
            await respond(failure)(scope, receive, send_with_headers)
        finally:
            self._answering -= 1
            self._metrics.in_flight.dec()
            self._metrics.count(_route_of(asked), scope["method"], status, time.perf_counter() - started)

    async def _authenticate(self, scope: Scope) -> Token:
        try:
            held = () if self._tokens is None else await run_in_threadpool(self._tokens.all)
        except RegistryPathError as error:
            # said in the log alone: whoever asks hasn't shown a token yet
            logger.error("nobody is answered: %s", error)
            raise RegistryError("the server can't read its tokens", next_step="look at its log") from error
        state = scope["app"].state
        state.closed = state.closed or bool(held)
        if not state.closed or self._tokens is None:
            self._require_this_machine(scope)
            return Token(login_name(), "promote", "", "")
        if scope["path"] in OPEN_PATHS:
            return Token("nobody", "read", "", "")
        kind, _, secret = (_header(scope, b"authorization") or b"").decode("latin-1").partition(" ")
        token = await run_in_threadpool(self._tokens.find, secret.strip()) if kind.lower() == "bearer" else None
        if token is None:
            raise TokenInvalid(
                "no token was sent" if not secret.strip() else "the token that was sent is none of this server's",
                allowed="the header 'Authorization: Bearer TOKEN'",
                next_step="tunewright registry token add NAME --role read, on the server's machine, prints one",
            )
        return token

    def _require_this_machine(self, scope: Scope) -> None:
        client = scope.get("client")
        if client and not is_loopback(client[0]):
            raise TokenInvalid(
                "this server has no tokens, so it answers its own machine only",
                next_step="tunewright registry token add NAME --role read",
            )
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if host is not None and not names_loopback(f"//{host.decode('latin-1')}"):
            error = CallerRefused(
                "without tokens this server answers to 'localhost' and loopback addresses only",
                allowed="a Host header with one of them",
            )
            raise Refused(421, error)
        if origin is not None and not names_loopback(origin.decode("latin-1")):
            raise CallerRefused("without tokens this server answers no pages of other origins")
        if scope["method"] == "POST":
            kind = (_header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                raise Refused(415, RequestInvalid("the content type is not application/json"))

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return a `receive` that raises once a JSON body is too large, whatever its length says, or too slow."""
        if scope["path"].startswith(STREAMED):
            return receive
        limits = self._limits
        error = RequestInvalid("the request's body is too large", allowed=f"at most {limits.body_bytes} bytes")
        declared = _header(scope, b"content-length") or b"0"
        if declared.isdigit() and int(declared) > limits.body_bytes:
            raise Refused(413, error)
        seen, whole, deadline = 0, False, time.monotonic() + limits.request_seconds

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:  # what is waited for now is the client's leaving
                return await receive()
            try:
                wait = min(limits.idle_seconds, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), max(wait, 0.0))
            except TimeoutError:
                slow = RequestInvalid(
                    f"the request's body came too slowly: {seen} bytes so far",
                    allowed=f"a piece every {limits.idle_seconds:g} s, and {limits.request_seconds:g} s in all",
                )
                raise Refused(408, slow, {"Connection": "close"}) from None
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if seen > limits.body_bytes:
                    raise Refused(413, error)
            return message

        return limited


def _route_of(scope: Scope) -> str:
    """Return the path as the API declares it; FastAPI's releases differ in whether the prefix is part of it."""
    path = getattr(scope.get("route"), "path", None)
    return "none" if path is None else PREFIX + path.removeprefix(PREFIX).replace(":path}", "}")


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)
