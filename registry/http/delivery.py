"""Telling webhooks what happened: from the outbox, in order, at least once, until each has said that it heard.

An event that fails is tried again, later each time, and those behind it wait. After many failures in a row the webhook
is dead: it is told nothing more until somebody revives it, and then goes on at the event where it failed.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from registry.entities import OutboxEvent
from registry.errors import RegistryError, RegistryPathError, WebhookRefused
from registry.http.asking import ask
from registry.http.hosts import destination
from registry.http.webhooks import Webhook, Webhooks, message_of, signature_headers
from registry.names import one_line
from registry.outbox import BATCH, Place, Round, pause_seconds, tell
from registry.store import Registry

__all__ = ["DEAD_AFTER", "Delivery", "Turn", "deliver"]

logger = logging.getLogger(__name__)

AUTHORITIES_FILE = "webhook-authorities.pem"
DEAD_AFTER = 24
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Delivery:
    """What one round did for a webhook: how many events it was told, and why it stopped early, if it did."""

    id: str
    url: str
    delivered: int
    error: str | None
    dead: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the round as plain JSON."""
        return {"id": self.id, "url": self.url, "delivered": self.delivered, "error": self.error, "dead": self.dead}


def deliver(
    registry: Registry,
    *,
    at: float | None = None,
    again: bool = False,
    most: int | None = BATCH,
    stopped: Callable[[], bool] = lambda: False,
    unnoted: dict[str, Place] | None = None,
) -> list[Delivery]:
    """Tell every webhook what it hasn't been told, as far as that goes now; what fails for one is told of that one.

    Args:
        registry: Whose outbox it is.
        at: Unix time; now by default.
        again: Try those, too, whose next try isn't due. Dead ones stay dead.
        most: Most events to tell one webhook; None tells it everything.
        stopped: Asked before each webhook and each event whether to leave the rest for later.
        unnoted: Failures of webhooks whose place can't be read or written, kept from one round to the next.

    Returns:
        What was done for each webhook that something was tried for, or that is dead.

    Raises:
        RegistryError: What was registered, or the file of webhooks, can't be read.
    """
    turn = Turn(registry, at, again, most, stopped, {} if unnoted is None else unnoted)
    done = []
    for hook in turn.webhooks.all():
        if stopped():
            break
        found = turn.tell(hook)
        if found is not None and (found.delivered or found.error):
            done.append(found)
    return done


@dataclass(frozen=True)
class Turn:
    """One look at what webhooks haven't been told; the arguments are those of `deliver`.

    Several threads may tell from one, each another webhook.
    """

    registry: Registry
    at: float | None = None
    again: bool = False
    most: int | None = BATCH
    stopped: Callable[[], bool] = lambda: False
    unnoted: dict[str, Place] = field(default_factory=dict)

    @cached_property
    def webhooks(self) -> Webhooks:
        """The webhooks of the registry."""
        return Webhooks(self.registry.folder)

    @cached_property
    def _trust(self) -> _Trust:
        return _Trust(self.registry.folder)

    def tell(self, hook: Webhook) -> Delivery | None:
        """Tell one webhook, as far as that goes now; None where nothing was due, or another process tells it.

        Raises:
            RegistryError: What was registered, or the file of webhooks, can't be read.
        """
        at = time.time() if self.at is None else self.at  # not before: it may have waited for a thread
        before = self.unnoted.get(hook.id)
        if before is not None and before.retry_at > at and not self.again:
            return None
        try:
            with self.webhooks.telling(hook.id) as ours:
                found = self._tell(hook, at) if ours else None
            self.unnoted.pop(hook.id, None)
        except (RegistryPathError, OSError) as error:
            # its place, which is left as it is: how far it was told may still be read off it, or restored
            said = error.problem if isinstance(error, RegistryError) else _said(error)
            failures = 1 if before is None else before.failures + 1
            self.unnoted[hook.id] = Place(0, failures, at + pause_seconds(failures), last_error=said)
            logger.warning("webhook %s (%s) can't be told: %s", hook.id, hook.host, said)
            found = Delivery(hook.id, hook.url, 0, said, False)
        return found

    def _tell(self, hook: Webhook, at: float) -> Delivery | None:
        webhooks = self.webhooks
        place = webhooks.places.of(hook.id)
        if place.dead:
            return Delivery(hook.id, hook.url, 0, place.last_error, True)
        if place.retry_at > at and not self.again:
            return None
        found = tell(
            self.registry,
            webhooks.places,
            hook.id,
            lambda event: _tell(self._trust, webhooks, hook, event),
            at=at,
            most=self.most,
            wants=hook.wants,
            stopped=lambda: self.stopped() or not webhooks.has(hook.id),
            dead_after=DEAD_AFTER,
        )
        if found.error is not None:
            _log(hook, found)
        return Delivery(hook.id, hook.url, found.told, found.error, found.place.dead)


class _Trust:
    """Whom TLS trusts: the usual authorities, and those of a file in the registry's folder besides.

    Reading the usual ones takes a while, so it waits until there is something to tell, and is done once.

    Args:
        folder: The registry's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder / AUTHORITIES_FILE
        self._read: ssl.SSLContext | None = None
        self._reading = threading.Lock()

    def of(self, scheme: str) -> ssl.SSLContext:
        """Return whom a connection trusts.

        Raises:
            WebhookRefused: The file of authorities can't be used.
        """
        if scheme != "https":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody, and nobody is asked
        with self._reading:
            if self._read is None:
                trusted = httpx.create_ssl_context(trust_env=False)
                try:
                    if self._own.exists():
                        trusted.load_verify_locations(cafile=self._own)
                except (OSError, ssl.SSLError) as error:
                    raise WebhookRefused(
                        f"{self._own} can't be used: {error}", allowed="certificates in PEM"
                    ) from error
                self._read = trusted
            return self._read


def _tell(trust: _Trust, webhooks: Webhooks, hook: Webhook, event: OutboxEvent) -> str | None:
    """Send one event, for `TIMEOUT_SECONDS` in all, and return why that failed, if it did."""
    try:
        return _send(trust, webhooks, hook, event)
    except RegistryError as error:
        return error.problem
    except TimeoutError:
        return f"it has not answered in {TIMEOUT_SECONDS:g} s"
    except Exception as error:  # whatever its address, its secret or its answer brings about: the others are told
        return _said(error)


def _send(trust: _Trust, webhooks: Webhooks, hook: Webhook, event: OutboxEvent) -> str | None:
    ends = time.monotonic() + TIMEOUT_SECONDS
    message_id, body = message_of(event)
    to = destination(webhooks.folder, hook.url, seconds=TIMEOUT_SECONDS)
    trusted = trust.of(to.scheme)
    headers = {
        "Host": to.host_header,
        "Content-Type": "application/json",
        "User-Agent": "tunewright-registry",
        **signature_headers(hook.secret, message_id, body, time.time()),
    }
    errors = []
    for number, url in enumerate(to.urls):
        left = ends - time.monotonic()
        try:
            # No proxy and no redirect: either would take the message where no address was checked. The certificate is
            # held against the name, though the connection goes to the address. Only the status of the answer is read.
            status, _ = ask(
                "POST",
                url,
                seconds=left,
                connect_seconds=left / (len(to.urls) - number),  # so that each address has its turn
                trusted=trusted,
                content=body,
                headers=headers,
                # not as a part of the URL, which httpx logs
                extensions={"sni_hostname": to.host, "target": httpx.URL(hook.url).raw_path},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            errors.append(_said(error))  # nothing was sent, so the next address may be
        else:
            return None if 200 <= status < 300 else f"it answered with status {status}"
    return "; ".join(errors)


def _said(error: Exception) -> str:
    """Return what an error says; that of a connection only says that there is none, and why stands behind it."""
    said: BaseException = error
    behind: BaseException | None = error
    while behind is not None:
        said = behind if isinstance(behind, OSError) else said
        behind = behind.__cause__ or behind.__context__
    name = type(error).__name__
    return one_line(f"{name}: {said}", 300) or name


def _log(hook: Webhook, found: Round) -> None:
    # the host alone: the rest of a URL may be a secret, and what failed may repeat it
    error = str(found.error).replace(hook.url, hook.host)
    if found.place.dead:
        logger.error(
            "webhook %s (%s) failed %d times at event %s and is dead: %s; `tunewright registry webhook revive %s` "
            "tries again", hook.id, hook.host, found.place.failures, found.event, error, hook.id,
        )  # fmt: skip
    else:
        logger.warning("webhook %s (%s) failed at event %s: %s", hook.id, hook.host, found.event, error)
