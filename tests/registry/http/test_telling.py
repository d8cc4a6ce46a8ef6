"""Telling webhooks beside a server: several at once, each in order, and without an end that is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from registry.entities import OutboxEvent
from registry.errors import RegistryError
from registry.http import delivery, telling
from registry.http.delivery import Turn
from registry.http.hosts import HOSTS_FILE
from registry.http.telling import delivering
from registry.http.webhooks import Webhook, Webhooks
from registry.store import Registry
from tests.registry.http.conftest import Receiver, dripping

NEVER_ENDS = b"HTTP/1.1 200 OK\r\nx: "


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Wait for what is left behind in threads, before its registry goes."""
    yield
    for thread in threading.enumerate():
        if thread.name == "webhooks":
            thread.join(30)


@pytest.fixture
def hooks(hooks: Webhooks, registry: Registry) -> Webhooks:
    (registry.folder / HOSTS_FILE).write_text("127.0.0.1 private\nlocalhost private\n")
    return hooks


def _serve_until(registry: Registry, come: Callable[[], object], *, seconds: float = 30) -> float:
    """Deliver until something has come about; return how long the end took."""

    async def serve() -> float:
        async with delivering(registry):
            with anyio.fail_after(seconds):
                while not come():
                    await anyio.sleep(0.02)
            began = time.monotonic()
        return time.monotonic() - began

    return anyio.run(serve)


@pytest.mark.integration
def test_a_server_delivers_beside_its_answers(
    registry: Registry, hooks: Webhooks, receiver: Receiver, url: str, add_base: Callable[..., Any]
) -> None:
    hooks.add(url, ["*"], position=0)
    add_base()
    _serve_until(registry, lambda: receiver.received)
    assert receiver.told == [1]


@pytest.mark.integration
def test_a_server_ends_while_a_receiver_has_not_answered(
    registry: Registry, hooks: Webhooks, add_base: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "STOP_SECONDS", 0.3)
    with dripping(NEVER_ENDS) as (port, came):
        hook = hooks.add(f"http://127.0.0.1:{port}/", ["*"], position=0)
        add_base()
        assert _serve_until(registry, came.is_set) < 3
    assert hooks.places.of(hook.id).position == 0  # and told again


@pytest.mark.integration
def test_a_receiver_that_is_slow_keeps_no_other_waiting(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_adapter: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "STOP_SECONDS", 0.3)
    with dripping(NEVER_ENDS) as (port, came):
        slow = hooks.add(f"http://127.0.0.1:{port}/", ["*"], position=0)
        hooks.add(url, ["*"], position=0)
        add_adapter("a")

        def more() -> bool:
            if came.is_set() and receiver.told == [1, 2] and len(registry.outbox()) == 2:
                add_adapter("b")  # while the slow one is still at its first event
            return receiver.told == [1, 2, 3]

        _serve_until(registry, more, seconds=delivery.TIMEOUT_SECONDS - 4)
        assert hooks.places.of(slow.id).failures == 0  # its first try isn't over
    assert hooks.places.of(slow.id).position == 0


@pytest.mark.integration
def test_more_slow_receivers_than_threads_take_turns_with_the_others(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "AT_ONCE", 2)
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.5)
    at_work: list[int] = []
    with dripping(NEVER_ENDS) as (port, _):
        slow = [hooks.add(f"http://127.0.0.1:{port}/", ["*"], position=0) for _ in range(5)]
        hooks.add(url, ["*"], position=0)
        add_base()

        def told() -> bool:
            at_work.append(sum(thread.name == "webhooks" for thread in threading.enumerate()))
            return receiver.told == [1]

        _serve_until(registry, told)
    assert max(at_work) == 3  # who looks, and two who tell
    assert all(hooks.places.of(hook.id).failures for hook in slow[:4])


@pytest.mark.integration
def test_one_webhook_is_told_by_one_thread_in_order(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_adapter: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "POLL_SECONDS", 0.01)
    told: dict[str, list[int]] = {}
    at_work: list[str] = []
    twice: list[str] = []
    real = delivery._tell

    def watch(trust: Any, webhooks: Webhooks, hook: Webhook, event: OutboxEvent) -> str | None:
        told.setdefault(hook.id, []).append(event.id)
        return real(trust, webhooks, hook, event)

    turn = Turn.tell

    def watch_turn(self: Turn, hook: Webhook) -> Any:
        twice.extend(hook.id for other in at_work if other == hook.id)
        at_work.append(hook.id)
        time.sleep(0.05)  # while it is looked for what is to be told again and again
        found = turn(self, hook)
        at_work.remove(hook.id)
        return found

    monkeypatch.setattr(delivery, "_tell", watch)
    monkeypatch.setattr(Turn, "tell", watch_turn)
    ids = [hooks.add(url, ["*"], position=0).id for _ in range(3)]
    for key in "abcde":
        add_adapter(key)
    _serve_until(registry, lambda: len(receiver.told) == 18)
    assert twice == []
    assert told == {hook_id: [1, 2, 3, 4, 5, 6] for hook_id in ids}


@pytest.mark.integration
def test_a_thread_that_cannot_start_loses_no_webhook(
    registry: Registry,
    hooks: Webhooks,
    receiver: Receiver,
    url: str,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "POLL_SECONDS", 0.01)
    hooks.add(url, ["*"], position=0)
    add_base()
    refused: list[int] = []
    start = threading.Thread.start

    def short(thread: threading.Thread) -> None:
        if threading.current_thread().name == "webhooks" and len(refused) < 2:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", short)
    _serve_until(registry, lambda: receiver.told == [1])
    assert len(refused) == 2


@pytest.mark.parametrize("error", [RegistryError("no such row"), ValueError("a bug")])
def test_an_error_in_a_round_is_logged_and_ends_no_thread(
    registry: Registry,
    hooks: Webhooks,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(telling, "POLL_SECONDS", 0.01)
    hook = hooks.add(url, ["*"], position=0)
    tries: list[int] = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise error

    monkeypatch.setattr(Turn, "tell", fail)
    _serve_until(registry, lambda: len(tries) >= 3)
    said = [one for one in caplog.records if hook.id in one.getMessage()]
    assert len(said) == (1 if isinstance(error, RegistryError) else len(tries))
