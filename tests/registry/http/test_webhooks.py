"""Webhooks against a real receiver on a socket: order, retries, death and revival."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from flows import cli
from registry.errors import WebhookNotFound, WebhookRefused
from registry.http.delivery import DEAD_AFTER, deliver
from registry.http.webhooks import Webhooks, message_of, verify_signature
from registry.outbox import LONGEST_PAUSE_SECONDS, Place, Places, pause_seconds
from registry.store import Registry
from tests.registry.http.conftest import Receiver


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
    assert set(receiver.paths) == {"/hook?team=a"}
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
    place = hooks.places.folder / f"{added['id']}.json"
    place.write_text("")
    assert run("deliver", "--once")[0] == 3
    status, out = run("ls")
    assert (status, str(place) in out) == (0, True)
    assert run("remove", added["id"])[0] == 0
    assert run("remove", added["id"])[0] == 4
    assert run("ls")[1] == "no webhooks\n"
    assert run("add", "https://elsewhere.example/")[0] == 2
