"""Contents on their way in, on this machine's disk: a file that grows from its end, by one writer at a time.

Uploads over HTTP (http/uploads.py) and contents that are stored from a local file (blobs.py) lie in such files: what is
there when a writer is cut off is gone on with, and the digest judges the whole in the end.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from registry.errors import FileRefused, RegistryPathError, UploadConflict

__all__ = ["KEPT_SECONDS", "LENGTH", "PIECE_BYTES", "check_content", "fill", "held", "sweep", "unwritable"]

PIECE_BYTES = 1 << 20
# How long a part that nobody goes on with is kept.
KEPT_SECONDS = 86_400.0
# What is noted beside a part: how long its first request said that it will be.
LENGTH = ".length"
# How many pieces may lie on the disk and not be hashed yet.
_PIECES_BEHIND = 64


@contextmanager
def held(path: Path) -> Iterator[IO[bytes]]:
    """Open a part for appending, for this process alone.

    Raises:
        UploadConflict: Somebody else is writing it, or has just finished it.
        RegistryPathError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise unwritable(path, error) from error
    with stream, ExitStack() as stack:
        try:
            stack.enter_context(_locked(stream, path))
        except OSError as error:
            there = stream.seek(0, os.SEEK_END)
            raise UploadConflict(
                f"somebody else is sending {path.name.partition('.')[0]}",
                offset=there,
                next_step="wait for it, then ask for the offset",
            ) from error
        if not path.exists() or path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
            raise UploadConflict("this content's upload was finished just now", next_step="ask whether it is there")
        yield stream


@contextmanager
def _locked(stream: IO[bytes], path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: it locks no file for appending alone, so one beside it stands for it
        from filelock import FileLock

        with FileLock(f"{path}.lock", timeout=0):  # its Timeout is an OSError, too
            yield
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the stream is closed
        yield


def unwritable(path: Path, error: OSError) -> RegistryPathError:
    """Return the error of a part that a full or failing disk doesn't take."""
    return RegistryPathError(
        f"{path} can't be written: {error.strerror or error}",
        allowed="a folder with room that this process may write",
        next_step="free space, then go on from what is there: ask a server for the offset, or run the command again",
    )


def check_content(found: str, length: int, sha256: str, size: int) -> None:
    """Refuse a content that isn't what its manifest says.

    Args:
        found: Its hex sha256.
        length: Its length in bytes.
        sha256: What the manifest says.
        size: What the manifest says, in bytes.

    Raises:
        FileRefused: It has another digest or length.
    """
    if (found, length) != (sha256, size):
        raise FileRefused(
            f"a file has {length} bytes with sha256 {found}, its manifest says {size} with {sha256}",
            allowed="files that don't change while they are registered",
            next_step="make the manifest again and register again",
        )


def fill(part: IO[bytes], source: IO[bytes], tell: Callable[[int], object]) -> tuple[str, int]:
    """Write a content to its part, behind those bytes that are there and that the content begins with.

    What is there isn't trusted: it is read, and held against the content by its digest; else the part begins anew.

    Args:
        part: As `held` gave it.
        source: The content from its start, seekable.
        tell: Told how many bytes are there.

    Returns:
        The content's hex sha256 and length.
    """
    there = part.seek(0, os.SEEK_END)
    hasher = hashlib.sha256()
    with Path(part.name).open("rb") as before:
        while there and (piece := before.read(PIECE_BYTES)):
            hasher.update(piece)
    begun, left = hashlib.sha256(), there
    while left and (piece := source.read(min(PIECE_BYTES, left))):
        begun.update(piece)
        left -= len(piece)
    if left or begun.digest() != hasher.digest():
        part.truncate(0)
        source.seek(0)
        there, hasher = 0, hashlib.sha256()
    tell(there)
    length = there
    # not through `part`, which is for appending: the kernel copies into no such file
    with Path(part.name).open("r+b") as target, Path(part.name).open("rb") as written:
        target.seek(there)
        written.seek(there)
        with ExitStack() as stack:
            hash_next: Callable[[int], object] = lambda count: hasher.update(written.read(count))  # noqa: E731
            for number, count in enumerate(_copied(source, target)):
                if number == 1:  # a thread pays for a second piece
                    hash_next = stack.enter_context(_beside(hash_next))
                hash_next(count)
                length += count
                tell(length)
        os.fsync(target.fileno())
    return hasher.hexdigest(), length


def _copied(source: IO[bytes], target: IO[bytes]) -> Iterator[int]:
    """Copy what is left of a stream, piece by piece, and yield how long each was: within the kernel, where it can.

    That is faster, and is not slowed down by what the disk has yet to take, as Linux does to a process that writes.
    """
    place = source.tell()
    try:
        # elsewhere it takes sockets alone; what stands for a file, such as one that is unpacked, may name its number
        if sys.platform == "linux" and isinstance(getattr(source, "raw", None), io.FileIO):
            while count := os.sendfile(target.fileno(), source.fileno(), place, PIECE_BYTES):
                place += count
                yield count
            return
    except OSError as error:  # of a kind that can't
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    source.seek(place)
    while piece := source.read(PIECE_BYTES):
        target.write(piece)
        target.flush()
        yield len(piece)


@contextmanager
def _beside(act: Callable[[int], object]) -> Iterator[Callable[[int], object]]:
    """Give what does an act in a thread of its own, in the order of its calls; at the end all of them are done.

    Where no thread is to be had, it does it at once. After an error nothing more is done.
    """
    thread = ThreadPoolExecutor(1)
    waiting: deque[Future[object]] = deque()
    threaded = True

    def later(count: int) -> None:
        nonlocal threaded
        if threaded:
            try:
                if len(waiting) == _PIECES_BEHIND:
                    waiting.popleft().result()
                waiting.append(thread.submit(act, count))
                return
            except RuntimeError:  # too many threads, or Python ends
                threaded = False
                while waiting:
                    waiting.popleft().result()
        act(count)

    try:
        yield later
        while waiting:
            waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def sweep(folder: Path, older_than_seconds: float = KEPT_SECONDS) -> int:
    """Remove the parts that nobody went on with, and what was noted of them.

    Args:
        folder: Where they lie; it need not be there.
        older_than_seconds: How long nobody went on with it.

    Returns:
        How many parts there were.
    """
    removed = 0
    for path in folder.glob("*.part"):
        try:
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # finished meanwhile, or swept by another process
            continue
    for announced in folder.glob(f"*{LENGTH}"):
        if not announced.with_suffix(".part").exists():
            announced.unlink(missing_ok=True)
    for aside in folder.glob(f".*{LENGTH}.*"):  # of a process that was ended at it
        with suppress(FileNotFoundError):
            if time.time() - aside.stat().st_mtime > older_than_seconds:
                aside.unlink()
    return removed
