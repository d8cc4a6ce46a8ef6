"""Webhooks: who is told of which events, how a message is signed, and how far each has been told.

The headers and the signature are those of the Standard Webhooks specification: `webhook-id`, `webhook-timestamp` and
`webhook-signature: v1,` with base64 of HMAC-SHA256 over `id.timestamp.body`.

<registry>/webhooks.json       URLs, events and secrets, for the owner alone
<registry>/webhooks/<id>.json  how far a webhook has been told, and its failures since
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registry.audit import now
from registry.canonical import canonical_json
from registry.entities import OutboxEvent
from registry.errors import RegistryBusy, RegistryPathError, WebhookNotFound, WebhookRefused
from registry.http.hosts import check_url
from registry.outbox import TOPICS, Place, Places
from registry.private_file import changing, read_private, write_private

__all__ = ["Webhook", "Webhooks", "message_of", "signature_headers", "verify_signature"]

WEBHOOKS_FILE = "webhooks.json"
PLACES = "webhooks"
_PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
# longer than a message may take
WAIT_SECONDS = 12
_SECONDS = re.compile("[0-9]{1,12}")


@dataclass(frozen=True)
class Webhook:
    """Who is told of what."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: str
    created_at: str

    @property
    def host(self) -> str:
        """As much of the URL as may be shown to anybody: its path may be a secret, too."""
        try:
            return urlsplit(self.url).hostname or "no host"
        except ValueError:  # changed by hand
            return "no host"

    def wants(self, topic: str) -> bool:
        """Say whether it is told of a topic."""
        return any(fnmatchcase(topic, pattern) for pattern in self.events)


class Webhooks:
    """The webhooks of a registry's folder.

    Args:
        folder: The registry's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = Places(folder / PLACES)
        self._path = folder / WEBHOOKS_FILE

    def all(self) -> tuple[Webhook, ...]:
        """Return the webhooks, oldest first.

        Raises:
            RegistryPathError: The file can't be read, or others may read it.
        """
        rows = (read_private(self._path) or {}).get("webhooks", [])
        return tuple(Webhook(**{**row, "events": tuple(row["events"])}) for row in rows)

    def add(self, url: str, events: Sequence[str], *, position: int) -> Webhook:
        """Add a webhook and make its secret.

        Args:
            url: Where its messages go; its host is in the file of hosts.
            events: Topics, or patterns of them.
            position: Id of the last event that it is not told of any more.

        Raises:
            WebhookRefused: A URL that isn't allowed, or a pattern that fits no topic.
        """
        check_url(self.folder, url)
        for pattern in events:
            if not any(fnmatchcase(topic, pattern) for topic in TOPICS):
                raise WebhookRefused(f"no event is named {pattern!r}", allowed=", ".join([*TOPICS, "alias.*", "*"]))
        if not events:
            raise WebhookRefused("a webhook without events is told of nothing", allowed=", ".join(TOPICS))
        secret = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        hook = Webhook(uuid.uuid4().hex[:12], url, tuple(dict.fromkeys(events)), secret, now())
        with changing(self._path):
            self.places.note(
                hook.id, Place(position)
            )  # before the hook, so that it is never told from the start by accident
            self._write((*self.all(), hook))
        return hook

    def remove(self, hook_id: str) -> Webhook:
        """Remove a webhook: it is told nothing more, but for a message that is under way.

        Raises:
            WebhookNotFound: There is none with this id.
        """
        with changing(self._path):
            gone = self.find(hook_id)
            self._write(tuple(hook for hook in self.all() if hook.id != hook_id))
        # whoever tells it sees that it is gone; one that takes too long to hand it over leaves nothing of it itself
        with self._alone(hook_id) as alone:
            if alone:
                self.places.forget(hook_id)
        return gone

    @contextmanager
    def telling(self, hook_id: str) -> Iterator[bool]:
        """Say whether this process alone tells a webhook, and it is still there; of one that is gone nothing is left.

        Raises:
            RegistryPathError: The file of webhooks can't be read.
            OSError: The webhook's lock can't be made.
        """
        with self.places.held(hook_id) as held:
            try:
                yield held and self.has(hook_id)
            finally:
                if held and not self.has(hook_id):
                    self.places.forget(hook_id)

    def has(self, hook_id: str) -> bool:
        """Say whether a webhook is there; ask again before each event, since it may be removed meanwhile."""
        return any(hook.id == hook_id for hook in self.all())

    def find(self, hook_id: str) -> Webhook:
        """Return a webhook.

        Raises:
            WebhookNotFound: There is none with this id.
        """
        held = self.all()
        found = next((hook for hook in held if hook.id == hook_id), None)
        if found is None:
            raise WebhookNotFound(
                f"there is no webhook {hook_id!r}", allowed=", ".join(hook.id for hook in held) or "none yet"
            )
        return found

    def revive(self, hook_id: str) -> Place:
        """Let a webhook be tried again at once, from the event where it failed.

        Raises:
            WebhookNotFound: There is none with this id.
            RegistryBusy: Another process is telling it events all the while.
            RegistryPathError: How far it has been told can't be read or written.
        """
        self.find(hook_id)
        with self._alone(hook_id) as alone:
            if not alone:
                raise RegistryBusy(
                    f"webhook {hook_id} was being told events for {WAIT_SECONDS} s",
                    next_step="see with `tunewright registry webhook ls` whether it fails at all, and run again",
                )
            self.find(hook_id)
            place = replace(self.places.of(hook_id), failures=0, retry_at=0.0, dead=False)
            self.places.note(hook_id, place)
        return place

    def describe(self) -> list[dict[str, Any]]:
        """Return the webhooks with how far each has been told, without their secrets.

        `position` is None where that can't be read, and `last_error` says why.
        """
        return [
            {
                "id": hook.id,
                "url": hook.url,
                "events": list(hook.events),
                "created_at": hook.created_at,
                **self._state(hook.id),
            }
            for hook in self.all()
        ]

    def _state(self, hook_id: str) -> dict[str, Any]:
        try:
            return asdict(self.places.of(hook_id))
        except RegistryPathError as error:
            # nobody knows how far; it is a failure until somebody mends it
            return {**asdict(Place(0, failures=1, last_error=error.problem)), "position": None}

    @contextmanager
    def _alone(self, hook_id: str) -> Iterator[bool]:
        """Wait until nobody tells a webhook, and say whether that came about."""
        ends = time.monotonic() + WAIT_SECONDS
        while True:
            with self.places.held(hook_id) as held:
                if held or time.monotonic() >= ends:
                    yield held
                    return
            time.sleep(0.05)

    def _write(self, hooks: tuple[Webhook, ...]) -> None:
        write_private(self._path, {"webhooks": [asdict(hook) for hook in hooks]})


def message_of(event: OutboxEvent) -> tuple[str, bytes]:
    """Return an event's id, the same at every try, and its body."""
    body = {"type": event.topic, "timestamp": event.at, "id": event.id, "data": event.payload}
    return f"evt_{event.id}", canonical_json(body).encode()


def signature_headers(secret: str, message_id: str, body: bytes, at: float) -> dict[str, str]:
    """Return the headers that let a receiver know who sent a body, and when.

    Args:
        secret: As `Webhooks.add` made it.
        message_id: The event's.
        body: The bytes that are sent.
        at: Unix time of this try.
    """
    timestamp = str(int(at))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{_sign(secret, message_id, timestamp, body)}",
    }


def verify_signature(
    secret: str, headers: Mapping[str, str], body: bytes, *, at: float | None = None
) -> dict[str, Any]:
    """Return a message that a receiver was sent, if it is signed and fresh; for receivers in Python.

    Args:
        secret: What `registry webhook add` printed.
        headers: The request's, by their lower-case names.
        body: The request's bytes, unchanged.
        at: Unix time; now by default.

    Raises:
        WebhookRefused: Another signature, headers that are missing or that no registry sends, or a time more than five
            minutes away.
    """
    try:
        message_id, timestamp, given = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise WebhookRefused(
            f"a message without the header {error.args[0]}", allowed="webhook-id, webhook-timestamp, webhook-signature"
        ) from error
    # before anything is made of them: int() takes signs, spaces and the digits of other scripts, and fails for many
    if not _SECONDS.fullmatch(timestamp):
        raise WebhookRefused(
            f"a message with the timestamp {timestamp[:40]!r}", allowed="whole seconds since 1970, of 12 digits at most"
        )
    if not (message_id.isascii() and given.isascii()):
        raise WebhookRefused("a message with a header webhook-id or webhook-signature that is not ASCII")
    age = abs((time.time() if at is None else at) - int(timestamp))
    wanted = _sign(secret, message_id, timestamp, body).encode()
    signatures = [one.removeprefix("v1,").encode() for one in given.split(" ") if one.startswith("v1,")]
    if not any(hmac.compare_digest(one, wanted) for one in signatures):
        raise WebhookRefused("a message with another signature", next_step="compare the secrets of both sides")
    if age > TOLERANCE_SECONDS:
        raise WebhookRefused(f"a message whose time is {age:.0f} s away", allowed=f"at most {TOLERANCE_SECONDS} s")
    document: dict[str, Any] = json.loads(body)
    return document


def _sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
