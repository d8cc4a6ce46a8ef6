"""A line for the writers of one SQLite file: first come, first served, between processes and between threads.

SQLite lets whoever waits for its write lock sleep, longer and longer, and try again: whoever comes just then is first,
and of eight writers one in a hundred waits for a second. Here each writer takes a place, the byte behind the last one
that is locked in an empty file, and begins when no byte before its own is locked. The kernel gives a place up with the
process that held it (open file description locks, so that each thread has its own), and nothing has to be tidied.

The line is a courtesy: SQLite's own lock still decides. Who finds that the line doesn't move, since somebody in it was
stopped or another program holds the database, goes to SQLite's lock all the same; where there are no such locks (they
are asked for in Linux's form), or the kernel refuses one, so does everyone. No error of the line's ends an act.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["STALLED_SECONDS", "Turns"]

# How long a line that doesn't move is waited in; a writer's transaction takes milliseconds, a collection's a second.
STALLED_SECONDS = 2.0
# Who is next looks again after this time, whoever is behind after as many of the second as there are before.
NEXT_SECONDS, BEHIND_SECONDS = 0.0003, 0.001
# Linux's struct flock, padded by the alignment of its longest member
_FLOCK = "hhqqi0q"
# Places are bytes of a file; no line is longer.
_END = 1 << 62


class Turns:
    """The line at one file.

    Args:
        path: The file, which stays empty; made by the first writer. Its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait in line, run the block, and let the next one go.

        The block runs without a place where none can be had: without a turn it is only less fair.

        Args:
            seconds: How long to wait at most, however the line moves.
        """
        descriptor = None
        try:
            with suppress(OSError, ImportError, AttributeError):  # no room, no right, no such locks
                if sys.platform == "linux":  # others have another struct flock
                    descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                    until = time.monotonic() + seconds
                    _wait(descriptor, _join(descriptor, until), until)
            yield
        finally:
            if descriptor is not None:
                # what was done in the turn is done; the kernel gives up the place of who can't
                with suppress(OSError, ImportError, AttributeError):
                    _leave(descriptor)
                with suppress(OSError):
                    os.close(descriptor)


def _join(descriptor: int, until: float) -> int:
    """Take the place behind the last one and return it.

    Raises:
        OSError: There is none to be had, or none was until then.
    """
    import fcntl

    while True:
        place = max(_held(descriptor, 0, _END), default=-1) + 1
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, place, 1))
        except BlockingIOError:  # somebody else took it just now; what refuses for good says EACCES
            if time.monotonic() > until:
                raise
            continue
        return place


def _leave(descriptor: int) -> None:
    """Give up every place that was taken with a descriptor, in children that were forked meanwhile, too."""
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, 0, _END))


def _wait(descriptor: int, place: int, until: float) -> None:
    """Return once nobody is ahead, or the line has not moved for `STALLED_SECONDS`, or the time is over."""
    moved = time.monotonic()
    before: list[int] = []
    while ahead := _held(descriptor, 0, place):
        at = time.monotonic()
        if ahead != before:
            before, moved = ahead, at
        if at - moved > STALLED_SECONDS or at > until:
            return
        time.sleep(NEXT_SECONDS if len(ahead) == 1 else BEHIND_SECONDS * len(ahead))


def _held(descriptor: int, start: int, end: int) -> list[int]:
    """Return the places from `start` up to `end` that others hold, in order."""
    import fcntl

    if start == end:
        return []
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, start, end - start))
    kind, _, place, _, _ = struct.unpack(_FLOCK, answer)
    if kind == fcntl.F_UNLCK:
        return []
    return [*_held(descriptor, start, place), place, *_held(descriptor, place + 1, end)]


def _lock(kind: int, start: int, length: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
