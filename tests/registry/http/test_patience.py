"""How long a client waits for a server that reads whole contents first, and what it says of one that is silent."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.errors import ServerUnavailable
from registry.http import connection, transfer
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.connection import TIMEOUT_SECONDS
from registry.http.tokens import Tokens
from registry.http.transfer import VERIFY_SECONDS, RemoteBlobs, send
from registry.manifest import Manifest, describe_files
from registry.store import Registry
from tests.registry.http.test_serving import serving

CONTENT = b'{"a": "' + b"x" * 5_000_000 + b'"}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
AHEAD = 2 << 20


class Timed(httpx.BaseTransport):
    """Notes how long an answer to each request is waited for, and breaks a content off, once."""

    def __init__(self, behind: httpx.BaseTransport) -> None:
        self._behind = behind
        self.limits: list[tuple[str, float]] = []
        self.in_pieces: list[float] = []
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self.limits.append(
            (f"{request.method} {request.url.path.removesuffix(DIGEST)}", request.extensions["timeout"]["read"])
        )
        answer = self._behind.handle_request(request)
        if not request.url.path.startswith("/v1/blobs/"):
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=self._stream(request, answer.read()))

    def _stream(self, request: httpx.Request, content: bytes) -> httpx.SyncByteStream:
        class Stream(httpx.SyncByteStream):
            def __iter__(stream) -> Iterator[bytes]:  # noqa: N805 - this one is `stream`, `self` the transport
                self.in_pieces.append(request.extensions["timeout"]["read"])
                if "range" in request.headers:
                    yield content
                else:
                    yield content[:AHEAD]
                    raise httpx.ReadError("broken off")

        return Stream()


def test_where_whole_contents_are_read_first_an_answer_is_waited_for(
    registry: Registry,
    in_process: Callable[..., Any],
    write_files: Any,
    fingerprints: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 2_000_000)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    way = Timed(in_process(make_app(registry, Tokens(registry.folder))))
    client = RegistryClient("http://registry.test", Tokens(registry.folder).add("tester", "write"), transport=way)
    files = {"large.json": write_files("base", **{"large.json": CONTENT})["large.json"]}
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    client.register("tiny", manifest, files)
    registered = ("POST /v1/versions", VERIFY_SECONDS)
    assert way.limits == [
        registered, ("GET /v1/uploads/", TIMEOUT_SECONDS), *[("PATCH /v1/uploads/", TIMEOUT_SECONDS)] * 2,
        ("PATCH /v1/uploads/", VERIFY_SECONDS), registered,
    ]  # fmt: skip
    way.limits.clear()
    client.checkout("tiny", tmp_path / "out")
    assert way.limits[-2:] == [("GET /v1/blobs/", TIMEOUT_SECONDS), ("GET /v1/blobs/", VERIFY_SECONDS)]
    assert way.in_pieces == [TIMEOUT_SECONDS] * 2  # once an answer has begun, its bytes come at once
    assert (tmp_path / "out" / "large.json").read_bytes() == CONTENT


def test_a_range_is_read_once(registry: Registry, ask: Callable[..., httpx.Response]) -> None:
    ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    opened: list[str] = []
    open_one = registry.blobs._bytes_of
    registry.blobs._bytes_of = lambda sha256: (opened.append(sha256), open_one(sha256))[1]  # type: ignore[method-assign]
    for first in (1, AHEAD, len(CONTENT) - 1):
        opened.clear()
        assert ask("GET", f"/v1/blobs/{DIGEST}", headers={"Range": f"bytes={first}-"}).content == CONTENT[first:]
        assert opened == [DIGEST]


@pytest.mark.integration
def test_a_last_part_whose_answer_is_not_waited_for_is_asked_after(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server hashes for longer than a client waits that doesn't wait long; both go through all the same."""
    monkeypatch.setattr(transfer, "VERIFY_SECONDS", 0.5)
    adopt, adopted = registry.blobs.adopt, []

    def slow(*given: Any) -> bool:
        time.sleep(1.5)
        adopted.append(given)
        return adopt(*given)

    monkeypatch.setattr(registry.blobs, "adopt", slow)
    sent: list[int] = []
    with serving(registry) as place, RegistryClient(*place) as client:
        send(client._http, io.BytesIO(CONTENT), DIGEST, len(CONTENT), sent.append)
    assert len(adopted) == 1
    assert sent[-1] == registry.blobs.read(DIGEST) == len(CONTENT)
    assert [done for done in sent if done < len(CONTENT)] == sorted({done for done in sent if done < len(CONTENT)})


@pytest.mark.integration
def test_a_connection_without_a_byte_is_kept_open_and_ends_with_its_server(registry: Registry) -> None:
    """Between a client and its server routers forget a silent connection within minutes, and machines lose power."""
    with serving(registry) as place, RegistryClient(*place) as client:
        answer = client._http.get("/v1/health")
        kept = answer.extensions["network_stream"].get_extra_info("socket")
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_a_last_part_that_a_proxy_gave_up_is_asked_after(
    registry: Registry, in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    behind = in_process(make_app(registry, Tokens(registry.folder)))
    asked: list[str] = []

    class Proxy(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.method)
            answer = behind.handle_request(request)
            return httpx.Response(504, text="Gateway Time-out") if request.method == "PATCH" else answer

    client = RegistryClient("http://registry.test", Tokens(registry.folder).add("tester", "write"), transport=Proxy())
    send(client._http, io.BytesIO(CONTENT), DIGEST, len(CONTENT), lambda _: None)
    assert asked == ["GET", "PATCH", "GET"]
    assert registry.blobs.read(DIGEST) == len(CONTENT)


def test_an_upload_that_a_server_was_ended_over_is_finished_by_running_the_same_again(
    registry: Registry, in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte came, and the server was killed while it hashed them: none is sent again."""
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    way = Timed(in_process(make_app(registry, Tokens(registry.folder))))
    client = RegistryClient("http://registry.test", Tokens(registry.folder).add("tester", "write"), transport=way)
    uploads = registry.folder / "uploads"
    uploads.mkdir()
    (uploads / f"{DIGEST}.part").write_bytes(CONTENT)
    (uploads / f"{DIGEST}.length").write_text(str(len(CONTENT)))
    send(client._http, io.BytesIO(CONTENT), DIGEST, len(CONTENT), lambda _: None)
    assert [(one.method, one.headers.get("content-length")) for one in way.asked] == [("GET", None), ("PATCH", "0")]
    assert registry.blobs.read(DIGEST) == len(CONTENT)
    assert list(uploads.iterdir()) == []


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for one in taken:
            one.close()


def test_a_silent_server_is_told_apart_from_one_that_is_not_there(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    with RegistryClient(silent) as client:
        client._http.timeout = httpx.Timeout(0.1)
        with pytest.raises(ServerUnavailable, match=r"did not answer in 0\.1 s") as told:
            client.resolve("tiny")
        assert "at it still" in str(told.value)
        with pytest.raises(ServerUnavailable, match=r"did not answer in 0\.2 s"):
            client._post("/v1/verifications", {}, timeout_seconds=0.2)
        with pytest.raises(ServerUnavailable, match="fetches it anew"):
            RemoteBlobs(client._http, lambda _: None).read(DIGEST)
        with pytest.raises(ServerUnavailable, match="goes on where it stopped"):
            send(client._http, io.BytesIO(CONTENT), DIGEST, len(CONTENT), lambda _: None)


def test_a_connection_that_breaks_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)

    class Broken(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ReadError("reset by peer")

    client = RegistryClient("http://registry.test", transport=Broken())
    with pytest.raises(ServerUnavailable, match=r"connection to the registry at .* broke: ReadError: reset by peer"):
        RemoteBlobs(client._http, lambda _: None).read(DIGEST)
