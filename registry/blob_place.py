"""Where a registry's contents are: in its folder, or in S3 by an address that the folder remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path

from registry.blobs import BlobStore
from registry.errors import RegistryPathError
from registry.layout import BLOBS, BLOBS_PLACE
from registry.s3 import check_s3_url
from registry.whole_file import write_whole

__all__ = ["VARIABLE", "open_blobs"]

VARIABLE = "TUNEWRIGHT_REGISTRY_BLOBS"


def open_blobs(folder: Path, given: str | None = None) -> BlobStore:
    """Open the contents that belong to a registry's folder; a new address is looked at, then remembered.

    Args:
        folder: The registry's folder.
        given: `s3://BUCKET/PREFIX`; by default $TUNEWRIGHT_REGISTRY_BLOBS, what the folder remembers, or the folder.

    Raises:
        RegistryPathError: The address can't be used, or isn't the one where the contents are already.
        BlobsUnreachable: Nothing answers at a new address.
        S3Missing: s3fs isn't installed.
    """
    remembered = _remembered(folder)
    given = given or os.environ.get(VARIABLE) or None
    if given is None:
        return BlobStore(remembered or folder / BLOBS)
    url = check_s3_url(given)
    if remembered == url:
        return BlobStore(url)
    own = folder / BLOBS / "sha256"
    if remembered is not None or (own.is_dir() and any(own.iterdir())):
        raise RegistryPathError(
            f"the contents of the registry at {folder} are at {remembered or own.parent}, not at {url}",
            allowed="one place for one registry",
            next_step=f"leave the address out (unset {VARIABLE}); to move, copy the folder sha256 there, and write the "
            f"new address into {folder / BLOBS_PLACE}",
        )
    blobs = BlobStore(url)
    blobs.check_reachable()
    try:
        write_whole(folder / BLOBS_PLACE, (json.dumps({"url": url}) + "\n").encode())
    except OSError as error:
        raise RegistryPathError(f"{folder / BLOBS_PLACE} can't be written: {error.strerror}") from error
    return blobs


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
