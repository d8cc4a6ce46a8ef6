"""Writing to PostgreSQL: connections that are kept between acts, and a transaction that holds the write lock.

An advisory lock, held to the end of the transaction, is taken before anything is read; what is read after it is newest
(READ COMMITTED), and ids are committed in their order: who reads the outbox by id misses nothing.

Making a connection takes longer than most acts, so a few are kept. One that was lost meanwhile is noticed at the
transaction's first statement, before anything was done, and another is made. A process that was forked has its own.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, Transaction, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from registry.address import Address, import_driver
from registry.postgres import connect, explain

__all__ = ["KEPT_CONNECTIONS", "WRITE_LOCK", "make_engine", "write_on_postgres"]

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
def write_on_postgres(engine: Engine, lock_timeout_seconds: float) -> Iterator[Connection]:
    """Give a connection that holds the write lock; commits at the end, undoes everything on an error.

    Args:
        engine: Of `make_engine`.
        lock_timeout_seconds: How long the lock is waited for.

    Raises:
        RegistryBusy: Another process held the lock for longer.
        DatabaseUnreachable, DatabaseRefused: The server can't be reached, went away, or refuses.
    """
    address: Address = engine.get_execution_options()["address"]
    driver = import_driver()
    ended = "nothing was written"
    try:
        with engine.connect() as connection, _begin(connection, lock_timeout_seconds):
            try:
                yield connection
            except BaseException as error:
                # a look-up goes to the driver, past SQLAlchemy: a signal in its midst leaves the connection busy
                stopped = not isinstance(error, Exception)
                if not connection.invalidated and (stopped or _is_lost(connection)):
                    connection.invalidate()
                raise
            ended = "whether it was written can't be told"
    except (DBAPIError, driver.Error) as error:
        explained = explain(error.orig if isinstance(error, DBAPIError) else error, address, ended)
        if explained is None:
            raise
        raise explained from error


def _begin(connection: Connection, lock_timeout_seconds: float) -> Transaction:
    """Begin a transaction and take the write lock, on another connection where the kept one was lost."""
    transaction = connection.begin()
    try:
        _lock(connection, lock_timeout_seconds)
    except DBAPIError as error:
        lost = error.connection_invalidated or _is_lost(connection)
        if lost and not connection.invalidated:
            connection.invalidate()
        transaction.close()
        if not lost:
            raise
        transaction = connection.begin()
        _lock(connection, lock_timeout_seconds)
    return transaction


def _is_lost(connection: Connection) -> bool:
    return bool(connection.connection.driver_connection.closed)  # type: ignore[union-attr]


def _lock(connection: Connection, timeout_seconds: float) -> None:
    settings = _SETTINGS.format(lock=timeout_seconds, idle=IDLE_TIMEOUT_SECONDS)
    if connection.connection.driver_connection.info.server_version >= _NEWER_SERVER:  # type: ignore[union-attr]
        settings += _NEWER_LIMIT
    # one message: each further one costs its way there and back
    connection.exec_driver_sql(f"{settings}; SELECT pg_advisory_xact_lock({WRITE_LOCK})").close()
