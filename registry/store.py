"""The registry's one door, made of its parts (`opened.py` lists them); and the bytes on their way out."""

from __future__ import annotations

from pathlib import Path

from registry.approving import Approving
from registry.checkout import check_out
from registry.errors import BlobCorrupted
from registry.layout import CHECKOUTS
from registry.moving import Moving
from registry.reading import Reading
from registry.recording import Recording
from registry.status import require_usable
from registry.upkeep import Upkeep
from registry.verification import Verification, verify

__all__ = ["Registry"]


class Registry(Recording, Moving, Approving, Upkeep, Reading):
    """The source of truth for models in one folder. Safe to share between threads and between processes."""

    def checkout(self, ref: str, dest: Path | str | None = None) -> Path:
        """Lay a version's files out in a folder, verified, as hard links where possible.

        Args:
            ref: The version.
            dest: A new or empty folder; by default the registry's own, `checkouts/<digest>`.

        Raises:
            BlobCorrupted: A file is gone or damaged; nothing is left behind.
            VersionRetired: It is retired.
            RegistryPathError: The folder holds other files, or can't be written.
        """
        version = self.resolve(ref)
        require_usable(self._lookup.query, version, "checked out")
        own = self.folder / CHECKOUTS / version.digest
        try:
            return check_out(self.blobs, version.manifest, own if dest is None else Path(dest), replace=dest is None)
        except BlobCorrupted:
            require_usable(self._lookup.query, version, "checked out")  # it may have been retired meanwhile
            raise

    def verify(self, ref: str | None = None) -> Verification:
        """Read every byte of one version, or of all, and hold every row against the audit chain.

        Returns:
            What was looked at and everything that is wrong; nothing is raised for damage.
        """
        chosen = self.versions() if ref is None else [self.resolve(ref)]
        return verify(self._lookup.query, self._lookup.snapshot, self.blobs, chosen)
