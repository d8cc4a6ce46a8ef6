"""Writing to PostgreSQL: connections that are kept between acts, and a transaction that holds the write lock.

An advisory lock, held to the end of the transaction, is taken before anything is read; what is read after it is newest
(READ COMMITTED), and ids are committed in their order: who reads the outbox by id misses nothing.

Making a connection takes longer than most acts, so a few are kept. One that was lost meanwhile is noticed at the
transaction's first statement, before anything was done, and another is made. A process that was forked has its own.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, Transaction, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from registry.address import Address, import_driver
from registry.lookup import Statement
from registry.postgres import connect, explain, to_driver
from registry.writer import Writer

__all__ = ["KEPT_CONNECTIONS", "WRITE_LOCK", "lock_on_postgres", "make_engine", "write_on_postgres"]

# After this the server ends a writer that has stopped in the midst of a transaction, and lets the others go on.
IDLE_TIMEOUT_SECONDS = 300
# Between acts; while more threads write there are more.
KEPT_CONNECTIONS = 2
# PostgreSQL's advisory locks are numbers that programs agree on, one set a database.
WRITE_LOCK = int.from_bytes(b"tunewrgt")
# For this transaction alone, since a pooler may give the session to others; a commit that is acknowledged is on disk
# even where the server's own setting says otherwise. Waiting for the lock, and migrating, take as long as they take.
_SETTINGS = """SELECT set_config('lock_timeout', '{lock}s', true),
    set_config('idle_in_transaction_session_timeout', '{idle}s', true),
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
    set_config('statement_timeout', '0', true)"""
_NEWER_SERVER = 170000
_NEWER_LIMIT = ", set_config('transaction_timeout', '0', true)"
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def make_engine(address: Address) -> Engine:
    """Return an engine for a database; nothing is connected yet."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(address),
        poolclass=QueuePool,
        pool_size=KEPT_CONNECTIONS,
        max_overflow=-1,
        isolation_level="READ COMMITTED",
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
    return engine


def _leave_to_parent() -> None:
    """Begin anew in a process that was forked: to close the parent's connections would end its sessions."""
    for engine in list(_ENGINES):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_to_parent)


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
    with _locked(engine, lock_timeout_seconds, expected) as (connection, asked):
        writer = Writer(connection.connection.driver_connection, asked, is_postgres=True)
        yield writer
        writer.end()


@contextmanager
def lock_on_postgres(engine: Engine, lock_timeout_seconds: float) -> Iterator[Connection]:
    """Give SQLAlchemy's connection, which knows of no pipeline; otherwise as `write_on_postgres`."""
    with _locked(engine, lock_timeout_seconds, None) as (connection, _):
        yield connection


@contextmanager
def _locked(
    engine: Engine, lock_timeout_seconds: float, expected: Sequence[Statement] | None
) -> Iterator[tuple[Connection, dict[Statement, Any]]]:
    address: Address = engine.get_execution_options()["address"]
    driver = import_driver()
    ended = "nothing was written"
    try:
        with engine.connect() as connection, ExitStack() as pipeline:
            transaction, asked = _begin(connection, pipeline, lock_timeout_seconds, expected)
            with transaction:
                try:
                    yield connection, asked
                except BaseException as error:
                    # a look-up goes to the driver, past SQLAlchemy: a signal in its midst leaves the connection busy
                    stopped = not isinstance(error, Exception)
                    if not connection.invalidated and (stopped or _is_lost(connection)):
                        connection.invalidate()
                    pipeline.close()  # in one that was aborted nothing can be undone
                    raise
                ended = "whether it was written can't be told"
    except (DBAPIError, driver.Error) as error:
        explained = explain(error.orig if isinstance(error, DBAPIError) else error, address, ended)
        if explained is None:
            raise
        raise explained from error


def _begin(
    connection: Connection, pipeline: ExitStack, lock_timeout_seconds: float, expected: Sequence[Statement] | None
) -> tuple[Transaction, dict[Statement, Any]]:
    """Begin a transaction and take the write lock, on another connection where the kept one was lost."""
    driver = import_driver()
    for attempt in (1, 2):
        transaction = connection.begin()
        try:
            return transaction, _lock(connection, pipeline, lock_timeout_seconds, expected)
        except driver.Error:
            lost = _is_lost(connection)
            if lost:
                connection.invalidate()
                connection.engine.dispose()  # the other kept ones were lost with it, or will be made again
            pipeline.close()
            transaction.close()
            if attempt == 2 or not lost:
                raise
    raise AssertionError("the second attempt returns or raises")


def _is_lost(connection: Connection) -> bool:
    return bool(connection.connection.driver_connection.closed)  # type: ignore[union-attr]


def _lock(
    connection: Connection, pipeline: ExitStack, timeout_seconds: float, expected: Sequence[Statement] | None
) -> dict[Statement, Any]:
    driver = import_driver()
    session: Any = connection.connection.driver_connection
    settings = _SETTINGS.format(lock=timeout_seconds, idle=IDLE_TIMEOUT_SECONDS)
    if session.info.server_version >= _NEWER_SERVER:
        settings += _NEWER_LIMIT
    if expected is not None and driver.Pipeline.is_supported():  # libpq has it since 14
        entered = session.pipeline()
        entered.__enter__()
        pipeline.callback(_leave, entered, driver)
    session.execute(settings)
    locked = session.execute(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
    asked = {(sql, parameters): session.execute(to_driver(sql), parameters) for sql, parameters in expected or ()}
    locked.fetchall()
    return asked


def _leave(pipeline: Any, driver: Any) -> None:
    """Leave a pipeline whose transaction has ended, so that nothing depends on what is left in it."""
    with suppress(driver.Error):
        pipeline.__exit__(None, None, None)
