"""Where webhooks may go, and that the connection goes to the very address that was looked at."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from registry.errors import WebhookRefused
from registry.http import delivery
from registry.http.delivery import AUTHORITIES_FILE, deliver
from registry.http.hosts import HOSTS_FILE, check_url, destination
from registry.http.webhooks import Webhooks
from registry.store import Registry
from tests.registry.http.conftest import Receiver


def certified(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a certificate for a name, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    written = folder / f"{name}.pem", folder / f"{name}.key"
    written[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    written[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return written


@pytest.mark.integration
@pytest.mark.parametrize(("name", "problem"), [("localhost", None), ("other.example", "CERTIFICATE_VERIFY_FAILED")])
def test_over_tls_the_certificate_is_held_against_the_name_and_not_the_address(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    add_base: Callable[..., Any],
    tmp_path: Path,
    name: str,
    problem: str | None,
) -> None:
    certificate, key = certified(name, tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    receiver.server.socket = ours.wrap_socket(receiver.server.socket, server_side=True)
    hooks.add(f"https://localhost:{receiver.port}/", ["*"], position=0)
    add_base()
    assert "CERTIFICATE_VERIFY_FAILED" in str(deliver(registry)[0].error)  # nobody vouches for it
    shutil.copy(certificate, registry.folder / AUTHORITIES_FILE)
    found = deliver(registry, again=True)[0]
    if problem is None:
        assert (found.delivered, receiver.told) == (1, [1])
    else:
        assert problem in str(found.error)
        assert receiver.received == []
    (registry.folder / AUTHORITIES_FILE).write_text("no certificate")
    registry.record_evaluation(registry.resolve("tiny-base").digest, {})
    assert AUTHORITIES_FILE in str(deliver(registry, again=True)[0].error)
    assert AUTHORITIES_FILE in hooks.describe()[0]["last_error"]


@pytest.mark.integration
def test_a_redirect_is_a_failure(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    receiver.status, receiver.location = 307, f"http://localhost:{receiver.port}/elsewhere"
    assert "307" in str(deliver(registry)[0].error)
    assert len(receiver.received) == 1


@pytest.mark.integration
def test_a_host_that_is_allowed_no_more_is_told_nothing(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    (registry.folder / HOSTS_FILE).write_text("")
    assert "may not go" in str(deliver(registry)[0].error)
    assert receiver.received == []


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the system's look-up answer with one list of addresses after another, and return the names it was asked."""
    asked: list[str] = []

    def look(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0)) if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]  # fmt: skip

    monkeypatch.setattr("registry.http.hosts.socket.getaddrinfo", look)
    return asked


@pytest.mark.integration
def test_each_address_is_tried_until_one_can_be_connected_to(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.3"], ["127.0.0.2", "127.0.0.1"])
    error = str(deliver(registry)[0].error)
    assert error.count("Errno 111") == 2
    assert "127.0.0.2" in error
    assert "127.0.0.3" in error
    assert deliver(registry, again=True)[0].delivered == 1
    assert receiver.told == [1]


@pytest.mark.integration
def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 2.0)
    certificate, key = certified("localhost", tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    receiver.server.socket = ours.wrap_socket(receiver.server.socket, server_side=True)
    shutil.copy(certificate, registry.folder / AUTHORITIES_FILE)
    hooks.add(f"https://localhost:{receiver.port}/", ["*"], position=0)
    add_base()
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with socket.create_server(("127.0.0.2", receiver.port)):  # takes connections and never says a word of TLS
        assert deliver(registry)[0].delivered == 1
    assert receiver.told == [1]


@pytest.mark.integration
def test_an_answer_that_is_bad_is_not_asked_for_at_another_address(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    receiver.status = 500
    resolving(monkeypatch, ["127.0.0.1", "127.0.0.2"])
    assert deliver(registry)[0].error == "it answered with status 500"  # and no word of the other
    assert len(receiver.received) == 1


@pytest.mark.integration
def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_judged(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])  # the name changes its mind
    with socket.create_server(("127.0.0.2", receiver.port)) as elsewhere:
        elsewhere.settimeout(0.2)
        monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 2.0)
        assert deliver(registry)[0].delivered == 1
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    assert asked == ["localhost"]
    assert receiver.told == [1]
    assert receiver.received[0][0]["host"] == f"localhost:{receiver.port}"


@pytest.mark.integration
def test_no_proxy_of_the_environment_is_used(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 2.0)
        assert deliver(registry)[0].delivered == 1
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert receiver.told == [1]


def test_only_listed_hosts_at_fitting_addresses_are_gone_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WebhookRefused, match=HOSTS_FILE):
        check_url(tmp_path, "https://hooks.example.org/")
    (tmp_path / HOSTS_FILE).write_text("hooks.example.org\nci.internal:8443 private\n[::1] private\n10.1.2.3\n")
    assert check_url(tmp_path, "https://hooks.example.org/a") is False
    assert check_url(tmp_path, "https://HOOKS.example.org:444/a") is False  # without a port every port
    assert check_url(tmp_path, "http://ci.internal:8443/a") is True
    for url in (
        "http://hooks.example.org/",  # in clear over the open internet
        "https://hooks.example.org.evil.example/",
        "https://evil.example/#hooks.example.org",
        "https://hooks.example.org@evil.example/",
        "https://user:pw@hooks.example.org/",
        "https://ci.internal/",
        "ftp://hooks.example.org/",
        "https:///x",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org/\r\nX: y",
        "hooks.example.org",
        "",
    ):
        with pytest.raises(WebhookRefused):
            check_url(tmp_path, url)
    with pytest.raises(WebhookRefused, match="open internet"):
        destination(tmp_path, "https://10.1.2.3/")

    def resolve_to(*addresses: str) -> None:
        found = [(0, 0, 0, "", (address, 443)) for address in addresses]
        monkeypatch.setattr("registry.http.hosts.socket.getaddrinfo", lambda *_, **__: found)

    for bad in ("127.0.0.1", "10.0.0.8", "192.168.1.1", "169.254.169.254", "::1", "fe80::1%eth0", "fc00::1", "0.0.0.0",
                "::ffff:127.0.0.1", "2002:7f00:1::", "100.64.0.1", "224.0.0.1", "ff0e::1", "::", "fec0::1", "4000::1",
                "::7f00:1", "::ffff:0:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.8", "64:ff9b:1::a9fe:a9fe",
                "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1::5db8:d70e", "2001:db8::1", "2001::1"):  # fmt: skip
        resolve_to("93.184.215.14", bad)
        with pytest.raises(WebhookRefused, match="open internet"):
            destination(tmp_path, "https://hooks.example.org/a")
    for good in ("64:ff9b::5db8:d70e", "::ffff:93.184.215.14", "2002:5db8:d70e::1", "2606:2800:21f:cb07::1"):
        resolve_to(good)
        assert destination(tmp_path, "https://hooks.example.org/a").host == "hooks.example.org"
    resolve_to("93.184.215.14")
    found = destination(tmp_path, "https://hooks.example.org/a?b=c")
    assert (found.urls, found.host_header) == (("https://93.184.215.14:443/",), "hooks.example.org")
    resolve_to("::1")
    assert destination(tmp_path, "http://[::1]:81/x").urls == ("http://[::1]:81/",)
    resolve_to("2606:2800:21f:cb07::1", "93.184.215.14", "93.184.215.14")
    assert destination(tmp_path, "https://hooks.example.org/").urls == (
        "https://[2606:2800:21f:cb07::1]:443/", "https://93.184.215.14:443/",
    )  # fmt: skip
    resolve_to("10.0.0.8")
    assert destination(tmp_path, "https://ci.internal:8443/a").host_header == "ci.internal:8443"
    for line in ("host public", "host:port", "a b c"):
        (tmp_path / HOSTS_FILE).write_text(f"\n{line}\n")
        with pytest.raises(WebhookRefused, match="line 2"):
            check_url(tmp_path, "https://hooks.example.org/")
