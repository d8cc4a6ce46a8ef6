"""Files and digests: written whole or not at all, read by their sha256. Used by every step that leaves something."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import ConflictError, InputError

__all__ = [
    "canonical_json",
    "digest_of",
    "existing_part",
    "fsync_folder",
    "place_folder",
    "sha256_file",
    "sha256_tree",
    "write_atomic",
    "write_json",
    "write_problem",
]


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys, no white space and no NaN, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the hex sha256 of a JSON value in its canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, read in 1 MiB pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """Return the hex sha256 over the sorted relative paths and digests of every file below a folder."""
    listing = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    return digest_of(listing)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_folder(aside: Path, final: Path) -> None:
    """Put a folder that was written aside in its place, flushed: a reader sees the old one, none, or the whole new one.

    Args:
        aside: The written folder, on the same file system; its files lie directly in it.
        final: Where it goes; what is there is moved aside, then removed.
    """
    for path in aside.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    fsync_folder(aside)
    # removing takes many steps, renaming one: a process killed between the two renames leaves none, never half
    old = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        os.replace(final, old)
    os.replace(aside, final)
    fsync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def existing_part(path: Path) -> Path:
    """Return the path itself if it is there, else the nearest folder above it that is."""
    whole = path.absolute()
    return next(part for part in (whole, *whole.parents) if os.path.lexists(part))


def write_problem(path: Path) -> str | None:
    """Say why nothing can be written under a path that may not be there yet, or None where it can.

    A real temporary file is tried in the nearest folder that exists: modes tell neither of a read-only or virtual file
    system nor, to root, of anything.

    Args:
        path: A folder, there or to be made.

    Returns:
        "FOLDER: reason", FOLDER being what exists of the path.
    """
    existing = existing_part(path)
    try:
        with tempfile.TemporaryFile(dir=existing, prefix=".tunewright-"):
            return None
    except OSError as error:
        return f"{existing}: {error.strerror}"


def write_atomic(path: Path, content: bytes | str, *, replace: bool = True) -> None:
    """Write a file aside, fsync, then rename: a reader sees the old file or the new one, never half.

    Args:
        path: The file.
        content: What it holds; text as UTF-8.
        replace: Whether what is there is replaced. If not, the file system has to know hard links, which alone take a
            name only where it is free.

    Raises:
        InputError: The folder can't be created or written.
        ConflictError: The name is taken, or can't be taken so; names the file beside it that has the content.
    """
    payload = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}",
            allowed="a folder that this user may write",
            next_step="choose another folder, or change its owner or mode",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        if replace:
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if not replace:
        _take_name(Path(temporary), path)
    fsync_folder(path.parent)


def _take_name(aside: Path, path: Path) -> None:
    """Give a file its name if nothing has it; otherwise it stays where it is, for it may have taken hours."""
    try:
        os.link(aside, path)
    except OSError as error:
        problem = "is there by now" if isinstance(error, FileExistsError) else f"can't be named: {error.strerror}"
        raise ConflictError(
            f"{path} {problem}",
            allowed="a name that nothing has",
            next_step=f"what was to be written is in {aside}; move it to a name of its own",
        ) from error
    aside.unlink()


def write_json(path: Path, document: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON document atomically, indented for people, keys in the order given."""
    write_atomic(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
