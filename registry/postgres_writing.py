"""Writing to PostgreSQL: connections that are kept between acts, and a transaction that holds the write lock.

An advisory lock, held to the end of the transaction, is taken before anything is read; what is read after it is newest
(READ COMMITTED), and ids are committed in their order: who reads the outbox by id misses nothing.

Making a connection takes longer than most acts, so a few are kept. One that was lost meanwhile is noticed at the
transaction's first statement, before anything was done, and another is made; none is used in a process that was forked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, Transaction, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError

from registry.address import Address, import_driver
from registry.postgres import connect, explain

__all__ = ["KEPT_CONNECTIONS", "WRITE_LOCK", "make_engine", "write_on_postgres"]

# After this the server ends a writer that has stopped in the midst of a transaction, and lets the others go on.
IDLE_TIMEOUT_SECONDS = 300
# Between acts; while more threads write there are more.
KEPT_CONNECTIONS = 2
# What states begin with in which the server ends a session.
_ENDED = "57P"
# PostgreSQL's advisory locks are numbers that programs agree on, one set a database.
WRITE_LOCK = int.from_bytes(b"tunewrgt")
# For this transaction alone, since a pooler may give the session to others; a commit that is acknowledged is on disk
# even where the server's own setting says otherwise. Waiting for the lock, and migrating, take as long as they take.
_SETTINGS = """SELECT set_config('lock_timeout', '{lock}s', true),
    set_config('idle_in_transaction_session_timeout', '{idle}s', true),
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
    set_config('statement_timeout', '0', true)"""
_NEWER_LIMIT, _NEWER_SERVER = ", set_config('transaction_timeout', '0', true)", 170000


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
    event.listen(engine, "connect", _note_process)
    event.listen(engine, "checkout", _leave_to_parent)
    return engine


def _note_process(_connection: Any, record: Any) -> None:
    record.info["process"] = os.getpid()


def _leave_to_parent(_connection: Any, record: Any, proxy: Any) -> None:
    if record.info["process"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None  # not closed: it is the parent's
        raise DisconnectionError("the connection belongs to the process that this one was forked from")


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
            except driver.Error as error:  # of a look-up that went to the driver, past SQLAlchemy
                if _is_lost(connection, error):
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
        lost = error.connection_invalidated or _is_lost(connection, error.orig)
        if lost and not connection.invalidated:
            connection.invalidate()
        transaction.close()
        if not lost:
            raise
        transaction = connection.begin()
        _lock(connection, lock_timeout_seconds)
    return transaction


def _is_lost(connection: Connection, error: Any) -> bool:
    """Tell whether the session is over; the server may have said so before the connection knows it."""
    state = getattr(error, "sqlstate", None) or ""
    return state[:3] == _ENDED or bool(connection.connection.driver_connection.closed)  # type: ignore[union-attr]


def _lock(connection: Connection, timeout_seconds: float) -> None:
    settings = _SETTINGS.format(lock=timeout_seconds, idle=IDLE_TIMEOUT_SECONDS)
    if connection.connection.driver_connection.info.server_version >= _NEWER_SERVER:  # type: ignore[union-attr]
        settings += _NEWER_LIMIT
    # one message: each further one costs its way there and back
    connection.exec_driver_sql(f"{settings}; SELECT pg_advisory_xact_lock({WRITE_LOCK})").close()
