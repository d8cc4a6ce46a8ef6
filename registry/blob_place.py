"""Where a registry's contents are: in its folder, or in S3 by an address that the folder remembers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from registry.blobs import BlobStore
from registry.errors import RegistryPathError
from registry.layout import BLOBS, BLOBS_PLACE
from registry.s3 import check_s3_url
from registry.s3_owner import OWNER, owner_document
from registry.whole_file import write_whole

__all__ = ["VARIABLE", "look_at_blobs", "open_blobs", "settle_blobs"]

VARIABLE = "TUNEWRIGHT_REGISTRY_BLOBS"


def look_at_blobs(folder: Path, given: str | None = None) -> str | None:
    """Look whether the contents of a registry that is to be made may be where they are wanted; nothing is made.

    Args:
        folder: The registry's folder.
        given: As in `open_blobs`.

    Returns:
        The address in S3; None where there is nothing to decide.

    Raises:
        RegistryPathError: The address can't be used.
        BlobsUnreachable: Nothing answers there.
        WrongBlobs: It is another registry's.
        S3Missing: s3fs isn't installed.
    """
    url = _given(given)
    # what an earlier making that was cut off, or a copy, has noted holds; and contents without rows are somebody's
    if url is None or _remembered(folder) is not None or _own_contents(folder):
        return None
    if {".", ".."} & set(url.split("/")):  # plain names in S3, and steps in a path for what shows or copies them
        raise RegistryPathError(
            f"the address of the blobs, {url}, has a part that is '.' or '..'",
            allowed="s3://BUCKET or s3://BUCKET/PREFIX with other names",
        )
    blobs = BlobStore(url)
    blobs.check_reachable()
    blobs.owner.require_free()
    return url


def settle_blobs(folder: Path, given: str | None = None) -> None:
    """Decide where the contents of a registry are to be that is being made: looked at, then remembered.

    Args:
        folder: The registry's folder.
        given: As in `open_blobs`.

    Raises:
        RegistryPathError: As `look_at_blobs`, or the address can't be noted.
        BlobsUnreachable, WrongBlobs, S3Missing: As `look_at_blobs`.
    """
    url = look_at_blobs(folder, given)
    if url is None:
        return
    try:
        write_whole(folder / BLOBS_PLACE, (json.dumps({"url": url}) + "\n").encode())
    except OSError as error:
        raise RegistryPathError(
            f"{folder / BLOBS_PLACE} can't be written: {error.strerror}",
            allowed="a folder with room that this user may write",
            next_step="free space, then run the command again",
        ) from error


def open_blobs(folder: Path, registry: Callable[[], str], given: str | None = None) -> BlobStore:
    """Open the contents that belong to a registry's folder, where they were decided to be when it was made.

    Args:
        folder: The registry's folder.
        registry: Says the registry's id.
        given: `s3://BUCKET/PREFIX`; by default $TUNEWRIGHT_REGISTRY_BLOBS, or what is decided.

    Raises:
        RegistryPathError: The address can't be used, or isn't the one where the contents are.
        S3Missing: s3fs isn't installed.
    """
    remembered = _remembered(folder)
    url = _given(given)
    if url is not None and url != remembered:
        raise RegistryPathError(
            f"the contents of the registry at {folder} are at {remembered or folder / BLOBS}, not at {url}",
            allowed="one place for one registry, decided when it is made",
            next_step=f"leave the address out (unset {VARIABLE}); to move, copy the folder sha256 there, put "
            f"{owner_document(registry())} beside it as {OWNER}, and "
            + json.dumps({"url": url})
            + f" into {folder / BLOBS_PLACE}",
        )
    return BlobStore(remembered or folder / BLOBS, registry)


def _given(given: str | None) -> str | None:
    given = given or os.environ.get(VARIABLE) or None
    return None if given is None else check_s3_url(given)


def _own_contents(folder: Path) -> bool:
    own = folder / BLOBS / "sha256"
    return own.is_dir() and any(own.iterdir())


def _remembered(folder: Path) -> str | None:
    path = folder / BLOBS_PLACE
    try:
        return check_s3_url(json.loads(path.read_text())["url"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RegistryPathError) as error:
        raise RegistryPathError(
            f"{path} can't be read, and where the registry's contents are can't be told",
            allowed='{"url": "s3://BUCKET/PREFIX"}',
            next_step="restore the file from a copy of the registry's folder",
        ) from error
