"""What holds for every answer: the digest header, the token, the body limit, metrics, and errors in one form.

An ASGI layer round all routes, so that no answer, not even an unknown path's or an internal failure's, goes round it.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.requests import ClientDisconnect

from deploy.openai_api.errors import ApiError, respond

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from deploy.openai_api.metrics import Metrics

__all__ = ["Envelope"]

logger = logging.getLogger(__name__)

# Probes ask without a token: they tell that the server lives, and nothing of what is asked of it.
OPEN_PATHS = frozenset({"/livez", "/readyz"})
ROUTES = frozenset({"/v1/models", "/v1/chat/completions", "/livez", "/readyz", "/metrics"})
TOO_LARGE = "body_too_large"


class Envelope:
    """Wrap an app.

    Args:
        app: The app within.
        digest: Digest of the version served; sent as `x-model-digest`.
        token: The bearer token that clients must send; None answers clients on this machine only.
        body_limit_bytes: Largest request body.
        metrics: Where requests are counted.
    """

    def __init__(
        self, app: ASGIApp, *, digest: str, token: str | None, body_limit_bytes: int, metrics: Metrics
    ) -> None:
        self._app = app
        self._digest = digest.encode()
        self._token = token.encode() if token else None
        self._limit = body_limit_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, path = time.perf_counter(), 0, scope["path"]
        route = path if path in ROUTES else "/v1/models/{id}" if path.startswith("/v1/models/") else "other"
        request_id = f"req-{uuid4().hex}".encode()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-model-digest", self._digest), (b"x-request-id", request_id)]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, send_with_headers)
        except ClientDisconnect:
            # gone before its request was whole; there is nobody to answer
            logger.info("a client left before its request was whole")
        except Exception:
            logger.exception("request %s %s failed", scope["method"], route)
            if status:
                raise
            failure = ApiError(500, "The server failed to answer this request.", "internal_error")
            await respond(failure)(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
            self._metrics.requests.labels(route, method, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._authenticate(scope)
            receive = self._limited(scope, receive)
        except ApiError as error:
            await respond(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        if self._token is None:
            client = scope.get("client")
            if client and not _is_loopback(client[0]):
                raise ApiError(401, "This server has no token, so it answers its own machine only.", "token_not_set")
            _refuse_browsers(scope)
            return
        if scope["path"] in OPEN_PATHS:
            return
        kind, _, secret = (_header(scope, b"authorization") or b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(secret.strip(), self._token):
            asked = {"WWW-Authenticate": "Bearer"}
            if not secret.strip():
                message = "No API key provided. Send it as the header 'Authorization: Bearer KEY'."
                raise ApiError(401, message, "missing_api_key", headers=asked)
            raise ApiError(401, "Incorrect API key provided.", "invalid_api_key", headers=asked)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return a `receive` that raises once the body is larger than the limit, whatever its length header says."""
        declared = _header(scope, b"content-length") or b"0"
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._limit:
                    raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The request body is larger than {self._limit} bytes.", TOO_LARGE)


def _refuse_browsers(scope: Scope) -> None:
    """Refuse what a foreign web page can make the browser of this machine send, where no token tells it apart.

    A name that resolves to loopback (DNS rebinding) shows in the Host, a page's own script in the Origin, and a
    form, or a request that the browser sends without asking first, in the content type.
    """
    host = _header(scope, b"host")
    if host is not None and not _names_loopback(f"//{host.decode('latin-1')}"):
        raise ApiError(
            421, "Without a token this server answers to 'localhost' and loopback addresses only.", "bad_host"
        )
    origin = _header(scope, b"origin")
    if origin is not None and not _names_loopback(origin.decode("latin-1")):
        raise ApiError(403, "Without a token this server answers no pages of other origins.", "bad_origin")
    if scope["method"] == "POST":
        kind = (_header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            message = "The content type must be application/json."
            raise ApiError(415, message, "unsupported_content_type")


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _names_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host == "localhost" or (host is not None and _is_address_of_loopback(host))


def _is_loopback(host: str) -> bool:
    # a unix socket has no address
    return host in ("", "localhost") or _is_address_of_loopback(host)


def _is_address_of_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
