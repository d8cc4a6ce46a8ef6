"""A small JSON file that holds secrets: for its owner alone, written whole or not at all, by one process at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from registry.errors import RegistryBusy, RegistryPathError
from registry.whole_file import write_whole

__all__ = ["changing", "read_private", "write_private"]

LOCK_SECONDS = 10


def read_private(path: Path) -> Any:
    """Return a file's document, or None where there is no file.

    Raises:
        RegistryPathError: Others may read it, or it can't be read as JSON.
    """
    try:
        mode = path.stat().st_mode & 0o777
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RegistryPathError(f"{path} can't be read: {error.strerror}", allowed="a file of this user") from error
    if mode & 0o077:
        raise RegistryPathError(
            f"{path} holds secrets and others may read or write it (mode {mode:04o})",
            allowed="mode 0600",
            next_step=f"chmod 600 {path}, and replace the secrets if somebody may have read them",
        )
    try:
        return json.loads(content)
    except ValueError as error:
        raise RegistryPathError(
            f"{path} can't be read as JSON: {error}", next_step="restore it from a copy, or remove it and begin anew"
        ) from error


def write_private(path: Path, document: Any) -> None:
    """Write a document for this user alone: aside, flushed, then renamed.

    Raises:
        RegistryPathError: The folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(document, indent=1).encode(), mode=0o600)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold a file's lock while it is read, changed and written again.

    Raises:
        RegistryBusy: Another process held it too long.
        RegistryPathError: The folder can't be written.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RegistryBusy(f"{path} was held by another process for {LOCK_SECONDS} s", next_step="run again") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(path: Path, error: OSError) -> RegistryPathError:
    return RegistryPathError(
        f"{path} can't be written: {error.strerror or error}",
        allowed="a folder with room that this user may write, on a file system that isn't mounted read-only",
        next_step="run the command where the registry's folder can be written",
    )
