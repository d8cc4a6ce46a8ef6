"""The way to a registry's server: one httpx client, tries, pages, and problem documents raised as errors."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import httpx

from registry.canonical import canonical_json
from registry.entities import Evaluation, Version
from registry.errors import RecordDamaged, ReportInvalid, RequestInvalid, ServerUnavailable, TokenInvalid
from registry.http.loopback import names_loopback
from registry.http.transfer import FIRST_PAUSE_SECONDS, failure_of, raise_for
from registry.http.wire import version_of
from registry.names import check_alias, check_bound, check_name, check_text, parse_reference
from registry.secret_uris import without_secrets

__all__ = ["Connection", "quoted"]

PAGE = 500
TIMEOUT_SECONDS = 60.0  # longer than the registry's write lock is waited for
GET_TRIES = 3
_GRAMMARS: dict[str, Callable[[str], object]] = {"name": check_name, "ref": parse_reference, "alias": check_alias}


class Connection:
    """What the parts of `registry.http.client.RegistryClient` ask through; see there."""

    def __init__(self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        token = None if token is None else token.strip()  # of a file, a line
        if token is not None and not (token.isascii() and token.isprintable()):
            raise TokenInvalid(
                "the token has characters that no token has",
                allowed="what `tunewright registry token add` printed",
                next_step="copy it anew",
            )
        try:
            _ = urlsplit(url).port  # httpx takes any number for one
            # no proxy of the environment between this process and its own machine: it would be told the token
            trust_env = not names_loopback(url)
            if transport is None and not (trust_env and getproxies()):  # to which httpx finds the way only by itself
                transport = httpx.HTTPTransport(trust_env=trust_env, socket_options=_kept_alive())
            self._http = httpx.Client(
                base_url=url.rstrip("/").removesuffix("/v1"),  # as `registry serve` prints it, too
                headers={} if token is None else {"Authorization": f"Bearer {token}"},
                timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=10.0),
                transport=transport,
                follow_redirects=False,
                trust_env=trust_env,
            )
        except (httpx.InvalidURL, ValueError):
            raise RequestInvalid(
                f"{without_secrets(url)} is no address of a registry",
                allowed="http://HOST:PORT or https://HOST:PORT, as `tunewright registry serve` prints it",
                next_step="correct the URL",
            ) from None  # whose text may repeat a password

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names, held against the REF: nobody on the way can answer another one.

        Raises:
            RecordDamaged: The answer is another version than the one that was asked for. Of a bare name or an alias
                the REF says no more than the model.
        """
        version = version_of(self._get(f"/v1/versions/{quoted(ref)}"))
        asked = parse_reference(ref)
        of_digest = version.digest.startswith(asked.digest_prefix or "")
        if not of_digest or asked.name not in (None, version.name) or asked.number not in (None, version.version):
            raise _other(f"asked for {ref}, the server answered with {version.label}, {version.digest[:12]}")
        return version

    @staticmethod
    def _require_evaluation_of(ref: str, evaluation: Evaluation) -> Evaluation:
        """Return an evaluation, if it isn't told to be one of another version than the digest that was asked about."""
        if not evaluation.version_digest.startswith(parse_reference(ref).digest_prefix or ""):
            raise _other(f"asked about {ref}, the server answered with a report on {evaluation.version_digest[:12]}")
        return evaluation

    @staticmethod
    def _require_registered(name: str, files: Mapping[str, Any], version: Version) -> Version:
        """Return what a server says was registered, if it is of the model and has the files that were to be."""
        # another digest is right where the content key was there already
        if version.name != name or version.manifest.files != files:
            raise _other(f"files of {name} were to be registered, the server answered with {version.label}")
        return version

    def _get(self, path: str, **params: Any) -> Any:
        given = {key: value for key, value in params.items() if value is not None}
        _check_encodable(given)
        for attempt in range(GET_TRIES):
            try:
                answer = self._http.get(path, params=given)
            except httpx.TransportError as error:
                if attempt == GET_TRIES - 1:
                    raise self._unavailable(error) from error
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
            else:
                return _document(answer)
        raise AssertionError("every try returns or raises")

    def _post(self, path: str, body: Mapping[str, Any], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
        _check_encodable(body)
        try:
            content = canonical_json(body).encode()
        except (TypeError, ValueError) as error:
            raise ReportInvalid(f"what was given: {error}", allowed="plain JSON values, no NaN") from error
        # sent once: of an act whose answer was lost, only its caller can say whether to do it again
        try:
            limit = httpx.Timeout(timeout_seconds, connect=10.0)
            headers = {"Content-Type": "application/json"}
            return _document(self._http.post(path, content=content, headers=headers, timeout=limit))
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    def _pages(self, path: str, *, cursor: str | None = None, limit: int | None = None, **params: Any) -> Iterator[Any]:
        check_bound("limit", limit)
        left = limit
        while left is None or left > 0:
            page = self._get(path, limit=PAGE if left is None else min(PAGE, left), cursor=cursor, **params)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def _numbered(self, path: str, after: int, limit: int | None, **params: Any) -> Iterator[Any]:
        check_bound("after", after)
        check_bound("limit", limit)
        left = limit
        while left is None or left > 0:
            page = self._get(path, after=after, limit=PAGE if left is None else min(PAGE, left), **params)
            yield from page["items"]
            if page["next"] is None:
                return
            after, left = page["next"], None if left is None else left - len(page["items"])

    def _unavailable(self, error: httpx.TransportError) -> ServerUnavailable:
        step = "look whether `tunewright registry serve` runs there, and at the URL"
        if isinstance(error, httpx.ReadTimeout):
            step = "it may be at it still: look whether what was asked is done, before you ask again"
        return ServerUnavailable(failure_of(self._http, error), next_step=step)


def _kept_alive() -> list[tuple[int, int, int]]:
    """Return what keeps a connection open over hours without a byte, and ends it where the other machine is gone."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # not every system has all of them
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def quoted(part: str) -> str:
    """Return a part of a path so that it stays one part, whatever is in it.

    Raises:
        ReferenceInvalid: No URL can have it: half of a surrogate pair is in it.
    """
    if not _is_encodable(part):
        parse_reference(part)  # says in the registry's words what is wrong
    # an empty one would ask for another resource, and so would dots
    return quote(part, safe="").replace(".", "%2E") if part in ("", ".", "..") else quote(part, safe="")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_encodable(given: Mapping[str, Any]) -> None:
    """Refuse as the registry does what can't be sent to it: texts with half of a surrogate pair in them.

    Raises:
        ReferenceInvalid: There is one.
    """
    for what, value in given.items():
        if isinstance(value, str) and not _is_encodable(value):
            _GRAMMARS.get(what, partial(check_text, what))(value)


def _other(problem: str) -> RecordDamaged:
    return RecordDamaged(
        problem,
        allowed="exactly the version that was asked for",
        next_step="use nothing of it; look at the URL and at what stands between here and the registry, over TLS where "
        "others can change what comes",
    )


def _document(answer: httpx.Response) -> Any:
    raise_for(answer)
    try:
        return answer.json()
    except ValueError as error:
        raise ServerUnavailable(
            f"the server at {without_secrets(str(answer.request.url))} answered what is no JSON",
            next_step="look whether it is a registry's",
        ) from error
