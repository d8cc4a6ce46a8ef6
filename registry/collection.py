"""Garbage collection by mark and sweep: blobs that no version needs any more, and checkouts of retired versions.

Marked is every blob of a version that isn't retired, or that an alias's history reaches, with all its parents, and
what a lease names. Swept is what is unmarked, and older than the grace period: since it was written, and, where it
belonged to a retired version, since that was retired.

Beside writers: rows mark and are written under the registry's write lock, and removals are made under it, a little at a
time, each batch with marks of its own. Whoever registers looks under the same lock that every blob is still there, and
stores again what isn't, so that no order of the two loses one. A crash leaves garbage for the next collection: nothing
but unmarked blobs is ever removed, and each by itself.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import audit
from registry.blobs import BlobStore
from registry.canonical import sha256_text
from registry.database import writing
from registry.errors import AuditBroken, RegistryError
from registry.leases import Leases
from registry.lookup import Query
from registry.names import is_digest
from registry.status import RETIRED, query_statuses

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["GRACE_SECONDS", "Collection", "collect"]

GRACE_SECONDS = 7 * 86_400.0
# How long a batch of removals keeps other writers waiting; they wait for 30 s before they give up.
HOLD_SECONDS = 1.0
# Between batches the lock is free for long enough that whoever polls for it, as SQLite's writers do, gets it.
PAUSE_SECONDS = 0.2
# How many removals are told in one audit row.
BATCH = 1000
# Checkouts that are being made, or taken away, have a hidden name; older ones were left by a killed process.
ABANDONED_SECONDS = 86_400.0
_GONE = ".gone."


@dataclass
class Collection:
    """What a collection freed, or would free.

    Attributes:
        blobs: Blobs removed.
        bytes: Their bytes.
        checkouts: Checkouts removed: of retired versions, and what killed processes left.
        leases: Ended leases removed.
        kept: Unmarked blobs that stay for now: younger than the grace period, or leased.
        dry_run: Whether this is only what would happen.
    """

    blobs: int = 0
    bytes: int = 0
    checkouts: int = 0
    leases: int = 0
    kept: int = 0
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the collection as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Marks:
    """What may not go, and since when that which may go has been retired (seconds since 1970)."""

    marked: frozenset[str]
    blobs_retired: dict[str, float]
    versions_retired: dict[str, float]


@dataclass
class _Marker:
    """Marks anew from the rows; manifests, which never change, are read once."""

    files: dict[int, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def mark(self, query: Query) -> _Marks:
        """Return the marks of what the query function sees.

        Raises:
            AuditBroken: A manifest isn't what its version's digest says, so that its files can't be told.
        """
        rows = query("SELECT id, digest, manifest FROM versions WHERE id > ?", (max(self.files, default=0),))
        self.files.update((number, (digest, _files(digest, text))) for number, digest, text in rows)
        statuses = query_statuses(query)
        retired = {number for number, status in statuses.items() if status.state == RETIRED}
        kept = set(self.files) - retired
        kept |= {row[0] for row in query("SELECT DISTINCT version_id FROM alias_events", ())} - {None}
        parents: dict[int, list[int]] = {}
        for child, parent in query("SELECT child_id, parent_id FROM version_parents", ()):
            parents.setdefault(child, []).append(parent)
        waiting = deque(kept)
        while waiting:
            for parent in parents.get(waiting.popleft(), ()):
                if parent not in kept:
                    kept.add(parent)
                    waiting.append(parent)
        blobs: dict[str, float] = {}
        versions: dict[str, float] = {}
        for number in retired - kept:
            digest, files = self.files[number]
            versions[digest] = since = datetime.fromisoformat(str(statuses[number].changed_at)).timestamp()
            for sha256 in files:
                blobs[sha256] = max(since, blobs.get(sha256, 0.0))
        marked = frozenset().union(*(self.files[number][1] for number in kept))
        return _Marks(marked, blobs, versions)


def _files(digest: str, manifest: str) -> frozenset[str]:
    if sha256_text(manifest) != digest:
        raise AuditBroken(
            f"the manifest of version {digest[:12]} was changed, so that what it needs can't be told; nothing is "
            "collected",
            allowed="rows that only the registry wrote",
            next_step="tunewright registry verify, then restore the database from a copy",
        )
    return frozenset(entry["sha256"] for entry in json.loads(manifest)["files"].values())


def collect(
    engine: Engine,
    query: Query,
    snapshot: Callable[[], AbstractContextManager[None]],
    blobs: BlobStore,
    leases: Leases,
    checkouts: Path,
    *,
    grace_seconds: float,
    actor: str,
    dry_run: bool,
) -> Collection:
    """Remove what no version needs.

    Args:
        engine: The store's database.
        query: The look-ups' query function.
        snapshot: Lets every query inside see one state.
        blobs: The blobs, on any filesystem.
        leases: The leases of who writes blobs now.
        checkouts: The registry's own checkouts; what a server's callers didn't send to its end lies beside them.
        grace_seconds: How old garbage has to be.
        actor: Who collects, for the audit trail.
        dry_run: Only say what would be removed.

    Raises:
        AuditBroken: A manifest was changed.
        RegistryPathError: A lease can't be read, or a blob can't be removed; what went before it is audited.
        WrongBlobs: What lies where the blobs are isn't this registry's.
        RegistryBusy: The write lock was held for too long; what was removed until then is audited.
    """
    blobs.owner.require_owned()
    done = Collection(dry_run=dry_run)
    marker = _Marker()
    stored = dict(blobs.stored())  # before the marks: a blob that comes later isn't looked at
    with snapshot():
        marks = marker.mark(query)  # most of the work, without the lock
    waiting = deque(sorted(set(stored) - marks.marked))
    sweep = _Sweep(blobs, leases, grace_seconds, stored)
    if dry_run:
        free = [sha256 for sha256 in waiting if sweep.may_go(sha256, marks)]
        done.blobs, done.bytes = len(free), sum(stored[sha256] for sha256 in free)
        done.kept = len(waiting) - len(free)
        done.checkouts = len(_old_checkouts(checkouts, marks, grace_seconds))
        return done
    if waiting or _old_checkouts(checkouts, marks, grace_seconds):
        while True:
            with writing(engine) as writer:
                marks = marker.mark(writer.query)
                if not waiting:
                    going = [_hide(path) for path in _old_checkouts(checkouts, marks, grace_seconds)]
                    break
                removed = sweep.batch(waiting, marks, done)
                if removed:
                    size = sum(stored[sha256] for sha256 in removed)
                    payload = {"blobs": removed, "bytes": size, "grace_seconds": grace_seconds}
                    audit.append(
                        writer, at=audit.now(), actor=actor, action="collect", subject="blobs", payload=payload
                    )
            if waiting:
                time.sleep(PAUSE_SECONDS)
        for path in going:
            shutil.rmtree(path, ignore_errors=True)  # what can't be removed now is found by the next collection
        done.checkouts = len(going)
    blobs.sweep_incoming()
    done.leases = leases.sweep()
    return done


@dataclass
class _Sweep:
    blobs: BlobStore
    leases: Leases
    grace_seconds: float
    stored: dict[str, int]

    def may_go(self, sha256: str, marks: _Marks) -> bool:
        """Say whether a blob is unmarked, unleased and old enough now."""
        if sha256 in marks.marked or sha256 in self.leases.held():
            return False
        oldest = time.time() - self.grace_seconds
        if marks.blobs_retired.get(sha256, 0.0) > oldest:
            return False
        written = self.blobs.written_at(sha256)
        return written is not None and written <= oldest

    def batch(self, waiting: deque[str], marks: _Marks, done: Collection) -> list[str]:
        """Remove for a while; what was looked at is taken off the queue. The caller holds the write lock."""
        self.blobs.owner.require_owned()
        removed: list[str] = []
        end = time.monotonic() + HOLD_SECONDS
        while waiting and len(removed) < BATCH and time.monotonic() < end:
            sha256 = waiting.popleft()
            if not self.may_go(sha256, marks):
                done.kept += sha256 not in marks.marked
                continue
            try:
                if self.blobs.remove(sha256):
                    removed.append(sha256)
            except RegistryError:
                if not removed:
                    raise
                waiting.appendleft(sha256)  # what went before it is audited; the next batch tells of it
                break
        done.blobs += len(removed)
        done.bytes += sum(self.stored[sha256] for sha256 in removed)
        return removed


def _old_checkouts(folder: Path, marks: _Marks, grace_seconds: float) -> list[Path]:
    now = time.time()

    def is_old(path: Path) -> bool:
        if is_digest(path.name):
            return marks.versions_retired.get(path.name, math.inf) <= now - grace_seconds
        if path.name.startswith(_GONE):
            return True
        try:
            return path.name.startswith(".") and path.stat().st_mtime < now - ABANDONED_SECONDS
        except FileNotFoundError:
            return False

    try:
        return sorted(path for path in folder.iterdir() if is_old(path))
    except FileNotFoundError:
        return []


def _hide(path: Path) -> Path:
    """Take a checkout away whole, so that nobody finds half of it."""
    if path.name.startswith("."):
        return path
    aside = path.with_name(f"{_GONE}{path.name}.{uuid.uuid4().hex}")
    os.replace(path, aside)
    return aside
