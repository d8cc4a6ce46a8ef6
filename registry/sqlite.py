"""Reading a registry's own SQLite file, with Python's sqlite3 alone; from a folder that can't be written, too.

SQLite reads a file in WAL mode only with two files beside it, which it makes: on a read-only mount, as long as nobody
writes, there are none, and it opens nothing. There the file is read whole into memory, and again once it changed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryNotFound, RegistryPathError, SchemaUnsupported
from registry.layout import BINDING, DATABASE, READABLE_REVISIONS, SCHEMA_REVISION

if TYPE_CHECKING:
    from registry.binding import Binding
    from registry.lookup import Statement

__all__ = ["SqliteReader", "no_registry", "read_damaged_text"]

COPY_TRIES = 3
# Where an SQLite file says by two bytes how it is written: https://www.sqlite.org/fileformat.html#file_format_version_numbers
_MODE = slice(18, 20)
_WAL_MODE, _ROLLBACK_MODE = b"\x02\x02", b"\x01\x01"


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
        self._folder = folder
        # a copy's, when the file was as it is in it; None where the file itself is read
        self._copied: tuple[int, ...] | None
        self._connection: sqlite3.Connection | None
        self._connection, self._copied = self._connect()
        self._in_snapshot = False
        self.process = os.getpid()
        _own_readers().add(self)

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT and return its rows."""
        return self._renewed().execute(sql, parameters).fetchall()

    def together(self, _statements: Sequence[Statement]) -> dict[Statement, Sequence[Sequence[Any]]]:
        """Answer nothing beforehand: no message goes anywhere, so that none is saved."""
        return {}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query inside see one state of the database; one inside another is part of it."""
        if self._in_snapshot:
            yield
            return
        connection = self._renewed()
        connection.execute("BEGIN")
        self._in_snapshot = True
        try:
            yield
        finally:
            self._in_snapshot = False
            if self.process == os.getpid():
                with suppress(sqlite3.Error):  # closed inside; nothing was written, so that nothing depends on it
                    connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def rest(self) -> None:
        """Close the connection until it is needed again, but not inside a snapshot."""
        if self._connection is not None and not self._in_snapshot and self.process == os.getpid():
            self._connection.close()
            self._connection = self._copied = None

    def _renewed(self) -> sqlite3.Connection:
        """Connect again after a rest, or where a copy is read and the file has changed since, and no snapshot is."""
        before = self._connection
        if before is not None and (self._copied is None or self._in_snapshot):
            return before
        if before is not None:
            with suppress(FileNotFoundError):  # connecting says so
                if _stamp(self._folder / DATABASE) == self._copied:
                    return before
        # what can't be opened now may be the next time: until then the copy that is there is kept
        connection, self._copied = self._connect()
        self._connection = connection
        if before is not None:
            before.close()
        return connection

    def _connect(self) -> tuple[sqlite3.Connection, tuple[int, ...] | None]:
        """Return a connection, and when the file was as it is in it, where it is one to a copy."""
        path = self._folder / DATABASE
        if not path.is_file():
            raise no_registry(self._folder)
        try:
            try:
                connection, copied = _open_file(path), None
            except sqlite3.OperationalError as error:
                copy = _open_copy(path) if error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN else None
                if copy is None:
                    raise
                connection, copied = copy
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.Error as error:
            log = path.with_name(f"{path.name}-wal")
            unfolded = error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN and log.exists()
            raise RegistryPathError(
                f"{path} can't be read as a registry: {error}",
                allowed="a database that Tunewright made and this user may read",
                next_step=f"what was written last is still in {log.name}: open it once where its folder can be written"
                if unfolded
                else "restore it from a copy, or pass --home to another one",
            ) from error
        if revision is None or revision[0] not in READABLE_REVISIONS:
            connection.close()
            found = revision[0] if revision else "none"
            raise SchemaUnsupported(
                f"{path} has schema {found}, this release reads {SCHEMA_REVISION}",
                next_step="a writing command of this release brings an older schema up to date; a newer one needs a "
                "newer release",
            )
        return connection, copied


_LOCAL = threading.local()


def _own_readers() -> weakref.WeakSet[SqliteReader]:
    """Return the readers that this thread made."""
    if not hasattr(_LOCAL, "readers"):
        _LOCAL.readers = weakref.WeakSet()
    readers: weakref.WeakSet[SqliteReader] = _LOCAL.readers
    return readers


def _rest_all() -> None:
    for reader in list(_own_readers()):
        reader.rest()


# A child that has its parent's connections, though it never uses them, has SQLite's note of their locks, too: it takes
# none of its own for the same file, and the parent, with the last of its own, folds the log away under the child's.
os.register_at_fork(before=_rest_all)


def read_damaged_text(connection: sqlite3.Connection) -> None:
    """Let texts that are no UTF-8 any more be read, as what no digest fits, so that the damage can be told.

    Otherwise one flipped bit in one row would end every command that comes upon it, that which lists damage included.
    """
    connection.text_factory = lambda text: text.decode("utf-8", "replace")


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
        allowed="a home where something was registered, or a registry served",
        next_step="tunewright run RECIPE, or tunewright registry import FOLDER --name NAME, makes one; or pass --home "
        "(or set TUNEWRIGHT_HOME) to where one is",
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when the file, or the log of what isn't in it yet, is written."""
    status, log = path.stat(), path.with_name(f"{path.name}-wal")
    return (status.st_ino, status.st_size, status.st_mtime_ns, log.stat().st_size if log.exists() else 0)


def _open_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None, cached_statements=32
    )
    read_damaged_text(connection)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _open_copy(path: Path) -> tuple[sqlite3.Connection, tuple[int, ...]] | None:
    """Open a copy of the file in memory, or return None where it can't be told what is in it."""
    for _ in range(COPY_TRIES):
        try:
            before = _stamp(path)
            image = bytearray(path.read_bytes())
            unchanged = _stamp(path) == before
        except OSError:
            return None
        if before[-1]:  # what was committed last is in the log, which a copy can't be joined with
            return None
        if unchanged:
            break
    else:
        return None
    if image[_MODE] == _WAL_MODE:
        image[_MODE] = _ROLLBACK_MODE  # a database in memory has no log
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=32)
    read_damaged_text(connection)
    connection.deserialize(bytes(image))
    connection.execute("PRAGMA query_only = ON")
    return connection, before
