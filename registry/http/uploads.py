"""Contents on their way in: a file that grows from its end, by one writer at a time, until it is whole and verified.

<registry>/uploads/<sha256>.part        a resumable upload; its length is the offset to go on at
<registry>/uploads/<sha256>.length      how long its first part said that it will be
<registry>/uploads/<sha256>.<id>.part   a whole content in one request
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from registry.blobs import BlobStore
from registry.errors import FileRefused, RegistryPathError, UploadConflict
from registry.parts import KEPT_SECONDS, LENGTH, held, sweep, unwritable
from registry.whole_file import write_whole

__all__ = ["Uploads"]

_SWEEP_SECONDS = 3600.0


class Uploads:
    """The unfinished uploads of one registry.

    Args:
        folder: Where they lie, on the blobs' disk where those are local.
        blobs: Where a whole content goes.
        kept_seconds: How long an upload that nobody goes on with is kept.
    """

    def __init__(self, folder: Path, blobs: BlobStore, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self._folder = folder
        self._blobs = blobs
        self._kept_seconds = kept_seconds
        self._sweep_next = 0.0

    def offset(self, sha256: str) -> int:
        """Return how many bytes of a content are there, 0 where nothing is."""
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def discard(self, sha256: str) -> bool:
        """Forget an unfinished upload, and say whether there was one."""
        if not self._path(sha256).exists():
            return False
        with held(self._path(sha256)) as stream:
            self._forget(Path(stream.name))
        return True

    def sweep(self) -> int:
        """Remove the uploads that nobody went on with, and return how many there were."""
        return sweep(self._folder, self._kept_seconds)

    def sweep_now_and_then(self) -> None:
        """Sweep, if this server hasn't for an hour: what is swept is a day old."""
        now = time.monotonic()
        if now >= self._sweep_next:
            self._sweep_next = now + _SWEEP_SECONDS
            self.sweep()

    @contextmanager
    def appending(self, sha256: str, offset: int, total: int) -> Iterator[IO[bytes]]:
        """Give a file to append to, from an offset on; what is written stays, whatever happens.

        Args:
            sha256: The content's digest.
            offset: How many bytes the caller knows to be there.
            total: How many there will be.

        Raises:
            UploadConflict: Another number of bytes is there or was announced, or somebody else is writing.
            RegistryPathError: The disk has no room for the rest, or can't be written.
        """
        self.sweep_now_and_then()
        with held(self._path(sha256)) as stream:
            os.utime(stream.fileno())  # no sweep takes it for one that nobody goes on with
            there = stream.seek(0, os.SEEK_END)
            if there != offset:
                raise UploadConflict(
                    f"{there} bytes of {sha256} are there, not {offset}",
                    offset=there,
                    allowed=f"Upload-Offset {there}",
                    next_step="ask for the offset and go on from there",
                )
            self._check_announced(Path(stream.name), there, total)
            self._check_room(total - offset)
            yield stream

    @contextmanager
    def whole(self, sha256: str, size: int | None) -> Iterator[IO[bytes]]:
        """Give a new file for a content that comes in one piece; removed unless `finish` took it over."""
        self.sweep_now_and_then()
        path = self._folder / f"{sha256}.{uuid.uuid4().hex}.part"
        try:
            with held(path) as stream:
                self._check_room(size or 0)
                yield stream
        finally:
            path.unlink(missing_ok=True)

    def finish(self, stream: IO[bytes], sha256: str) -> bool:
        """Verify a whole content and make it a blob.

        Args:
            stream: As `appending` or `whole` gave it, still held.
            sha256: The digest that it must have.

        Returns:
            False if the blob was there already, intact.

        Raises:
            FileRefused: It has another digest; the upload is forgotten.
            RegistryPathError: The store can't be written.
        """
        path = Path(stream.name)
        try:
            stream.flush()
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            created = self._blobs.adopt(path, sha256, path.stat().st_size)
        except FileRefused:
            self._forget(path)
            raise
        path.with_suffix(LENGTH).unlink(missing_ok=True)
        return created

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    @staticmethod
    def _forget(path: Path) -> None:
        path.unlink()
        path.with_suffix(LENGTH).unlink(missing_ok=True)

    @staticmethod
    def _check_announced(path: Path, there: int, total: int) -> None:
        """Note how long a content will be, or hold its later parts to that; while nothing is there, nothing is said."""
        announced = path.with_suffix(LENGTH)
        try:
            before = announced.read_text() if there and announced.exists() else ""
            if not before.isdecimal():  # nothing was said, or a power cut took it
                write_whole(announced, str(total).encode())
                return
        except OSError as error:
            raise unwritable(announced, error) from error
        if int(before) != total:
            raise UploadConflict(
                f"{path.stem} was announced with {before} bytes, and now with {total}",
                offset=there,
                allowed=f"Upload-Length {before}",
                next_step="go on with that length, or DELETE the upload and begin anew",
            )

    def _check_room(self, wanted_bytes: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if wanted_bytes > free:
            raise RegistryPathError(
                f"{wanted_bytes} bytes are to come and {free} are free on the server's disk",
                next_step="free space on the server",
            )
