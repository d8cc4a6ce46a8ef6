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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool

from registry.entities import OutboxEvent
from registry.errors import RegistryError, WebhookRefused
from registry.http.hosts import destination
from registry.http.webhooks import Webhook, Webhooks, message_of, signature_headers
from registry.outbox import BATCH, Round, tell
from registry.store import Registry

__all__ = ["DEAD_AFTER", "Delivery", "deliver", "delivering"]

logger = logging.getLogger(__name__)

AUTHORITIES_FILE = "webhook-authorities.pem"
DEAD_AFTER = 24
TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 1.0


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
        place = webhooks.places.of(hook.id)
        if place.dead:
            done.append(Delivery(hook.id, hook.url, 0, place.last_error, True))
        elif again or place.retry_at <= at:
            with webhooks.places.held(hook.id) as held:
                found = _round(registry, webhooks, hook, at, most, stopped) if held else None
            if found is not None and (found.delivered or found.error):
                done.append(found)
    return done


def _round(
    registry: Registry, webhooks: Webhooks, hook: Webhook, at: float, most: int | None, stopped: Callable[[], bool]
) -> Delivery:
    with _client(registry.folder) as http:
        found = tell(
            registry,
            webhooks.places,
            hook.id,
            lambda event: _tell(http, webhooks, hook, event),
            at=at,
            most=most,
            wants=hook.wants,
            stopped=stopped,
            dead_after=DEAD_AFTER,
        )
    if found.error is not None:
        _log(hook, found)
    return Delivery(hook.id, hook.url, found.told, found.error, found.place.dead)


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


def _log(hook: Webhook, found: Round) -> None:
    if found.place.dead:
        logger.error(
            "webhook %s (%s) failed %d times at event %s and is dead: %s; `tunewright registry webhook revive %s` "
            "tries again", hook.id, hook.url, found.place.failures, found.event, found.error, hook.id,
        )  # fmt: skip
    else:
        logger.warning("webhook %s (%s) failed at event %s: %s", hook.id, hook.url, found.event, found.error)


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
