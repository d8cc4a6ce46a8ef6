"""What endpoints serve now: each is asked for the digest of its version, so that no list of them can go stale."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from registry.errors import RequestInvalid
from registry.http.asking import ask
from registry.http.loopback import names_loopback
from registry.names import is_digest, one_line

__all__ = ["Endpoint", "ask_endpoint", "check_endpoint"]

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Endpoint:
    """What an endpoint said.

    Attributes:
        url: As it was given.
        digest: Of the version that it serves; None where it didn't say.
        status: `ready`, or what it says instead; None where it didn't say.
        error: Why it couldn't be asked.
    """

    url: str
    digest: str | None = None
    status: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON."""
        return asdict(self)


def check_endpoint(url: str) -> str:
    """Return where an endpoint says what it serves: beside its `/v1`, without a token.

    Raises:
        RequestInvalid: No address of http or https, or one with credentials.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        parts, usable = None, False
    if parts is None or not usable or parts.username is not None or parts.query or parts.fragment:
        raise RequestInvalid(
            f"endpoint {_without_secrets(url)!r} can't be asked",
            allowed="its address as `tunewright serve` prints it, http://HOST:PORT/v1, without credentials",
        )
    return f"{url.rstrip('/').removesuffix('/v1')}/readyz"


def _without_secrets(url: str) -> str:
    """Return as much of an address as can't hold a password or a token."""
    if "@" not in url:
        return url.partition("#")[0].partition("?")[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        return "..."
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "..."


def ask_endpoint(url: str) -> Endpoint:
    """Ask an endpoint of `tunewright serve` or of a bundle what it serves, for `TIMEOUT_SECONDS` in all.

    Args:
        url: Its address, with or without `/v1`.

    Returns:
        Its answer; that it can't be asked is one, too.

    Raises:
        RequestInvalid: As `check_endpoint`.
    """
    import httpx

    place = check_endpoint(url)
    try:
        # no proxy of the environment between this process and its own machine
        code, content = ask(
            "GET", place, seconds=TIMEOUT_SECONDS, most_bytes=MAX_ANSWER_BYTES, trust_env=not names_loopback(url)
        )
    except TimeoutError:
        return Endpoint(url, error=f"it has not answered in {TIMEOUT_SECONDS:g} s")
    # a host that can't be encoded is a ValueError
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return Endpoint(url, error=one_line(f"{type(error).__name__}: {error}", 200))
    try:
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError("its answer is too long")
        # one that isn't ready yet says what it is about to serve, with 503
        document = json.loads(content)
        digest, status = document.get("digest"), document.get("status")
        told = one_line(status[:40], 40) if isinstance(status, str) else None
        if not is_digest(digest) or told is None:
            raise ValueError("it names no version")
    except (ValueError, AttributeError, RecursionError) as error:
        return Endpoint(url, error=one_line(f"status {code}, and it is no endpoint of a version: {error}", 200))
    return Endpoint(url, digest, told)
