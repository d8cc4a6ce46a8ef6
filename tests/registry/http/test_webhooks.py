"""Webhooks against a real receiver on a socket: order, signature, retries, death and revival, and where they may go."""

from __future__ import annotations

import json
import shutil
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flows import cli
from registry.errors import WebhookNotFound, WebhookRefused
from registry.http.delivery import AUTHORITIES_FILE, DEAD_AFTER, deliver, delivering
from registry.http.hosts import HOSTS_FILE, check_url, destination
from registry.http.webhooks import Webhooks, message_of, signature_headers, verify_signature
from registry.outbox import LONGEST_PAUSE_SECONDS, Place, Places, pause_seconds
from registry.store import Registry


class Receiver:
    """A server that keeps what it is sent, and answers with the status that it is told to."""

    def __init__(self) -> None:
        self.status = 204
        self.location: str | None = None
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def told(self) -> list[int]:
        return [json.loads(body)["id"] for _, body in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()
    one.thread.join()
    one.server.server_close()


@pytest.fixture
def hooks(registry: Registry, receiver: Receiver) -> Webhooks:
    (registry.folder / HOSTS_FILE).write_text(f"localhost:{receiver.port} private  # the tests' own\n")
    return Webhooks(registry.folder)


@pytest.fixture
def url(receiver: Receiver) -> str:
    return f"http://localhost:{receiver.port}/hook?team=a"


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
    with pytest.raises(WebhookRefused, match=AUTHORITIES_FILE):
        deliver(registry, again=True)


@pytest.mark.integration
def test_events_are_told_in_order_signed_and_once(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_adapter: Callable[..., Any]
) -> None:
    hook = hooks.add(url, ["version.*"], position=0)
    for key in "abc":
        add_adapter(key)
    assert [found.delivered for found in deliver(registry)] == [4]
    assert receiver.told == [event.id for event in registry.outbox()] == [1, 2, 3, 4]
    headers, body = receiver.received[-1]
    message = verify_signature(hook.secret, headers, body)
    assert message["type"] == "version.registered"
    assert message["data"] == registry.outbox()[-1].payload
    assert headers["webhook-id"] == "evt_4"
    assert headers["host"] == f"localhost:{receiver.port}"
    assert deliver(registry) == []
    add_adapter("d")
    assert [found.delivered for found in deliver(registry)] == [1]
    assert hooks.places.of(hook.id).position == registry.outbox_head() == 5


@pytest.mark.integration
def test_what_fails_is_tried_again_later_and_those_behind_it_wait(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_adapter: Callable[..., Any]
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    add_adapter("a")
    receiver.status = 500
    assert [(found.delivered, found.dead) for found in deliver(registry, at=1000.0)] == [(0, False)]
    assert deliver(registry, at=1000.0 + pause_seconds(1) - 0.1) == []  # not due
    assert "500" in str(deliver(registry, at=1000.0 + pause_seconds(1))[0].error)
    place = hooks.places.of(hook.id)
    assert (place.position, place.failures, place.dead) == (0, 2, False)
    assert receiver.told == [1, 1]
    receiver.status = 200
    assert deliver(registry, again=True)[0].delivered == 2
    assert receiver.told == [1, 1, 1, 2]
    place = hooks.places.of(hook.id)
    assert (place.failures, place.last_error, place.position) == (0, None, 2)


@pytest.mark.integration
def test_a_webhook_that_fails_too_often_is_dead_until_it_is_revived(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    other = hooks.add(url, ["alias.*"], position=0)
    add_base()
    receiver.status = 503
    at = 1000.0
    for _ in range(DEAD_AFTER):
        deliver(registry, at=at)
        at += LONGEST_PAUSE_SECONDS
    assert hooks.places.of(hook.id).dead
    assert "revive" in caplog.records[-1].message
    assert len(receiver.received) == DEAD_AFTER
    assert [found.dead for found in deliver(registry, at=at)] == [True]
    assert len(receiver.received) == DEAD_AFTER  # nothing more is sent
    assert hooks.places.of(other.id).failures == 0  # others go on
    assert hooks.describe()[0]["dead"] is True
    receiver.status = 200
    hooks.revive(hook.id)
    assert [found.delivered for found in deliver(registry)] == [1]
    assert not hooks.places.of(hook.id).dead


@pytest.mark.integration
def test_a_redirect_is_a_failure(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    receiver.status, receiver.location = 307, "http://169.254.169.254/"
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


@pytest.mark.integration
def test_a_process_killed_between_telling_and_noting_tells_again(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_adapter: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    add_adapter("a")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Places, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            deliver(registry)
    assert (receiver.told, hooks.places.of(hook.id).position) == ([1], 0)
    deliver(registry)
    assert receiver.told == [1, 1, 2]  # at least once, in order, the same id at every try
    assert receiver.received[0][0]["webhook-id"] == receiver.received[1][0]["webhook-id"]


@pytest.mark.integration
def test_a_server_delivers_beside_its_answers(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()

    async def wait() -> None:
        async with delivering(registry):
            with anyio.fail_after(30):
                while not receiver.received:
                    await anyio.sleep(0.02)

    anyio.run(wait)
    assert receiver.told == [1]


def test_a_signature_holds_for_this_body_at_this_time_only() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    # the example of the Standard Webhooks specification
    body = b'{"test": 2432232314}'
    headers = signature_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    at = 1614265330.0
    assert verify_signature(secret, headers, body, at=at)["test"] == 2432232314
    several = {**headers, "webhook-signature": f"v1a,x v1,AAAA {headers['webhook-signature']}"}
    assert verify_signature(secret, several, body, at=at)
    for wrong, changed, when in (
        (headers, body + b" ", at),
        ({**headers, "webhook-id": "msg_other"}, body, at),
        ({**headers, "webhook-timestamp": "1614265331"}, body, at),
        ({**headers, "webhook-signature": "v1,AAAA"}, body, at),
        ({**headers, "webhook-signature": ""}, body, at),
        ({k: v for k, v in headers.items() if k != "webhook-id"}, body, at),
        (headers, body, at + 301),
        (headers, body, at - 301),
    ):
        with pytest.raises(WebhookRefused):
            verify_signature(secret, wrong, changed, at=when)


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
                "::ffff:127.0.0.1", "2002:7f00:1::", "100.64.0.1", "224.0.0.1", "ff0e::1"):  # fmt: skip
        resolve_to("93.184.215.14", bad)
        with pytest.raises(WebhookRefused, match="open internet"):
            destination(tmp_path, "https://hooks.example.org/a")
    resolve_to("93.184.215.14")
    found = destination(tmp_path, "https://hooks.example.org/a?b=c")
    assert (found.url, found.host_header) == ("https://93.184.215.14:443/a?b=c", "hooks.example.org")
    resolve_to("::1")
    assert destination(tmp_path, "http://[::1]:81/").url == "http://[::1]:81/"
    resolve_to("10.0.0.8")
    assert destination(tmp_path, "https://ci.internal:8443/a").host_header == "ci.internal:8443"
    for line in ("host public", "host:port", "a b c"):
        (tmp_path / HOSTS_FILE).write_text(f"\n{line}\n")
        with pytest.raises(WebhookRefused, match="line 2"):
            check_url(tmp_path, "https://hooks.example.org/")


def test_webhooks_are_kept_for_the_owner_alone_and_from_now_on(registry: Registry, hooks: Webhooks, url: str) -> None:
    hook = hooks.add(url, ["alias.*", "alias.*"], position=7)
    assert (hooks.find(hook.id), hooks.places.of(hook.id)) == (hook, Place(7))
    assert hook.events == ("alias.*",)
    assert hook.wants("alias.promote")
    assert not hook.wants("version.registered")
    for file in ("webhooks.json", f"webhooks/{hook.id}.json"):
        assert (registry.folder / file).stat().st_mode & 0o077 == 0
    assert hook.secret not in json.dumps(hooks.describe())
    for events in ([], ["nothing"], ["alias"]):
        with pytest.raises(WebhookRefused):
            hooks.add(url, events, position=0)
    with pytest.raises(WebhookRefused):
        hooks.add("https://elsewhere.example/", ["*"], position=0)
    hooks.remove(hook.id)
    assert hooks.all() == ()
    for act in (hooks.remove, hooks.find, hooks.revive):
        with pytest.raises(WebhookNotFound):
            act(hook.id)


def test_messages_are_the_same_at_every_try(registry: Registry, add_base: Callable[..., Any]) -> None:
    add_base()
    event = registry.outbox()[0]
    assert message_of(event) == message_of(event)
    assert message_of(event)[0] == "evt_1"
    assert [pause_seconds(n) for n in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert pause_seconds(50) == 3600.0


@pytest.mark.integration
def test_the_commands(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        home = str(registry.folder.parent)
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", "webhook", *arguments, "--home", home])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().out

    add_base()
    status, out = run("add", url, "--events", "version.registered, alias.*", "--json")
    added = json.loads(out)
    assert (status, added["events"]) == (0, ["version.registered", "alias.*"])
    assert run("deliver", "--once") == (0, "nothing to deliver\n")  # what happened before isn't told
    add_base("another", "1" * 64, "other")
    receiver.status = 404
    assert run("deliver", "--once")[0] == 3
    assert "404" in run("ls")[1]
    receiver.status = 200
    status, out = run("deliver", "--once", "--json")
    assert (status, json.loads(out)["rounds"][0]["delivered"]) == (0, 1)
    verify_signature(added["secret"], receiver.received[-1][0], receiver.received[-1][1], at=time.time())
    assert added["secret"] not in run("ls", "--json")[1]
    assert run("revive", added["id"])[0] == 0
    assert run("remove", added["id"])[0] == 0
    assert run("remove", added["id"])[0] == 4
    assert run("ls")[1] == "no webhooks\n"
    assert run("add", "https://elsewhere.example/")[0] == 2
