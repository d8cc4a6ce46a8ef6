"""Leases: files that say which blobs a writer is about to need, so that no collection takes them meanwhile.

A lease lies beside the blobs, `leases/<id>`, written before the first byte and removed after the row is committed. It
has an end, so that what a killed writer left doesn't keep garbage for ever. Nothing rests on a lease alone: a writer
looks again, under the write lock, that its blobs are there (see `registry.collection`).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import RegistryPathError
from registry.names import is_digest

__all__ = ["LEASE_SECONDS", "Leases"]

LEASE_SECONDS = 86_400.0
# Of a file within a block, put into place unflushed, a power cut leaves all or nothing on a local filesystem.
_BLOCK_BYTES = 4096


class Leases:
    """The leases in one folder.

    Args:
        folder: Where they are; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, tuple[float, frozenset[str]]] = {}

    @contextmanager
    def hold(self, digests: Iterable[str], seconds: float | None = None) -> Iterator[None]:
        """Keep blobs from being collected while the block runs.

        Args:
            digests: The blobs' sha256; of none there is no lease.
            seconds: When the lease ends by itself, if its holder is killed; a day by default.

        Raises:
            RegistryPathError: It can't be written.
        """
        named = sorted(set(digests))
        if not named:
            yield
            return
        end = time.time() + (LEASE_SECONDS if seconds is None else seconds)
        name = uuid.uuid4().hex
        path, aside = self.folder / name, self.folder / f".{name}"
        try:
            content = json.dumps({"expires_at": end, "digests": named}).encode()
            try:
                try:
                    stream = aside.open("xb")
                except FileNotFoundError:
                    self.folder.mkdir(exist_ok=True)
                    stream = aside.open("xb")
                with stream:
                    stream.write(content)
                    if len(content) > _BLOCK_BYTES:  # one that a power cut left half would hold every collection up
                        stream.flush()
                        os.fsync(stream.fileno())
                os.replace(aside, path)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise RegistryPathError(
                f"lease {path} can't be written: {error.strerror or error}",
                allowed="a folder with room that this user may write",
                next_step="free space, or choose another folder for the registry",
            ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def held(self) -> frozenset[str]:
        """Return the blobs that any lease protects now.

        Raises:
            RegistryPathError: A lease can't be read: what it protects can't be told.
        """
        now = time.time()
        read: dict[str, tuple[float, frozenset[str]]] = {}
        for name in self._names():
            lease = self._read.get(name) or self._load(self.folder / name)
            if lease is not None:
                read[name] = lease
        self._read = read  # a lease never changes, so that each is read once
        return frozenset().union(*(digests for end, digests in read.values() if end > now))

    def sweep(self) -> int:
        """Remove leases that have ended, and what a killed writer left of one; return how many."""
        now, removed = time.time(), 0
        for name in self._names(hidden=True):
            path = self.folder / name
            try:
                ended = (
                    now - path.stat().st_mtime > LEASE_SECONDS
                    if name.startswith(".")
                    else (lease := self._load(path)) is not None and lease[0] <= now
                )
                if ended:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:  # its holder came to the end
                continue
        return removed

    def _names(self, *, hidden: bool = False) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir() if hidden or not path.name.startswith(".")]
        except FileNotFoundError:
            return []

    def _load(self, path: Path) -> tuple[float, frozenset[str]] | None:
        try:
            read = path.read_bytes()
            if not read.strip(b"\0"):
                # put into place whole: a power cut leaves one empty, which its holder on this machine didn't outlive
                return 0.0, frozenset()
            content = json.loads(read)
            end, digests = float(content["expires_at"]), frozenset(content["digests"])
            if not all(is_digest(digest) for digest in digests):
                raise ValueError("what it names is no digest")
        except FileNotFoundError:
            return None  # its holder came to the end
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryPathError(
                f"lease {path} can't be read, and what it protects can't be told: {error}",
                allowed='{"expires_at": seconds since 1970, "digests": [sha256, ...]}',
                next_step="remove the file once nothing is being registered, and collect again",
            ) from error
        return end, digests
