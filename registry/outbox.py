"""Telling others what happened: from the outbox, in order, at least once, each reader from a place of its own.

Webhooks (http/delivery.py) and mirrors (mirror.py) are readers. What fails is tried again, later each time, and what is
behind it waits. Nothing here holds a lock of the registry's: whoever registers or promotes never waits for a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from registry.audit import now
from registry.errors import RegistryPathError
from registry.private_file import read_private, write_private

if TYPE_CHECKING:
    from registry.entities import OutboxEvent
    from registry.store import Registry

__all__ = ["BATCH", "TOPICS", "Place", "Places", "Round", "pause_seconds", "tell"]

# What the registry tells of.
TOPICS = (
    "version.registered",
    "version.evaluated",
    "version.deprecate",
    "version.restore",
    "version.retire",
    "alias.promote",
    "alias.rollback",
    "alias.demote",
    "alias.approve",
    "alias.withdraw",
    "alias.protect",
    "alias.unprotect",
)
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 3600.0
# of events read at once, and told in one round, so that a reader that is far behind doesn't keep others waiting
BATCH = 20


@dataclass(frozen=True)
class Place:
    """How far a reader has been told.

    Attributes:
        position: Id of the last event that is done with.
        failures: How many tries of the next one failed in a row.
        retry_at: Unix time before which it isn't tried again.
        dead: It failed too often, and isn't tried any more until somebody revives it.
        last_error: Why the last try failed; None after one that didn't.
        delivered_at: When a delivery last succeeded.
    """

    position: int
    failures: int = 0
    retry_at: float = 0.0
    dead: bool = False
    last_error: str | None = None
    delivered_at: str | None = None


class Places:
    """The places of readers: a file each, for the owner alone, renamed into place.

    Args:
        folder: Where they are; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, reader: str) -> Place:
        """Return how far a reader has been told; from the start, where that was lost.

        Raises:
            RegistryPathError: That can't be read, or others may read it.
        """
        path = self._path(reader)
        document = read_private(path)
        if document is None:
            return Place(0)
        try:
            place = Place(**document)
            if not isinstance(place.position, int) or not isinstance(place.failures, int):
                raise TypeError("position and failures are no whole numbers")
            if not isinstance(place.retry_at, int | float) or not isinstance(place.dead, bool):
                raise TypeError("retry_at is no time, or dead neither true nor false")
        except (TypeError, ValueError) as error:
            raise RegistryPathError(
                f"{path} does not say how far its reader has been told: {error}",
                next_step="restore it from a copy, or remove it: the reader is then told from the start",
            ) from error
        return place

    def note(self, reader: str, place: Place) -> None:
        """Keep how far a reader has been told."""
        write_private(self._path(reader), asdict(place))

    def forget(self, reader: str) -> None:
        """Remove what is kept of a reader that never comes again; its lock is held.

        Somebody who opened the lock's file before may lock it after this, beside another who makes a new one. Both then
        have to ask whether the reader is there.
        """
        self._path(reader).unlink(missing_ok=True)
        self._lock(reader).unlink(missing_ok=True)

    @contextmanager
    def held(self, reader: str) -> Iterator[bool]:
        """Say whether this process alone tells the reader while the block runs: two would tell it everything twice."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock(reader), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _path(self, reader: str) -> Path:
        return self.folder / f"{reader}.json"

    def _lock(self, reader: str) -> Path:
        return self.folder / f"{reader}.lock"


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes:
        told: How many events the reader was told.
        place: Where it is now.
        error: Why the round stopped early, if it did.
        event: Id of the event that failed.
    """

    told: int
    place: Place
    error: str | None = None
    event: int | None = None


def pause_seconds(failures: int) -> float:
    """Return how long to wait after this many failures in a row: twice as long each time, an hour at most."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)


def tell(
    registry: Registry,
    places: Places,
    reader: str,
    act: Callable[[OutboxEvent], str | None],
    *,
    at: float,
    most: int | None = BATCH,
    wants: Callable[[str], bool] = lambda _: True,
    stopped: Callable[[], bool] = lambda: False,
    dead_after: int | None = None,
) -> Round:
    """Tell a reader what it hasn't been told, until an event fails; the caller holds the reader's place.

    Args:
        registry: Whose outbox it is.
        places: Where the reader's place is kept.
        reader: Its id.
        act: Tells one event, and returns why that failed, if it did.
        at: Unix time now.
        most: Most events to tell; None tells everything.
        wants: Says of a topic whether the reader is told of it.
        stopped: Asked before each event whether to leave the rest for later.
        dead_after: After how many failures in a row the reader is dead; None: never.
    """
    place = before = places.of(reader)
    told = 0
    while most is None or told < most:
        events = registry.outbox(after=place.position, limit=BATCH if most is None else min(BATCH, most - told))
        for event in events:
            if stopped():
                break
            if not wants(event.topic):
                place = replace(place, position=event.id)
                continue
            error = act(event)
            if error is not None:
                failures = place.failures + 1
                dead = dead_after is not None and failures >= dead_after
                retry_at = at + pause_seconds(failures)
                place = replace(place, failures=failures, retry_at=retry_at, dead=dead, last_error=error)
                places.note(reader, place)
                return Round(told, place, error, event.id)
            told += 1
            place = before = Place(event.id, delivered_at=now())
            # at once: what is told again after a crash is one event, not the round
            places.note(reader, place)
        if not events or stopped():
            break
    if place != before:
        places.note(reader, place)
    return Round(told, place)
