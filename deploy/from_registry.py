"""What a registered version consists of on disk: its own files and its base's, checked out and verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from registry.store import Registry

__all__ = ["VersionFiles", "version_files"]

WHOLE_KINDS = ("base", "merged", "full")


@dataclass(frozen=True)
class VersionFiles:
    """A version as it is staged: who it is, and where its files lie.

    Attributes:
        name: The model's name.
        version: Its version number.
        digest: The version's digest.
        base_folder: Verified files of the base, or of the whole model when there is no adapter.
        adapter_folder: Verified files of the adapter.
        manifest: The version's manifest as plain JSON; its fingerprints and file digests are enforced.
    """

    name: str
    version: int
    digest: str
    base_folder: Path
    adapter_folder: Path | None
    manifest: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The version as people write it, `name:vN`."""
        return f"{self.name}:v{self.version}"


def version_files(registry: Registry, ref: str) -> VersionFiles:
    """Resolve a REF and check its files out, with those of its base where it is an adapter.

    Args:
        registry: An open registry.
        ref: `name`, `name:vN`, `name@alias` or a digest prefix.

    Returns:
        What `stage_model` lays out.

    Raises:
        InputError: A kind of version that can't be served.
        Registry errors: Unknown or ambiguous REF, a damaged file.
    """
    found = registry.resolve(ref)
    manifest = found.manifest
    if found.kind == "adapter":
        base = next(parent.digest for parent in manifest.parents if parent.role == "base")
        base_folder, adapter_folder = registry.checkout(base), registry.checkout(found.digest)
    elif found.kind in WHOLE_KINDS:
        base_folder, adapter_folder = registry.checkout(found.digest), None
    else:
        raise InputError(
            f"{found.label} is of kind {found.kind!r} and can't be served",
            allowed=", ".join(("adapter", *WHOLE_KINDS)),
            next_step="tunewright registry ls shows the versions and their kinds",
        )
    return VersionFiles(
        name=found.name,
        version=found.version,
        digest=found.digest,
        base_folder=base_folder,
        adapter_folder=adapter_folder,
        manifest=manifest.to_dict(),
    )
