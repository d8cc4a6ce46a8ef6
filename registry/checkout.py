"""From blobs to a folder that a loader can read: every byte verified, the folder there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from registry.errors import BlobCorrupted, RegistryPathError
from registry.manifest import FileEntry, Manifest

__all__ = ["BlobSource", "check_out", "is_intact_checkout"]


class BlobSource(Protocol):
    """Where contents come from: the registry's own blobs, or a server's."""

    def local_path(self, sha256: str) -> Path | None:
        """Return a blob's path on this machine's disk, or None where it lies elsewhere."""

    def read(self, sha256: str, write: Callable[[bytes], object] | None = None) -> int:
        """Stream a blob to a writer, and raise BlobCorrupted unless its bytes have the digest."""


def check_out(blobs: BlobSource, manifest: Manifest, destination: Path, *, replace: bool = False) -> Path:
    """Lay a version's files out in a folder, as hard links to the blobs where possible, else as copies.

    Args:
        blobs: Where the contents are.
        manifest: Which files, and what they must be.
        destination: The folder to make. One that holds exactly these files, intact, is kept as it is.
        replace: Make the folder again if it holds something else; for the registry's own checkouts only.

    Returns:
        The destination.

    Raises:
        BlobCorrupted: A blob is gone or damaged; nothing is left behind.
        RegistryPathError: The destination holds other files, or can't be written.
    """
    destination = destination.absolute()
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise RegistryPathError(f"checkout {destination} is not a folder", allowed="a new or an empty folder")
    if destination.is_dir() and any(destination.iterdir()):
        if is_intact_checkout(manifest, destination):
            return destination
        if not replace:
            raise RegistryPathError(
                f"checkout folder {destination} holds other files, or changed ones",
                allowed="a new or an empty folder, or an intact checkout of the same version",
                next_step="choose another folder",
            )
    incoming = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}")
    try:
        incoming.mkdir(parents=True)
        for path, entry in manifest.files.items():
            target = incoming / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _lay_out(blobs, entry, target)
        if destination.exists():
            aside = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}")
            os.replace(destination, aside)
            os.replace(incoming, destination)
            shutil.rmtree(aside)
        else:
            os.replace(incoming, destination)
    except OSError as error:
        # another process may have finished the same checkout first
        if destination.is_dir() and is_intact_checkout(manifest, destination):
            return destination
        raise RegistryPathError(
            f"checkout {destination} can't be written: {error.strerror or error}",
            allowed="a folder with room that this user may write",
            next_step="choose another folder, or free space",
        ) from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return destination


def _lay_out(blobs: BlobSource, entry: FileEntry, target: Path) -> None:
    source = blobs.local_path(entry.sha256)
    if source is not None and _link(source, target):
        # the link is the blob itself, so that what was verified is what will be read
        if _sha256(target) != entry.sha256:
            raise BlobCorrupted(
                f"blob {entry.sha256} at {source} was damaged: its bytes have another sha256",
                next_step="restore the blob from a copy, or register the same files again",
            )
        return
    with target.open("xb") as stream:
        blobs.read(entry.sha256, stream.write)
        stream.flush()
        os.fsync(stream.fileno())


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without links: the caller copies
        return False
    return True


def is_intact_checkout(manifest: Manifest, folder: Path) -> bool:
    """Say whether a folder holds exactly a version's files, each with its digest, and no symlinks."""
    present = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    if set(present) != set(manifest.files) or any(p.is_symlink() for p in present.values()):
        return False
    return all(_sha256(present[path]) == entry.sha256 for path, entry in manifest.files.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
