"""Whose contents lie under an address in S3: one registry's, whose id is an object beside them.

A collection removes what its own registry doesn't need. Under an address that two registries share it would remove the
other's contents, so that each writes its id there before its first content, and looks for it before it removes any.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from registry.errors import WrongBlobs
from registry.s3 import no_bucket, reaching

__all__ = ["OWNER", "Owner", "owner_document"]

OWNER = "registry.json"


def owner_document(registry: str) -> str:
    """Return the object's content that says that an address is a registry's."""
    return json.dumps({"registry": registry})


class Owner:
    """Whose contents lie at the address of a blob store.

    Args:
        files: The s3fs filesystem; None where blobs aren't in S3, and whose they are is told by where they lie.
        root: Bucket and prefix.
        registry: Says the id of the registry whose they are to be, as its database has it; None for no registry.
    """

    def __init__(self, files: Any, root: str, registry: Callable[[], str] | None) -> None:
        self._files = files
        self._root = root
        self._registry = registry
        self._is_claimed = False

    def claim(self) -> None:
        """Write the registry's id to an address that nobody has, or find it there; asked once.

        Raises:
            WrongBlobs: Another registry's id is there, or contents of nobody's.
            BlobsUnreachable: It can't be looked at or written.
        """
        if self._files is None or self._registry is None or self._is_claimed:
            return
        registry = self._registry()
        try:
            with reaching(self._root):
                if not _is_owned(self._files, self._root, registry):
                    bucket, _, key = f"{self._root}/{OWNER}".partition("/")
                    body = owner_document(registry).encode()
                    with suppress(FileExistsError):  # another was faster
                        self._files.call_s3("put_object", Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
                    # read back: a server may not know the condition
                    _is_owned(self._files, self._root, registry)
        except FileNotFoundError as error:
            raise no_bucket(self._root) from error
        self._is_claimed = True

    def require_owned(self) -> None:
        """Make sure, now, that what lies there is the registry's own: before anything of it is removed.

        Raises:
            WrongBlobs, BlobsUnreachable: As `claim`.
        """
        if self._files is not None and self._registry is not None:
            with reaching(self._root):
                _is_owned(self._files, self._root, self._registry())

    def require_free(self) -> None:
        """Make sure that no registry has its contents there, before one is made that is to have them.

        Raises:
            WrongBlobs, BlobsUnreachable: As `claim`.
        """
        if self._files is not None:
            with reaching(self._root):
                _is_owned(self._files, self._root, None)


def _is_owned(files: Any, root: str, registry: str | None) -> bool:
    """Say whether the id is there; False where there is nothing at all, an error for anything else."""
    try:
        content = files.cat_file(f"{root}/{OWNER}")
    except FileNotFoundError:
        bucket, _, prefix = root.partition("/")
        found = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/sha256/".lstrip("/"), MaxKeys=1)
        if not found.get("Contents"):
            return False
        theirs = "" if registry is None else f"; if they are this registry's, put {owner_document(registry)} there"
        raise WrongBlobs(
            f"there are contents under s3://{root}, and no {OWNER} that says whose",
            allowed="a bucket and prefix for this registry alone",
            next_step=f"choose another prefix{theirs}" + (f" as {OWNER}" if theirs else ", or remove them"),
        ) from None
    try:
        owner = json.loads(content)["registry"]
    except (ValueError, KeyError, TypeError):
        owner = None
    if owner is None or owner != registry:
        raise WrongBlobs(
            f"the contents under s3://{root} are another registry's: {OWNER} there says {content[:100]!r}"
            + ("" if registry is None else f", not {owner_document(registry)}"),
            allowed="a bucket and prefix for one registry alone",
            next_step="choose another prefix; to take over a registry that is gone, copy its folder sha256 to one",
        )
    return True
