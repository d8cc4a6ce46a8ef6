"""A real server on a socket: broken connections, damage, slow senders, and the command that serves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from registry.errors import AliasConflict, BlobCorrupted, RequestInvalid
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.guard import Limits
from registry.http.serving import listen
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
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}", secret
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
