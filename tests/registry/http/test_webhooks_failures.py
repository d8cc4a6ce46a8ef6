"""A webhook that hangs, fails or goes away: what becomes of it, and that the others are told meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registry.errors import RegistryBusy, RegistryPathError
from registry.http import delivery, webhooks
from registry.http.delivery import deliver
from registry.http.hosts import HOSTS_FILE
from registry.http.webhooks import Webhooks
from registry.outbox import Place, Places, pause_seconds
from registry.store import Registry
from tests.registry.http.conftest import Receiver, dripping


@pytest.mark.integration
@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 2"])
def test_a_receiver_that_answers_byte_by_byte_is_left_and_the_others_are_told(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 1.0)
    with dripping(first) as (port, _), (registry.folder / HOSTS_FILE).open("a") as hosts:
        hosts.write("127.0.0.1 private\n")
        hosts.flush()
        slow = hooks.add(f"http://127.0.0.1:{port}/", ["*"], position=0)
        hooks.add(url, ["*"], position=0)
        add_base()
        began = time.monotonic()
        found = deliver(registry)
        assert time.monotonic() - began < 5
    assert found[0].error == "it has not answered in 1 s"
    assert [one.delivered for one in found] == [0, 1]
    assert hooks.places.of(slow.id).failures == 1
    assert receiver.told == [1]


@pytest.mark.integration
def test_an_answer_whose_content_has_no_end_is_one(
    registry: Registry, hooks: Webhooks, add_base: Callable[..., Any]
) -> None:
    (registry.folder / HOSTS_FILE).write_text("127.0.0.1 private\n")
    with dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n") as (port, _):
        hooks.add(f"http://127.0.0.1:{port}/", ["*"], position=0)
        add_base()
        began = time.monotonic()
        assert [found.delivered for found in deliver(registry)] == [1]
        assert time.monotonic() - began < 5


@pytest.mark.integration
def test_a_name_that_is_never_resolved_is_a_failure(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    done = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        done.wait(10)
        raise OSError

    monkeypatch.setattr("registry.http.hosts.socket.getaddrinfo", hang)
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.3)
    began = time.monotonic()
    assert deliver(registry)[0].error == "localhost could not be resolved in 0.3 s"
    assert time.monotonic() - began < 5
    done.set()
    assert receiver.received == []


@pytest.mark.integration
def test_authorities_are_read_once_and_only_when_there_is_something_to_tell(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    make = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **options: (made.append(1), make(**options))[1])
    for _ in range(3):
        hooks.add(f"https://localhost:{receiver.port}/", ["*"], position=0)
    assert deliver(registry) == []
    assert made == []
    add_base()
    receiver.server.shutdown()
    receiver.server.server_close()
    assert [found.delivered for found in deliver(registry)] == [0, 0, 0]
    assert made == [1]


@pytest.mark.integration
def test_a_webhook_that_is_removed_while_it_is_told_is_told_nothing_more(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_adapter: Callable[..., Any],
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    for key in "abc":
        add_adapter(key)
    removing = threading.Thread(target=hooks.remove, args=(hook.id,))

    def remove() -> None:
        removing.start()
        while hooks.has(hook.id):
            time.sleep(0.01)

    receiver.first = remove
    assert [found.delivered for found in deliver(registry)] == [1]
    removing.join(30)
    assert receiver.told == [1]
    assert list(hooks.places.folder.iterdir()) == []
    assert deliver(registry) == []


@pytest.mark.integration
def test_a_webhook_whose_removal_does_not_wait_leaves_nothing(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_adapter: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "WAIT_SECONDS", 0)
    hook = hooks.add(url, ["*"], position=0)
    add_adapter("a")
    receiver.first = lambda: hooks.remove(hook.id)
    assert [found.delivered for found in deliver(registry)] == [1]
    assert receiver.told == [1]
    assert list(hooks.places.folder.iterdir()) == []


@pytest.mark.integration
def test_a_webhook_that_another_process_tells_is_told_by_nobody_else(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    add_base()
    with hooks.places.held(hook.id) as held:
        assert held
        assert deliver(registry) == deliver(registry, again=True) == []
        assert receiver.received == []
        monkeypatch.setattr(webhooks, "WAIT_SECONDS", 0.2)
        with pytest.raises(RegistryBusy, match=hook.id):
            hooks.revive(hook.id)
    hooks.revive(hook.id)
    assert deliver(registry)[0].delivered == 1


def test_revival_waits_for_the_try_that_is_under_way(
    registry: Registry, hooks: Webhooks, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hooks.add(url, ["*"], position=0)
    reviving = threading.Thread(target=hooks.revive, args=(hook.id,))
    with hooks.places.held(hook.id):
        reviving.start()
        time.sleep(0.2)
        hooks.places.note(hook.id, Place(3, failures=24, dead=True))
    reviving.join(30)
    assert hooks.places.of(hook.id) == Place(3)


def test_a_webhook_that_goes_before_its_turn_leaves_no_lock(registry: Registry, hooks: Webhooks, url: str) -> None:
    hook = hooks.add(url, ["*"], position=0)
    hooks.remove(hook.id)
    with hooks.telling(hook.id) as ours:  # as one who read the list before
        assert not ours
    assert list(hooks.places.folder.iterdir()) == []


@pytest.mark.integration
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe", b"{}", b'{"position": "1"}', b'{"position": 0, "retry_at": "x"}', b'{"a": 1}', None],
)
def test_a_place_that_cannot_be_read_is_a_failure_of_its_webhook_alone(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    content: bytes | None,
) -> None:
    first, second = (hooks.add(url, ["*"], position=0) for _ in range(2))
    add_base()
    place = hooks.places.folder / f"{first.id}.json"
    if content is None:
        place.chmod(0o644)
    else:
        place.write_bytes(content)
    before = place.read_bytes()
    found = deliver(registry)
    assert [(one.id, one.delivered) for one in found] == [(first.id, 0), (second.id, 1)]
    assert str(place) in str(found[0].error)
    assert receiver.told == [1]
    assert place.read_bytes() == before  # how far it was told isn't lost
    listed = {one["id"]: one for one in hooks.describe()}
    assert str(place) in listed[first.id]["last_error"]
    assert (listed[first.id]["position"], listed[second.id]["position"]) == (None, 1)
    hooks.places.note(first.id, Place(0))
    assert [one.delivered for one in deliver(registry)] == [1]


@pytest.mark.integration
def test_what_cannot_be_noted_is_tried_again_later_each_time(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (hooks.add(url, ["*"], position=0) for _ in range(2))
    add_base()
    note = Places.note

    def full(places: Places, reader: str, place: Place) -> None:
        if reader == first.id:
            raise RegistryPathError("no room")
        note(places, reader, place)

    monkeypatch.setattr(Places, "note", full)
    unnoted: dict[str, Place] = {}
    assert [one.error for one in deliver(registry, at=1000.0, unnoted=unnoted)] == ["no room", None]
    assert hooks.places.of(second.id).position == 1
    assert receiver.told == [1, 1]
    assert deliver(registry, at=1000.0 + pause_seconds(1) - 0.1, unnoted=unnoted) == []  # it isn't told every second
    assert len(deliver(registry, at=1000.0 + pause_seconds(1), unnoted=unnoted)) == 1
    assert unnoted[first.id].failures == 2
    monkeypatch.undo()
    assert [one.error for one in deliver(registry, again=True, unnoted=unnoted)] == [None]
    assert (unnoted, hooks.places.of(first.id).position) == ({}, 1)


@pytest.mark.integration
def test_what_one_webhook_brings_about_is_noted_as_its_failure(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    first, second = (hooks.add(url, ["*"], position=0) for _ in range(2))
    path = registry.folder / "webhooks.json"
    path.write_text(path.read_text().replace(first.secret, "whsec_a"))
    add_base()
    assert [one.delivered for one in deliver(registry)] == [0, 1]
    assert "Error" in str(hooks.places.of(first.id).last_error)
    assert hooks.places.of(second.id).position == 1
    assert receiver.told == [1]


@pytest.mark.integration
def test_the_log_names_a_webhook_by_its_id_and_host_alone(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    add_base: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(delivery, "DEAD_AFTER", 3)
    secret = f"http://localhost:{receiver.port}/services/s3cr3t?key=s3cr3t"
    hook = hooks.add(secret, ["*"], position=0)
    add_base()
    receiver.status = 500
    deliver(registry)
    (registry.folder / HOSTS_FILE).write_text("localhost\n")  # private no more
    deliver(registry, again=True)
    path = registry.folder / "webhooks.json"
    path.write_text(path.read_text().replace(secret, f"ftp://{secret[7:]}"))
    deliver(registry, again=True)
    hooks.revive(hook.id)
    (hooks.places.folder / f"{hook.id}.json").write_text("")
    deliver(registry, again=True)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("registry")]
    assert len(said) == 4
    assert all(hook.id in one and "(localhost)" in one for one in said)
    assert "s3cr3t" not in caplog.text
