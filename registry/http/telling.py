"""Telling webhooks beside a server, several at once: one that is slow to answer keeps none of the others waiting."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.errors import RegistryError
from registry.http.delivery import Turn
from registry.http.webhooks import Webhook
from registry.outbox import Place
from registry.store import Registry

__all__ = ["AT_ONCE", "delivering"]

logger = logging.getLogger(__name__)

# Threads, and each has a connection of its own to the database.
AT_ONCE = 8
POLL_SECONDS = 1.0
STOP_SECONDS = 5.0


@asynccontextmanager
async def delivering(registry: Registry) -> AsyncIterator[None]:
    """Deliver beside a server, about every second, until the block ends.

    A message under way then gets `STOP_SECONDS` to end. One that takes longer is left behind in its thread, which ends
    with the process, and is told again by the next one.
    """
    stop = threading.Event()
    tellers = _Tellers()
    # threads of its own: those that a pool lends are waited for without a limit, and answer requests otherwise
    thread = threading.Thread(target=_look_until, args=(registry, tellers, stop), name="webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        ends = time.monotonic() + STOP_SECONDS
        await asyncio.to_thread(thread.join, STOP_SECONDS)
        if not await asyncio.to_thread(tellers.end, ends):
            logger.warning("a webhook has not answered; what it was being told is told again at the next start")


def _look_until(registry: Registry, tellers: _Tellers, stop: threading.Event) -> None:
    said = ""
    unnoted: dict[str, Place] = {}
    while not stop.is_set():
        try:
            turn = Turn(registry, stopped=stop.is_set, unnoted=unnoted)
            for hook in turn.webhooks.all():
                tellers.give(turn, hook)
            said = ""
        except RegistryError as error:
            # a file with the wrong mode, for instance: said once, and tried again
            if str(error) != said:
                logger.error("webhooks can't be delivered: %s", error)
            said = str(error)
        except Exception:
            logger.exception("delivering webhooks failed")
        stop.wait(POLL_SECONDS)


class _Tellers:
    """Up to `AT_ONCE` threads that tell webhooks, each webhook by one of them at a time, in the order they were given.

    They are started as they are needed, and end with the process, whatever they wait for.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Turn, Webhook] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._said: dict[str, str] = {}

    def give(self, turn: Turn, hook: Webhook) -> None:
        """Have a webhook told; one that still is, or waits for it, isn't given twice."""
        with self._lock:
            if hook.id in self._given:
                return
            if len(self._threads) < min(AT_ONCE, len(self._given) + 1):
                thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more of them now: those that are there go on, or the next look tries again
                    if not self._threads:
                        return
                else:
                    self._threads.append(thread)
            self._given.add(hook.id)
            self._waiting.put((turn, hook))

    def end(self, until: float) -> bool:
        """Have the threads end, and say whether all have by a time (`time.monotonic`)."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self) -> None:
        while (given := self._waiting.get()) is not None:
            turn, hook = given
            try:
                if not turn.stopped():
                    turn.tell(hook)
                self._said.pop(hook.id, None)
            except RegistryError as error:
                if self._said.get(hook.id) != str(error):
                    logger.error("webhook %s (%s) can't be told: %s", hook.id, hook.host, error)
                self._said[hook.id] = str(error)
            except Exception:
                logger.exception("telling webhook %s (%s) failed", hook.id, hook.host)
            finally:
                with self._lock:
                    self._given.discard(hook.id)
