"""A mirror of the registry in MLflow: versions, aliases, tags and scores, told from the outbox like a webhook.

MLflow is a reader here and never asked. A row is only the sign to look: what is written is the registry's present
state, so that the same row again, or an old one, changes nothing. An alias is written by its newest row alone: a mirror
that catches up never shows a champion of the past.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import AliasNotFound, MlflowMissing, RegistryError
from registry.mlflow_target import ASIDE
from registry.outbox import BATCH, Place, Places, pause_seconds, tell
from registry.secret_uris import redacted, without_secrets

if TYPE_CHECKING:
    from registry.entities import OutboxEvent
    from registry.mlflow_target import MlflowTarget
    from registry.store import Registry

__all__ = ["MIRRORED", "Mirrored", "follow", "mirror", "push"]

logger = logging.getLogger(__name__)

PLACES = "mirrors"
# What a mirror shows; approvals and protections it doesn't.
MIRRORED = (
    *(f"version.{what}" for what in ("registered", "evaluated", "deprecate", "restore", "retire")),
    *(f"alias.{what}" for what in ("promote", "rollback", "demote")),
)
POLL_SECONDS = 1.0
# Longer than any upload of a version's files.
KEPT_SECONDS = 7 * 86_400
# characters of an error that are shown
MOST_SAID = 500


@dataclass(frozen=True)
class Mirrored:
    """What one round did.

    Attributes:
        target: The mirror's URI, without what is secret in it.
        told: How many rows were pushed.
        position: Id of the last row that is done with.
        head: Id of the newest row.
        error: Why the round stopped early, if it did.
        retry_at: Unix time of the next try after an error.
    """

    target: str
    told: int
    position: int
    head: int
    error: str | None
    retry_at: float

    def to_dict(self) -> dict[str, Any]:
        """Return the round as plain JSON."""
        return {"target": self.target, "told": self.told, "position": self.position, "head": self.head,
                "error": self.error, "retry_at": self.retry_at if self.error else None}  # fmt: skip


def mirror(
    registry: Registry,
    target: MlflowTarget,
    *,
    from_start: bool = False,
    most: int | None = None,
    at: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Mirrored:
    """Push what a mirror hasn't been told yet, until a row fails.

    Args:
        registry: The source.
        target: Where to; one that fails is at the same row at the next call.
        from_start: Push every row again: into an MLflow that was emptied, or to add files.
        most: Most rows to push; None pushes everything.
        at: Unix time; now by default.
        stopped: Asked before each row whether to leave the rest for later.

    Raises:
        RegistryError: Another process pushes to this mirror now, or the place can't be read or written.
    """
    shown, places = without_secrets(target.uri), Places(registry.folder / PLACES)
    # two addresses that are shown alike, being cut at an @ of their paths, are two mirrors
    known_by = target.uri if "@" in target.uri.partition("://")[2].partition("/")[2] else shown
    reader = hashlib.sha256(f"{known_by} {target.experiment}".encode()).hexdigest()[:12]

    def act(event: OutboxEvent) -> str | None:
        try:
            push(registry, target, event)
        except Exception as error:  # MLflow's stores raise what their drivers raise; the row is tried again
            first = next(iter(str(error).splitlines()), "")  # drivers repeat whole statements behind it
            return redacted(f"{type(error).__name__}: {first[:MOST_SAID]}", target.uri)
        return None

    with places.held(reader) as held:
        if not held:
            raise RegistryError(f"another process mirrors to {shown} now", next_step="wait for it, or stop it")
        if from_start:
            places.note(reader, Place(0))
        _sweep(registry.folder)
        now = time.time() if at is None else at
        found = tell(registry, places, reader, act, at=now, most=most, wants=MIRRORED.__contains__, stopped=stopped)
    if found.error is not None:
        logger.debug("mirror %s failed at row %s: %s", shown, found.event, found.error)
    place = found.place
    return Mirrored(shown, found.told, place.position, registry.outbox_head(), found.error, place.retry_at)


def _sweep(folder: Path) -> None:
    """Remove what mirrors that were killed had laid out: its links would keep contents that a collection frees."""
    for left in folder.glob(f"{ASIDE}*"):
        with suppress(OSError):  # another mirror is done with it just now
            if left.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def follow(
    registry: Registry,
    target: MlflowTarget,
    *,
    on_round: Callable[[Mirrored], object],
    wait: Callable[[float], bool],
) -> Mirrored:
    """Go on pushing until told to stop; after a failure pause, longer each time, and go on at the same row.

    Another process that mirrors there now, or a disk that is full, is such a failure, too.

    Args:
        registry: The source.
        target: Where to.
        on_round: Told every round that pushed or failed.
        wait: Waits for so many seconds, and says whether to stop.

    Returns:
        The last round.

    Raises:
        MlflowMissing: MLflow isn't installed.
    """
    failures, position = 0, 0
    while True:
        try:
            done = mirror(registry, target, most=BATCH, stopped=lambda: wait(0))
        except MlflowMissing:
            raise
        except RegistryError as error:
            head, retry_at = registry.outbox_head(), time.time() + pause_seconds(failures + 1)
            done = Mirrored(without_secrets(target.uri), 0, position, head, error.problem, retry_at)
        position = done.position
        if done.told or done.error:
            on_round(done)
        failures = failures + 1 if done.error else 0
        pause = pause_seconds(failures) if done.error else 0 if done.position < done.head else POLL_SECONDS
        if wait(pause):
            return done


def push(registry: Registry, target: MlflowTarget, event: OutboxEvent) -> None:
    """Bring to the mirror what a row tells of, as it is now.

    Raises:
        MirrorConflict: The mirror holds something of this name that the registry didn't put there.
        Exception: What MLflow, or its driver, raises.
    """
    name, version = event.payload["name"], event.payload.get("version")
    if event.topic.startswith("version."):
        found = registry.resolve(event.payload["digest"])
        reports = registry.evaluations(found.digest)
        target.put_version(registry, found, reports[0] if reports else None, registry.status(found.digest))
        return
    alias = event.payload["alias"]
    if event.payload["revision"] != registry.alias_revision(name, alias):
        return  # a later row says where it is now
    try:
        state = next(one for one in registry.aliases(name) if one.alias == alias)
    except StopIteration:
        if version is not None:
            raise AliasNotFound(f"{name}@{alias} moved while it was mirrored") from None
        target.drop_alias(name, alias)
        return
    target.put_alias(state, event.payload.get("reason"))
