"""Telling webhooks what happened: from the outbox, in order, at least once, until each has said that it heard.

An event that fails is tried again, later each time, and those behind it wait. After many failures in a row the webhook
is dead: it is told nothing more until somebody revives it, and then goes on at the event where it failed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout
from starlette.concurrency import run_in_threadpool

from registry.audit import now
from registry.entities import OutboxEvent
from registry.errors import RegistryError, WebhookRefused
from registry.http.hosts import destination
from registry.http.webhooks import PLACES, Place, Webhook, Webhooks, message_of, signature_headers
from registry.store import Registry

__all__ = ["DEAD_AFTER", "Delivery", "deliver", "delivering"]

logger = logging.getLogger(__name__)

AUTHORITIES_FILE = "webhook-authorities.pem"
DEAD_AFTER = 24
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 3600.0
TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 1.0
# of events in one round, so that a hook that is far behind doesn't keep the others waiting
BATCH = 20


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


def pause_seconds(failures: int) -> float:
    """Return how long to wait after this many failures in a row: twice as long each time, an hour at most."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)


def deliver(
    registry: Registry,
    *,
    at: float | None = None,
    again: bool = False,
    most: int | None = BATCH,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Delivery]:
    """Tell every webhook what it hasn't been told, as far as that goes now.

    Args:
        registry: Whose outbox it is.
        at: Unix time; now by default.
        again: Try those, too, whose next try isn't due. Dead ones stay dead.
        most: Most events to tell one webhook; None tells it everything.
        stopped: Asked before each event whether to leave the rest for later.

    Returns:
        What was done for each webhook that something was tried for, or that is dead.
    """
    webhooks = Webhooks(registry.folder)
    at = time.time() if at is None else at
    done = []
    for hook in webhooks.all():
        place = webhooks.place(hook.id)
        if place.dead:
            done.append(Delivery(hook.id, hook.url, 0, place.last_error, True))
        elif again or place.retry_at <= at:
            try:
                # two processes would tell everything twice
                with FileLock(registry.folder / PLACES / f"{hook.id}.lock", timeout=0):
                    found = _round(registry, webhooks, hook, at, most, stopped)
            except Timeout:
                continue
            if found.delivered or found.error:
                done.append(found)
    return done


def _round(
    registry: Registry, webhooks: Webhooks, hook: Webhook, at: float, most: int | None, stopped: Callable[[], bool]
) -> Delivery:
    place = before = webhooks.place(hook.id)  # again, now that nobody else is at it
    told = 0
    with _client(registry.folder) as http:
        while most is None or told < most:
            events = registry.outbox(after=place.position, limit=BATCH)
            for event in events:
                if stopped():
                    break
                if not hook.wants(event.topic):
                    place = replace(place, position=event.id)
                    continue
                error = _tell(http, webhooks, hook, event)
                if error is not None:
                    place = _failed(hook, event, place, error, at)
                    webhooks.note(hook.id, place)
                    return Delivery(hook.id, hook.url, told, error, place.dead)
                told += 1
                place = before = Place(event.id, delivered_at=now())
                # at once: what is told again after a crash is one event, not the round
                webhooks.note(hook.id, place)
            if not events or stopped():
                break
    if place != before:
        webhooks.note(hook.id, place)
    return Delivery(hook.id, hook.url, told, None, False)


def _client(folder: Path) -> httpx.Client:
    """Return a client that trusts the usual authorities, and those of a file in the registry's folder besides."""
    trusted = httpx.create_ssl_context(trust_env=False)
    own = folder / AUTHORITIES_FILE
    if own.exists():
        try:
            trusted.load_verify_locations(cafile=own)
        except (OSError, ssl.SSLError) as error:
            raise WebhookRefused(f"{own} can't be used: {error}", allowed="certificates in PEM") from error
    # no proxy and no redirect: either would take the message where no address was checked
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False, verify=trusted)


def _tell(http: httpx.Client, webhooks: Webhooks, hook: Webhook, event: OutboxEvent) -> str | None:
    """Send one event, and return why that failed, if it did."""
    message_id, body = message_of(event)
    try:
        to = destination(webhooks.folder, hook.url)
    except WebhookRefused as error:
        return error.problem
    headers = {
        "Host": to.host_header,
        "Content-Type": "application/json",
        "User-Agent": "tunewright-registry",
        **signature_headers(hook.secret, message_id, body, time.time()),
    }
    try:
        # the certificate is held against the name, though the connection goes to the address
        with http.stream("POST", to.url, content=body, headers=headers, extensions={"sni_hostname": to.host}) as answer:
            status = answer.status_code  # what it says besides is of no interest, however long it is
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return None if 200 <= status < 300 else f"it answered with status {status}"


def _failed(hook: Webhook, event: OutboxEvent, place: Place, error: str, at: float) -> Place:
    failures = place.failures + 1
    dead = failures >= DEAD_AFTER
    if dead:
        logger.error(
            "webhook %s (%s) failed %d times at event %d and is dead: %s; `tunewright registry webhook revive %s` "
            "tries again", hook.id, hook.url, failures, event.id, error, hook.id,
        )  # fmt: skip
    else:
        logger.warning("webhook %s (%s) failed at event %d: %s", hook.id, hook.url, event.id, error)
    return replace(place, failures=failures, retry_at=at + pause_seconds(failures), dead=dead, last_error=error)


@asynccontextmanager
async def delivering(registry: Registry) -> AsyncIterator[None]:
    """Deliver beside a server, about every second, until the block ends."""
    stop = asyncio.Event()

    async def work() -> None:
        said = ""
        while not stop.is_set():
            try:
                await run_in_threadpool(deliver, registry, stopped=stop.is_set)
                said = ""
            except RegistryError as error:
                # a file with the wrong mode, for instance: said once, and tried again
                if str(error) != said:
                    logger.error("webhooks can't be delivered: %s", error)
                said = str(error)
            except Exception:
                logger.exception("delivering webhooks failed")
            try:
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)
            except TimeoutError:
                continue

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stop.set()
        await task
