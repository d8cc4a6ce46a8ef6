"""A registry that is opened: its folder, its bytes and its database. The parts of its door stand on this.

`recording.py` writes what was made and measured, `moving.py` moves aliases, `approving.py` is for those that several
people answer for, `upkeep.py` is what comes afterwards, `reading.py` looks up; `store.py` makes one class of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from registry.blob_place import look_at_blobs, open_blobs, settle_blobs
from registry.database import close_engine, open_engine
from registry.entities import Version
from registry.errors import BlobCorrupted, RegistryPathError
from registry.layout import BINDING, DATABASE, LEASES
from registry.leases import Leases
from registry.lookup import Lookup

__all__ = ["Opened"]


class Opened:
    """What every part of `registry.store.Registry` works on; see there."""

    def __init__(
        self, folder: Path, engine: Engine | None, database: str | None = None, blobs: str | None = None
    ) -> None:
        self.folder = folder
        self._writing_engine = engine
        self._lookup = Lookup(folder, database)
        try:
            self.blobs = open_blobs(folder, self._identity, blobs)
        except BaseException:
            self._lookup.close()
            raise
        self.leases = Leases(folder / LEASES)

    @classmethod
    def open(
        cls, folder: Path | str, *, create: bool = True, database: str | None = None, blobs: str | None = None
    ) -> Self:
        """Open the registry in a folder, making it or bringing its schema up to date where needed.

        Args:
            folder: Where its bytes are, and where its SQLite database is or its PostgreSQL database is remembered.
            create: Make it if it isn't there.
            database: A PostgreSQL database by its URL, without a password, for a folder that is new; or another
                address of the one that the folder remembers. By default $TUNEWRIGHT_REGISTRY_DATABASE (which may have
                a password), what the folder remembers, or SQLite in the folder.
            blobs: Where in S3 the contents of a registry that this makes are to be: `s3://BUCKET/PREFIX`. By default
                $TUNEWRIGHT_REGISTRY_BLOBS, or the folder. One that is there may only be given its own address, which
                its folder remembers. Credentials are AWS's own.

        Raises:
            RegistryNotFound: Nothing there, and `create` is False.
            RegistryPathError: The folder can't be made or written.
            SchemaUnsupported: A newer release wrote it.
            WrongDatabase: The database isn't the one that the folder belongs to, or holds something else.
            DatabaseAddressInvalid, DatabaseUnreachable, DatabaseRefused, DriverMissing: The database can't be used.
            BlobsUnreachable, S3Missing: The address of blobs can't be used; nothing was made.
            WrongBlobs: Another registry's contents are there.
        """
        folder = Path(folder).absolute()
        is_new = False

        def settle() -> None:
            nonlocal is_new
            settle_blobs(folder, blobs)
            is_new = True

        if create and not ((folder / DATABASE).exists() or (folder / BINDING).exists()):
            look_at_blobs(folder, blobs)  # once more when it is made; here nothing, a lock neither, is left behind
        engine = open_engine(folder, create=create, database=database, making=settle)
        opened = None
        try:
            opened = cls(folder, engine, database, blobs)
            if is_new:
                opened.blobs.owner.claim()
        except BaseException:
            close_engine(engine)
            if opened is not None:
                opened.close()
            raise
        return opened

    @classmethod
    def open_to_read(cls, folder: Path | str, *, database: str | None = None) -> Self:
        """Open the registry in a folder to look up, verify and export, as it is: nothing is made, migrated or written.

        The folder may be one that can't be written, a read-only mount for instance. What writes raises
        RegistryPathError.

        Args:
            folder: As in `open`.
            database: As in `open`.

        Raises:
            RegistryNotFound, RegistryPathError, SchemaUnsupported: As `registry.lookup.Lookup`.
            WrongDatabase, DatabaseUnreachable, DatabaseAddressInvalid, DriverMissing, S3Missing: As `open`.
        """
        return cls(Path(folder).absolute(), None, database)

    @property
    def _engine(self) -> Engine:
        if self._writing_engine is None:
            raise RegistryPathError(
                f"the registry at {self.folder} was opened to be read, and this writes",
                allowed="looking up, verifying and exporting",
                next_step="open it with Registry.open",
            )
        return self._writing_engine

    @property
    def _is_writer_far(self) -> bool:
        """Whether what is written to is a server's; False where nothing is."""
        return self._writing_engine is not None and self._writing_engine.dialect.name == "postgresql"

    @property
    def is_writable(self) -> bool:
        """Whether the folder takes files, checkouts for instance; a read-only mount takes none of anybody."""
        return os.access(self.folder, os.W_OK | os.X_OK)

    def _identity(self) -> str:
        return str(self._lookup.query("SELECT registry FROM identity", ())[0][0])

    def close(self) -> None:
        """Close this thread's connections, and to PostgreSQL other threads', once they are done with what they do."""
        self._lookup.close()
        if self._writing_engine is not None:
            close_engine(self._writing_engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _absence(self, version: Version) -> BlobCorrupted | None:
        """Say which of a version's bytes are missing, if any are; the content itself is verified at each load."""
        for path, entry in version.files.items():
            size = self.blobs.size(entry.sha256)
            if size != entry.size:
                return BlobCorrupted(
                    f"{version.label}: blob {entry.sha256} of {path!r} "
                    + ("is gone" if size is None else f"has {size} bytes instead of {entry.size}"),
                    next_step="restore the blob from a copy, or register the same files again",
                )
        return None
