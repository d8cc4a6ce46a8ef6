"""One request to somebody who may answer badly: one limit for all of it, and no more is read than is wanted."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

__all__ = ["ask"]


def ask(
    method: str,
    url: str,
    *,
    seconds: float,
    connect_seconds: float | None = None,
    most_bytes: int = 0,
    trust_env: bool = False,
    trusted: ssl.SSLContext | None = None,
    **request: Any,
) -> tuple[int, bytes]:
    """Send a request on a connection of its own, and follow no redirect.

    Args:
        method: Of HTTP.
        url: Where to.
        seconds: For all of it, from the connection to the last byte that is read.
        connect_seconds: For the connection, with TLS; all of `seconds` by default.
        most_bytes: Of its content that are wanted; of a longer one as much is returned as shows that. 0 reads none.
        trust_env: Whether the environment may name a proxy and authorities.
        trusted: Whom TLS trusts; the usual authorities by default.
        request: What httpx takes besides, `headers` for instance.

    Returns:
        The answer's status and its content.

    Raises:
        TimeoutError: It wasn't over in time.
        httpx.ConnectError, httpx.ConnectTimeout: There was no connection, so nothing of the request was sent.
        httpx.HTTPError, httpx.InvalidURL, ValueError, OSError: It can't be sent, or what came back is no answer.
    """
    return asyncio.run(_ask(method, url, seconds, connect_seconds, most_bytes, trust_env, trusted, request))


async def _ask(
    method: str,
    url: str,
    seconds: float,
    connect_seconds: float | None,
    most_bytes: int,
    trust_env: bool,
    trusted: ssl.SSLContext | None,
    request: dict[str, Any],
) -> tuple[int, bytes]:
    import httpx

    content = b""
    # one limit for all of it: each wait for a byte could be short without end
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=connect_seconds),
            follow_redirects=False,
            trust_env=trust_env,
            verify=True if trusted is None else trusted,
        ) as http,
        http.stream(method, url, **request) as answer,
    ):
        if most_bytes:
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > most_bytes:
                    break
        return answer.status_code, content
