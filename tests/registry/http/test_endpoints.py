"""Endpoints that are asked what they serve, and what becomes of those that answer badly."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from registry.errors import RequestInvalid
from registry.http import endpoints
from registry.http.endpoints import ask_endpoint


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "xn--"])
def test_host_that_cannot_be_is_told(host: str) -> None:
    assert ask_endpoint(f"http://{host}/v1").error


@pytest.mark.parametrize("url", ["http://h/v1?token=s3cr3t", "http://u:s3cr3t@h/v1", "http://h/v1#s3cr3t"])
def test_secret_in_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        ask_endpoint(url)
    assert "s3cr3t" not in str(refused.value)


def test_endpoint_that_answers_byte_by_byte_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "TIMEOUT_SECONDS", 1.0)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            client, _ = listening.accept()
            with client, suppress(OSError):
                client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
                while not done.wait(0.1):
                    client.sendall(b" ")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        try:
            found = ask_endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        finally:
            done.set()
            thread.join(10)
    assert found.error == "it has not answered in 1 s"
    assert time.monotonic() - began < 8
