"""Writing to SQLite.

WAL lets readers go on while a writer commits, synchronous=FULL makes a commit survive a power cut, and BEGIN IMMEDIATE
takes the write lock before anything is read, so that a compare-and-swap can't be overtaken.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from registry.errors import RegistryBusy, RegistryError, RegistryPathError
from registry.layout import DATABASE, WRITERS
from registry.sqlite import read_damaged_text
from registry.turns import Turns
from registry.writer import Rows, Writer, insertion

__all__ = ["lock_on_sqlite", "make_engine", "write_on_sqlite"]

# With the write lock: the engine is for writers alone, look-ups have connections of their own (`lookup.py`).
_BEGIN = "BEGIN IMMEDIATE"


def make_engine(folder: Path, timeout_seconds: float) -> Engine:
    """Return an engine for the file in a registry's folder; nothing is opened yet.

    Args:
        folder: The registry's.
        timeout_seconds: How long the write lock is waited for while the file is made ready.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(folder / DATABASE)),
        connect_args={"timeout": timeout_seconds},
        execution_options={"turns": Turns(folder / WRITERS)},
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(_BEGIN))
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    # None: Python's sqlite3 begins no transactions of its own
    connection.isolation_level = None
    read_damaged_text(connection)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


class _SqliteWriter(Writer):
    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection: sqlite3.Connection | None = connection

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None, "nothing is read or written after the end of a transaction"
        return self._connection

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        return self._open.execute(sql, parameters).fetchall()

    def _add(self, table: str, columns: tuple[str, ...], values: tuple[Any, ...], *, numbered: bool) -> int | None:
        return self._open.execute(insertion(table, columns, "?"), values).lastrowid

    def end(self) -> None:
        super().end()
        self._connection = None


@contextmanager
def write_on_sqlite(engine: Engine, timeout_seconds: float) -> Iterator[Writer]:
    """Give a writer that holds the write lock; commits at the end, undoes everything on an error.

    Args:
        engine: Of `make_engine`.
        timeout_seconds: How long the lock is waited for, turns included.

    Raises:
        RegistryBusy: It was held for longer.
        RegistryPathError: The file can't be written: the disk is full, or fails.
    """
    with _turn(engine, timeout_seconds) as left, closing(engine.raw_connection()) as pooled:
        # without SQLAlchemy's own transaction, which takes a tenth of the time of a promotion
        connection: Any = pooled.driver_connection
        _wait_at_most(connection, left(), pooled.info)
        try:
            connection.execute(_BEGIN).close()
            writer = _SqliteWriter(connection)
            yield writer
            writer.end()
            connection.execute("COMMIT").close()
        except BaseException as error:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK").close()
            except sqlite3.Error:
                pooled.invalidate(error)
            raise


@contextmanager
def lock_on_sqlite(engine: Engine, timeout_seconds: float) -> Iterator[Connection]:
    """Give SQLAlchemy's connection, as migrations need it; otherwise as `write_on_sqlite`."""
    with _turn(engine, timeout_seconds) as left, engine.connect() as connection:
        _wait_at_most(connection.connection.driver_connection, left(), connection.connection.info)
        with connection.begin():
            yield connection


@contextmanager
def _turn(engine: Engine, timeout_seconds: float) -> Iterator[Callable[[], float]]:
    """Wait in line, and say what SQLite's errors mean; gives how many seconds are left to wait for its write lock."""
    until = time.monotonic() + timeout_seconds
    turns: Turns | None = engine.get_execution_options().get("turns")
    try:
        # in line before a connection is taken, so that many threads in it don't use them up
        with nullcontext() if turns is None else turns.turn(timeout_seconds):
            yield lambda: max(until - time.monotonic(), timeout_seconds / 10)
    except (DBAPIError, sqlite3.Error) as error:
        explained = _explain(error.orig if isinstance(error, DBAPIError) else error, engine, timeout_seconds)
        if explained is None:
            raise
        raise explained from error


def _wait_at_most(connection: Any, seconds: float, noted: dict[str, Any]) -> None:
    """Set how long SQLite's lock is waited for, in tenths of seconds, where that isn't what the connection has."""
    milliseconds = 100 * math.ceil(10 * seconds)
    if noted.get("busy_timeout") != milliseconds:
        connection.execute(f"PRAGMA busy_timeout = {milliseconds}").close()
        noted["busy_timeout"] = milliseconds


def _explain(error: BaseException | None, engine: Engine, timeout_seconds: float) -> RegistryError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of it says more closely where
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RegistryBusy(
            f"the registry's write lock was held for {timeout_seconds} s by another process",
            next_step="run the command again",
        )
    if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return None
    ended = "whether it was written can't be told" if code == sqlite3.SQLITE_IOERR else "nothing was written"
    return RegistryPathError(
        f"{engine.url.database} can't be written: {error}; {ended}",
        allowed="a disk with room that works, and a file that this user may write",
        next_step="free space, then run the command again: what was written already isn't written twice",
    )
