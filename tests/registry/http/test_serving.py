"""A real server on a socket: broken connections, damage, slow senders, and the command that serves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from registry.errors import AliasConflict, BlobCorrupted, RegistryBusy, RequestInvalid
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.guard import Limits
from registry.http.protocol import PatientProtocol
from registry.http.serving import configuration, listen
from registry.http.tokens import Tokens
from registry.manifest import Manifest, describe_files
from registry.store import Registry

pytestmark = pytest.mark.integration
LARGE = b'{"a": "' + b"x" * 9_000_000 + b'"}'
DIGEST = hashlib.sha256(LARGE).hexdigest()


@contextmanager
def serving(registry: Registry, limits: Limits | None = None) -> Iterator[tuple[str, str]]:
    """Give a server's URL and a token that may do everything."""
    tokens = Tokens(registry.folder)
    secret = tokens.add("tester", "promote")
    app = make_app(registry, tokens, limits=limits)
    bound = listen("127.0.0.1", 0, with_tokens=True)
    config = configuration(app)
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", secret
    finally:  # after a test that failed, too: this process would wait for the thread at its end
        server.should_exit = True
        thread.join(20)
        bound.close()


@pytest.fixture
def served(registry: Registry) -> Iterator[tuple[str, str]]:
    with serving(registry) as place:
        yield place


def test_a_version_goes_over_a_socket_and_back(
    served: tuple[str, str], registry: Registry, write_files: Any, fingerprints: Any, tmp_path: Path
) -> None:
    files = write_files("base", **{"large.json": LARGE})
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    with RegistryClient(*served) as client:
        version = client.register("tiny", manifest, files)
        folder = client.checkout("tiny", tmp_path / "out")
    assert (folder / "large.json").read_bytes() == LARGE
    assert registry.resolve("tiny") == version


def _cut(served: tuple[str, str], request: str, body: bytes) -> None:
    """Send a request whose body breaks off."""
    host, port = served[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"{request} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {served[1]}\r\n"
        connection.sendall(f"{head}Upload-Offset: 0\r\nUpload-Length: {len(LARGE)}\r\n".encode())
        connection.sendall(f"Content-Length: {len(LARGE)}\r\n\r\n".encode() + body)


def _eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _fails(kind: type[Exception], act: Callable[[], object]) -> bool:
    try:
        act()
    except kind:
        return True
    return False


def test_an_upload_that_broke_off_is_gone_on_with(
    served: tuple[str, str], registry: Registry, write_files: Any, fingerprints: Any
) -> None:
    files = write_files("base", **{"large.json": LARGE})
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    _cut(served, f"PATCH /v1/uploads/{DIGEST}", LARGE[:5_000_000])
    part = registry.folder / "uploads" / f"{DIGEST}.part"
    _eventually(lambda: part.exists() and part.stat().st_size > 4_000_000)
    time.sleep(0.2)  # the server sees the connection's end, and lets go of the file
    there = part.stat().st_size
    sent: list[int] = []
    with RegistryClient(*served) as client:
        client.register("tiny", manifest, files, progress=lambda done, _of: sent.append(done))
    assert registry.verify().intact
    assert registry.blobs.size(DIGEST) == len(LARGE)
    # it began behind what had come, which is more than the two small files together
    assert min(done for done in sent if done > 1_000_000) > there > 4_000_000


def test_a_whole_content_that_breaks_off_leaves_nothing(served: tuple[str, str], registry: Registry) -> None:
    _cut(served, f"PUT /v1/blobs/{DIGEST}", LARGE[:2_000_000])
    _eventually(lambda: (registry.folder / "uploads").is_dir())
    _eventually(lambda: not list((registry.folder / "uploads").glob("*.part")))
    assert registry.blobs.size(DIGEST) is None


def test_a_sender_that_stops_sending_is_let_go_of(registry: Registry) -> None:
    with serving(registry, Limits(idle_seconds=0.2)) as (url, secret):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = f"PUT /v1/blobs/{DIGEST} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\nabc".encode())
            answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408"), answer


def _connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _head(secret: str, path: str, length: int = 0) -> bytes:
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_body_that_stops_coming_is_let_go_of(registry: Registry) -> None:
    with serving(registry, Limits(idle_seconds=0.2)) as (url, secret), _connect(url) as connection:
        connection.sendall(_head(secret, "promotions", 100) + b'{"ref":')
        with connection.makefile("rb") as stream:
            answer = stream.read()  # the connection is closed behind it
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"application/problem+json" in answer
    assert b"7 bytes so far" in answer


def test_head_is_answered_without_a_body_over_a_socket(served: tuple[str, str]) -> None:
    with httpx.Client(base_url=served[0], headers={"Authorization": f"Bearer {served[1]}"}) as client:
        for path in ("/v1/models", "/v1/health", "/v1/versions/none", "/v1/models"):  # by one connection
            head, got = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-length"] == got.headers["content-length"]


def test_connections_that_ask_nothing_keep_nobody_out(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "most_connections", 20)
    with serving(registry, Limits(requests=2)) as (url, secret):
        idle = [_connect(url) for _ in range(30)]
        idle[-1].sendall(b"GET /v1/models HTTP/1.1\r\n")  # a head that isn't whole
        with RegistryClient(url, secret) as client:
            assert client.models() == []
            with _connect(url) as late:
                late.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert late.recv(4096).startswith(b"HTTP/1.1 200")
            assert client.models() == []
        # room was made by those that were idle longest
        assert [one.recv(1) for one in idle[:10]] == [b""] * 10
        idle[-1].sendall(f"Host: x\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
        assert idle[-1].recv(4096).startswith(b"HTTP/1.1 200")
        for one in idle:
            one.close()


def test_a_head_has_a_deadline_however_slowly_it_comes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "head_seconds", 0.5)
    with serving(registry) as (url, secret), _connect(url) as silent, _connect(url) as slow, _connect(url) as again:
        again.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        for one in (slow, again):
            one.sendall(b"GET /v1/health HTTP/1.1\r\n")
        for one in (slow, again):
            _eventually(lambda one=one: _fails(OSError, lambda: one.sendall(b"X: y\r\n")))  # type: ignore[misc]
        assert silent.recv(1) == b""
        assert 0.4 < time.monotonic() - started < 10
        with RegistryClient(url, secret) as client:
            assert client.models() == []
            time.sleep(0.8)  # between two requests there is more time than for a head
            assert client.models() == []


def _answer(connection: socket.socket) -> bytes:
    """Return an answer, head and body, which may come in pieces; nothing of what follows it."""
    with connection.makefile("rb", buffering=0) as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.read(1) or pytest.fail("the connection ended in a head")
        length = int(re.search(rb"content-length: ([0-9]+)", head)[1])  # type: ignore[index]
        body = b""
        while len(body) < length:
            body += stream.read(length - len(body)) or pytest.fail("the connection ended in a body")
    return head + body


def test_a_body_that_was_refused_may_end_and_half_a_next_head_may_not(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "head_seconds", 1.0)
    ask = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(registry) as (url, _), _connect(url) as refused, _connect(url) as ahead:
        refused.sendall(b"POST /v1/promotions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
        assert _answer(refused).startswith(b"HTTP/1.1 401")
        for _ in range(5):  # longer in all than a head may take, and never that long without a byte
            refused.sendall(b"x" * 10)
            time.sleep(0.3)
        time.sleep(0.8)  # past any deadline of a head; the connection waits for a request now
        refused.sendall(ask)
        assert _answer(refused).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        ahead.sendall(ask + ask[:10])
        while ahead.recv(4096):
            pass
        assert time.monotonic() - started < 10


def test_more_requests_at_once_than_the_limit_are_told_to_come_again(registry: Registry) -> None:
    with serving(registry, Limits(requests=1)) as (url, secret), _connect(url) as held:
        held.sendall(_head(secret, "promotions", 100))
        with RegistryClient(url, secret) as client:
            _eventually(lambda: _fails(RegistryBusy, client.models))  # once the other one has begun
            with pytest.raises(RegistryBusy, match="answering 1 requests already"):
                client.models()
        answer = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {secret}"})
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{url}/v1/health").status_code == 200  # who probes it learns that the server lives


def test_damage_breaks_the_connection_off_and_is_told_when_asked_again(
    served: tuple[str, str], registry: Registry, write_files: Any, fingerprints: Any, tmp_path: Path
) -> None:
    files = write_files("base", **{"large.json": LARGE})
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    registry.register("tiny", manifest, files)
    blob = registry.blobs.local_path(DIGEST)
    assert blob is not None
    blob.chmod(0o644)
    blob.write_bytes(LARGE[:-3] + b"y" + LARGE[-2:])
    headers = {"Authorization": f"Bearer {served[1]}"}
    received: list[int] = []
    with httpx.stream("GET", f"{served[0]}/v1/blobs/{DIGEST}", headers=headers) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(map(len, answer.iter_bytes()))
    assert 0 < sum(received) < len(LARGE)
    with RegistryClient(*served) as client, pytest.raises(BlobCorrupted, match="damaged"):
        client.checkout("tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_callers_that_saw_the_same_revision_one_wins(
    served: tuple[str, str], registry: Registry, add_adapter: Any, make_report: Any, policy: Any
) -> None:
    versions = [add_adapter(key) for key in "abcd"]
    for version in versions:
        registry.record_evaluation(version.digest, make_report())
    revision, outcomes = 0, []

    def promote(ref: str) -> None:
        with RegistryClient(*served) as client:
            try:
                done = client.promote(ref, "champion", policy=policy, expected_revision=revision)
                outcomes.append(("won", done.revision))
            except AliasConflict as error:
                outcomes.append(("lost", error.current_revision))

    for revision in range(3):
        threads = [threading.Thread(target=promote, args=(v.digest,)) for v in versions]
        outcomes.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # one may hold the alias already, and wins nothing by asking again
        assert outcomes.count(("won", revision + 1)) == 1
        assert {told for what, told in outcomes if what == "lost"} <= {revision + 1}
        assert len(outcomes) == 4
    assert registry.aliases()[0].revision == 3
    assert registry.verify().intact


def test_other_addresses_than_loopback_take_tokens() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(RequestInvalid, match="no tokens"):
            listen(host, 0, with_tokens=False)
    for host in ("example.org", "", "127.0.0.1:80"):
        with pytest.raises(RequestInvalid, match="not an address"):
            listen(host, 0, with_tokens=True)
    with listen("localhost", 0, with_tokens=False) as taken:
        taken.listen()
        with pytest.raises(RequestInvalid, match="can't be used"):
            listen("127.0.0.1", taken.getsockname()[1], with_tokens=False)


@pytest.mark.parametrize("new", [False, True])
def test_the_command_serves_until_it_is_terminated(
    registry: Registry, tmp_path: Path, add_base: Any, new: bool
) -> None:
    add_base()
    home = tmp_path / "new" if new else registry.folder.parent
    secret = None if new else Tokens(registry.folder).add("reader", "read")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "registry", "serve", "--port", "0", "--json"]
    with subprocess.Popen([*command, "--home", str(home)], stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["tokens"] == (0 if new else 1)
            with RegistryClient(ready["api"], secret) as client:
                assert [v.label for v in client.versions()] == ([] if new else ["tiny-base:v1"])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stdout.read() == b""
        finally:
            process.kill()


def test_many_long_acts_leave_threads_to_short_ones_and_to_registrations(
    registry: Registry, add_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, may_end, most = threading.Semaphore(0), threading.Event(), Limits().long_acts
    version, found = add_base(), registry.verify()

    def verify(_ref: str | None) -> Any:
        going.release()
        assert may_end.wait(30)
        return found

    monkeypatch.setattr(registry, "verify", verify)
    with serving(registry) as (url, secret), ThreadPoolExecutor(most) as pool:
        headers = {"Authorization": f"Bearer {secret}"}
        ask = lambda: httpx.post(f"{url}/v1/verifications", json={}, headers=headers, timeout=60)  # noqa: E731
        answers = [pool.submit(ask) for _ in range(most)]
        try:
            for _ in range(most):
                assert going.acquire(timeout=20)
            refused = ask()
            assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
            assert f"at {most} verifications and collections already" in refused.text
            assert httpx.get(f"{url}/v1/health", timeout=5).status_code == 200
            body = {"name": "tiny-base", "manifest": version.manifest.to_dict()}
            assert httpx.post(f"{url}/v1/versions", json=body, headers=headers, timeout=20).status_code == 201
        finally:
            may_end.set()
        assert {one.result().status_code for one in answers} == {200}
        assert ask().status_code == 200
