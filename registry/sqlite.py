"""Reading a registry's own SQLite file, with Python's sqlite3 alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryNotFound, RegistryPathError, SchemaUnsupported
from registry.layout import BINDING, DATABASE, READABLE_REVISIONS, SCHEMA_REVISION

if TYPE_CHECKING:
    from registry.binding import Binding

__all__ = ["SqliteReader", "no_registry"]


class SqliteReader:
    """One thread's connection to a registry's file, for reading only.

    Args:
        folder: The registry's folder.

    Raises:
        RegistryNotFound: There is no registry in the folder.
        RegistryPathError: There is something, but it can't be read as a registry.
        SchemaUnsupported: Another release wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = _connect(folder)
        self._in_snapshot = False
        self.process = os.getpid()

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT and return its rows."""
        return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query inside see one state of the database; one inside another is part of it."""
        if self._in_snapshot:
            yield
            return
        self._connection.execute("BEGIN")
        self._in_snapshot = True
        try:
            yield
        finally:
            self._in_snapshot = False
            if self.process == os.getpid():
                with suppress(sqlite3.Error):  # closed inside; nothing was written, so that nothing depends on it
                    self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def no_registry(folder: Path, claim: Binding | None = None) -> RegistryNotFound:
    """Return the error that says that a folder holds no registry.

    Args:
        folder: The folder.
        claim: What it remembers of a database that no registry was made in.
    """
    if claim is not None and (folder / BINDING).exists():
        return RegistryNotFound(
            f"there is no registry at {folder}: making one in {claim.address.url} was begun and not finished",
            allowed=f"a finished one; {folder / BINDING} is the claim on that database",
            next_step="tunewright run RECIPE, or an import, finishes it; to use another database, remove that file",
        )
    return RegistryNotFound(
        f"there is no registry at {folder}",
        allowed="a home where `tunewright run` has registered a model",
        next_step="tunewright run RECIPE, or pass --home (or set TUNEWRIGHT_HOME) to where one is",
    )


def _connect(folder: Path) -> sqlite3.Connection:
    path = folder / DATABASE
    if not path.is_file():
        raise no_registry(folder)
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None, cached_statements=32
        )
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise RegistryPathError(
            f"{path} can't be read as a registry: {error}",
            allowed="a database that Tunewright made and this user may read",
            next_step="restore it from a copy, or pass --home to another one",
        ) from error
    if revision is None or revision[0] not in READABLE_REVISIONS:
        connection.close()
        found = revision[0] if revision else "none"
        raise SchemaUnsupported(
            f"{path} has schema {found}, this release reads {SCHEMA_REVISION}",
            next_step="a writing command of this release brings an older schema up to date; a newer one needs a newer "
            "release",
        )
    return connection
