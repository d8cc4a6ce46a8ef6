"""Writing to PostgreSQL: connections that are kept between acts, and a transaction that holds the write lock.

An advisory lock, held to the end of the transaction, is taken before anything is read; what is read after it is newest
(READ COMMITTED), and ids are committed in their order: who reads the outbox by id misses nothing.

Making a connection takes longer than most acts, so a few are kept. One that was lost meanwhile is noticed at the
transaction's first message, before anything was done, and another is made. A process that was forked has its own.

An act waits for the server twice, as a rule: for the lock together with what it is expected to read, and for its rows
together with their commit. Between the two the session is idle for the server, which ends it after a while.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from registry.address import Address, import_driver
from registry.lookup import Statement
from registry.postgres import connect, explain, to_driver
from registry.postgres_session import (
    Session,
    has_lost_statements,
    keep_no_more,
    keep_statements,
    leave_to_parent,
    planning_settings,
)
from registry.writer import Rows, Writer, insertion

__all__ = ["KEPT_CONNECTIONS", "WRITE_LOCK", "lock_on_postgres", "make_engine", "write_on_postgres"]

# After this the server ends a writer that has stopped in the midst of a transaction, and lets the others go on.
IDLE_TIMEOUT_SECONDS = 300
# Between acts; while more threads write there are more.
KEPT_CONNECTIONS = 2
# PostgreSQL's advisory locks are numbers that programs agree on, one set a database.
WRITE_LOCK = int.from_bytes(b"tunewrgt")
# For this transaction alone, since a pooler may give the session to others; a commit that is acknowledged is on disk
# even where the server's own setting says otherwise. Waiting for the lock, and migrating, take as long as they take.
_SETTINGS = """SELECT pg_backend_pid(), set_config('lock_timeout', '{lock}s', true),
    set_config('idle_in_transaction_session_timeout', '{idle}s', true),
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
    set_config('statement_timeout', '0', true), {planning}{limit}"""
_PLANNING = planning_settings(local=True)
_NEWER_SERVER = 170000
_NEWER_LIMIT = ", set_config('transaction_timeout', '0', true)"
# A statement of its own: the server's limit on how long one takes counts from its beginning, and isn't lifted in it.
_TAKE_LOCK = f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def make_engine(address: Address) -> Engine:
    """Return an engine for a database; nothing is connected yet."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(address),
        poolclass=QueuePool,
        pool_size=KEPT_CONNECTIONS,
        pool_reset_on_return=None,  # what is put back has ended its transaction
        max_overflow=-1,
        isolation_level="AUTOCOMMIT",  # acts begin and commit themselves
        use_native_hstore=False,
        execution_options={"address": address},
    )
    _ENGINES.add(engine)
    known = weakref.ref(engine)

    def end_with_engine(_connection: Any, record: ConnectionPoolEntry) -> None:
        found = known()
        if found is None or found.get_execution_options().get("closed"):
            record.invalidate()

    event.listen(engine, "checkin", end_with_engine)
    for ending in ("close", "invalidate"):
        event.listen(engine, ending, _leave_pipeline)
    return engine


def _leave_pipeline(_connection: Any, record: ConnectionPoolEntry, *_: Any) -> None:
    if (session := record.info.get("session")) is not None:
        session.leave()


def _leave_to_parent() -> None:
    """Begin anew in a process that was forked: to close the parent's connections would end its sessions."""
    leave_to_parent()
    for engine in list(_ENGINES):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_to_parent)


class _PostgresWriter(Writer):
    """Rows wait for the next answer that is needed, or for the commit."""

    def __init__(self, session: Session, answers: dict[Statement, Rows]) -> None:
        super().__init__(answers)
        self._session: Session | None = session
        self._waiting: list[tuple[str, Sequence[Any]]] = []

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        rows: Rows = self._exchange(to_driver(sql), parameters).fetchall()
        return rows

    def _add(self, table: str, columns: tuple[str, ...], values: tuple[Any, ...], *, numbered: bool) -> int | None:
        statement = insertion(table, columns, "%s")
        if numbered:
            return int(self._exchange(f"{statement} RETURNING id", values).fetchone()[0])
        assert self._open
        self._waiting.append((statement, values))
        return None

    def _exchange(self, sql: str, parameters: Sequence[Any]) -> Any:
        return self._open.exchange([*self.take_waiting(), (sql, parameters)])[-1]

    @property
    def _open(self) -> Session:
        assert self._session is not None, "nothing is read or written after the end of a transaction"
        return self._session

    def take_waiting(self) -> list[tuple[str, Sequence[Any]]]:
        """Return the rows that are still to be sent."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def end(self) -> None:
        super().end()
        self._session = None


@contextmanager
def write_on_postgres(
    engine: Engine, lock_timeout_seconds: float, expected: Sequence[Statement] = ()
) -> Iterator[Writer]:
    """Give a writer that holds the write lock; commits at the end, undoes everything on an error.

    Args:
        engine: Of `make_engine`.
        lock_timeout_seconds: How long the lock is waited for.
        expected: What will be read; asked for with the lock, in one message.

    Raises:
        RegistryBusy: Another process held the lock for longer.
        DatabaseUnreachable, DatabaseRefused: The server can't be reached, went away, or refuses.
    """
    with _explaining(engine) as ended:
        pooled, session, answers = _begin(engine, lock_timeout_seconds, expected)
        try:
            writer = _PostgresWriter(session, answers)
            yield writer
            waiting = writer.take_waiting()
            writer.end()
            ended.append("whether it was written can't be told")
            if session.exchange([*waiting, ("COMMIT", ())])[-1].statusmessage != "COMMIT":
                raise AssertionError("an error was passed over in the transaction, which came to nothing")
        except BaseException as error:
            _undo(pooled, session, error)
            raise
        if session.connection.closed:  # after it had committed
            pooled.invalidate()
        pooled.close()


@contextmanager
def lock_on_postgres(engine: Engine, lock_timeout_seconds: float) -> Iterator[Connection]:
    """Give SQLAlchemy's connection, as migrations need it; otherwise as `write_on_postgres`."""
    with _explaining(engine) as ended:
        begun = engine.connect().execution_options(isolation_level="READ COMMITTED")
        with begun as connection, connection.begin():
            try:
                session: Any = connection.connection.driver_connection
                for sql in (_settings(session, lock_timeout_seconds), _TAKE_LOCK):
                    session.execute(sql)
                yield connection
            except BaseException as error:
                # a signal leaves the session busy
                if not connection.invalidated and (not isinstance(error, Exception) or session.closed):
                    connection.invalidate()
                raise
            ended.append("whether it was written can't be told")


@contextmanager
def _explaining(engine: Engine) -> Iterator[list[str]]:
    """Say what an error of the driver means; the last of the list is what has become of the act."""
    ended = ["nothing was written"]
    try:
        yield ended
    except (DBAPIError, import_driver().Error) as error:
        address: Address = engine.get_execution_options()["address"]
        explained = explain(error.orig if isinstance(error, DBAPIError) else error, address, ended[-1])
        if explained is None:
            raise
        raise explained from error


def _begin(
    engine: Engine, lock_timeout_seconds: float, expected: Sequence[Statement]
) -> tuple[PoolProxiedConnection, Session, dict[Statement, Rows]]:
    """Begin a transaction, take the write lock and read, in another session where a kept one turns out to be lost."""
    for attempt in (1, 2):
        pooled = engine.raw_connection()
        session = pooled.info.get("session")
        if session is None:
            session = pooled.info["session"] = Session(pooled.driver_connection)
        try:
            return pooled, session, _lock(session, lock_timeout_seconds, expected)
        except BaseException as error:
            lost = session.connection.closed or has_lost_statements(error)
            _undo(pooled, session, error)
            if attempt == 2 or not lost or not isinstance(error, Exception):
                raise
            engine.dispose()  # the other kept ones were lost with it, or will be made again
    raise AssertionError("the second attempt returns or raises")


def _lock(session: Session, timeout_seconds: float, expected: Sequence[Statement]) -> dict[Statement, Rows]:
    settings = _settings(session.connection, timeout_seconds)
    begun = [("BEGIN ISOLATION LEVEL READ COMMITTED", ()), (settings, ()), (_TAKE_LOCK, ())]
    reads = [(to_driver(sql), parameters) for sql, parameters in expected]
    cursors = session.exchange(begun + reads)
    keep_statements(session.connection, cursors[1].fetchone()[0])
    return {statement: cursor.fetchall() for statement, cursor in zip(expected, cursors[3:], strict=True)}


def _settings(connection: Any, timeout_seconds: float) -> str:
    limit = _NEWER_LIMIT if connection.info.server_version >= _NEWER_SERVER else ""
    return _SETTINGS.format(lock=timeout_seconds, idle=IDLE_TIMEOUT_SECONDS, planning=_PLANNING, limit=limit)


def _undo(pooled: PoolProxiedConnection, session: Session, error: BaseException) -> None:
    """End a transaction that came to nothing, and put its session back if that can be used again."""
    keep_no_more(error)
    # a signal leaves a session busy: nothing may wait for it, and the server undoes what a closed one has begun
    usable = isinstance(error, Exception) and not session.connection.closed and not has_lost_statements(error)
    if usable:
        try:
            session.exchange([("ROLLBACK", ())])
        except import_driver().Error:
            usable = False
    if not usable:
        session.connection.close()
        pooled.invalidate(error)
    pooled.close()
