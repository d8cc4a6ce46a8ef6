"""Writing to SQLite.

WAL lets readers go on while a writer commits, synchronous=FULL makes a commit survive a power cut, and BEGIN IMMEDIATE
takes the write lock before anything is read, so that a compare-and-swap can't be overtaken.

Acts have connections of their own beside SQLAlchemy's, which migrate: its pool takes a fifteenth of a promotion's time.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from registry.errors import RegistryBusy, RegistryError, RegistryPathError
from registry.layout import DATABASE, WRITERS
from registry.sqlite import read_damaged_text
from registry.turns import Turns
from registry.writer import Rows, Writer, insertion

__all__ = ["lock_on_sqlite", "make_engine", "write_on_sqlite"]

# With the write lock: the engine is for writers alone, look-ups have connections of their own (`lookup.py`).
_BEGIN = "BEGIN IMMEDIATE"
# Whoever finds so many pages in the log folds them into the database: with twice SQLite's own number, half as many do.
_LOG_PAGES = 2000
# Writers take turns, so that more at a time are rare.
_KEPT_CONNECTIONS = 2


def make_engine(folder: Path, timeout_seconds: float) -> Engine:
    """Return an engine for the file in a registry's folder; nothing is opened yet.

    Args:
        folder: The registry's.
        timeout_seconds: How long the write lock is waited for while the file is made ready.
    """
    path = folder / DATABASE
    kept = _Kept(path, timeout_seconds)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": timeout_seconds, "factory": _Connection},
        poolclass=NullPool,
        execution_options={"turns": Turns(folder / WRITERS), "kept": kept},
    )
    event.listen(engine, "connect", lambda connection, _record: _make_ready(connection))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(_BEGIN))
    event.listen(engine, "engine_disposed", lambda _engine: kept.close())
    return engine


def _make_ready(connection: sqlite3.Connection) -> None:
    # None: Python's sqlite3 begins no transactions of its own
    connection.isolation_level = None
    read_damaged_text(connection)
    ready = "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"wal_autocheckpoint = {_LOG_PAGES}"
    for pragma in ready:
        connection.execute(f"PRAGMA {pragma}").close()


class _Connection(sqlite3.Connection):
    """A connection that knows how long it waits for SQLite's lock, in milliseconds."""

    busy_timeout = -1


class _Kept:
    """Connections that are kept between acts, from whichever thread; a process that is forked has none of them."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._idle: list[_Connection] = []
        self._is_closed = False
        _EVERY_KEPT.add(self)

    @contextmanager
    def one(self) -> Iterator[_Connection]:
        """Give a connection that no other act has; one that is left in the midst of a transaction is closed."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        finally:
            if self._is_closed or connection.in_transaction or len(self._idle) >= _KEPT_CONNECTIONS:
                connection.close()
            else:
                self._idle.append(connection)

    def _connect(self) -> _Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._timeout_seconds, factory=_Connection, check_same_thread=False
        )
        try:
            _make_ready(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close what no act has now; acts after this, and those that are at work, close what they had."""
        self._is_closed = True
        self.rest()

    def rest(self) -> None:
        """Close what no act has now, until one needs it again."""
        with suppress(IndexError):  # until there is none, whoever else takes some
            while True:
                self._idle.pop().close()


_EVERY_KEPT: weakref.WeakSet[_Kept] = weakref.WeakSet()


def _rest_all() -> None:
    for kept in list(_EVERY_KEPT):
        kept.rest()


os.register_at_fork(before=_rest_all)  # as those of readers: see `registry.sqlite`


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
    kept: _Kept = engine.get_execution_options()["kept"]
    with _turn(engine, timeout_seconds) as left, kept.one() as connection:
        _wait_at_most(connection, left())
        try:
            connection.execute(_BEGIN).close()
            writer = _SqliteWriter(connection)
            yield writer
            writer.end()
            connection.execute("COMMIT").close()
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):  # it is closed, then
                    connection.execute("ROLLBACK").close()
            raise


@contextmanager
def lock_on_sqlite(engine: Engine, timeout_seconds: float) -> Iterator[Connection]:
    """Give SQLAlchemy's connection, as migrations need it; otherwise as `write_on_sqlite`."""
    with _turn(engine, timeout_seconds) as left, engine.connect() as connection:
        driven: Any = connection.connection.driver_connection
        _wait_at_most(driven, left())
        with connection.begin():
            yield connection


@contextmanager
def _turn(engine: Engine, timeout_seconds: float) -> Iterator[Callable[[], float]]:
    """Wait in line, and say what SQLite's errors mean; gives how many seconds are left to wait for its write lock."""
    until = time.monotonic() + timeout_seconds
    turns: Turns = engine.get_execution_options()["turns"]
    try:
        # in line before a connection is taken, so that many threads in it have none open
        with turns.turn(timeout_seconds):
            yield lambda: max(until - time.monotonic(), timeout_seconds / 10)
    except (DBAPIError, sqlite3.Error) as error:
        explained = _explain(error.orig if isinstance(error, DBAPIError) else error, engine, timeout_seconds)
        if explained is None:
            raise
        raise explained from error


def _wait_at_most(connection: _Connection, seconds: float) -> None:
    """Set how long SQLite's lock is waited for, in tenths of seconds, where that isn't what the connection has."""
    milliseconds = 100 * math.ceil(10 * seconds)
    if connection.busy_timeout != milliseconds:
        connection.execute(f"PRAGMA busy_timeout = {milliseconds}").close()
        connection.busy_timeout = milliseconds


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
