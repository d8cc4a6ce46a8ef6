"""Writing a file that is there whole or not at all, and stays when the power goes: aside, flushed, put into place."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["flush_folder", "make_folder", "write_whole"]


def write_whole(path: Path, content: bytes, *, replace: bool = True, mode: int = 0o666) -> bool:
    """Write a file beside its place and put it there once its bytes are on disk; its folder is flushed, too.

    Args:
        path: Where it belongs; the folder is there.
        content: Its bytes.
        replace: Whether it takes the place of one that is there.
        mode: Its permissions, less those that the process masks; it never has others, not for a moment.

    Returns:
        Whether it was written: False where there is one that may not be replaced.

    Raises:
        OSError: It can't be written; what was at the path is there as before. Where flushing its folder alone failed,
            it is there, and may be gone after a power cut.
    """
    aside = path.with_name(f".{path.name}.{os.urandom(16).hex()}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(aside, path)
        else:
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
    finally:
        with contextlib.suppress(OSError):  # where it couldn't be written it isn't there
            aside.unlink()
    flush_folder(path.parent)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, unless it is there, and bring the entries of those made to disk.

    Raises:
        OSError: It can't be made or flushed.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Bring a folder's entries to disk: a file's own flush doesn't.

    Raises:
        OSError: It can't be opened or flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
