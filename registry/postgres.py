"""Speaking to PostgreSQL: how it is connected to, how it is read, and what its errors mean.

psycopg is imported inside functions: a registry on SQLite never loads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.address import VARIABLE, Address, import_driver
from registry.binding import Binding
from registry.errors import (
    DatabaseRefused,
    DatabaseUnreachable,
    RegistryBusy,
    RegistryClosed,
    RegistryError,
    SchemaUnsupported,
    WrongDatabase,
)
from registry.layout import READABLE_REVISIONS, SCHEMA_REVISION
from registry.postgres_session import (
    closed_if_interrupted,
    has_lost_statements,
    keep_no_more,
    keep_statements,
    planning_settings,
)

if TYPE_CHECKING:
    from registry.lookup import Statement

__all__ = [
    "PostgresReader",
    "State",
    "check_makeable",
    "connect",
    "explain",
    "missing",
    "other",
    "read_state",
    "to_driver",
    "unreachable",
]

# Where neither the address nor libpq's own variables say otherwise. A server that is gone is noticed within
# minutes; one that was gone when it was written to, which keepalives don't see, within half a minute.
CONNECT_TIMEOUT_SECONDS = 10
_DEFAULTS = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "tunewright",
}
# 12 got its last fixes in 2024.
OLDEST_SERVER = 130000
_LOST = {"25P03", "25P04"}  # the server ended a session that was idle or busy for too long
_REFUSED = {"42501", "25006", "3F000", "22P05"}  # rights, read-only, no schema, encoding
_CANCELLED = "57014"


def to_driver(sql: str) -> str:
    """Return a look-up's SQL with psycopg's placeholders in place of question marks; none stands in a literal."""
    return sql.replace("%", "%%").replace("?", "%s")


def connect(address: Address) -> Any:
    """Open a connection that commits each statement by itself.

    Raises:
        DatabaseUnreachable: The server isn't there, or lets this user not in.
        DatabaseRefused: It is older than what the registry is written for.
        DriverMissing: psycopg isn't there.
    """
    driver = import_driver()
    given = driver.conninfo.conninfo_to_dict(address.secret)
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}
    if "PGCONNECT_TIMEOUT" in os.environ:
        defaults.pop("connect_timeout", None)
    try:
        # no settings of the session, and for now no statements that it keeps: a pooler may stand between
        connection = driver.connect(
            address.secret, autocommit=True, prepare_threshold=None, client_encoding="UTF8", **defaults
        )
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            connection.close()
            raise DatabaseRefused(
                f"the registry's database {address.url} is on PostgreSQL {version // 10000}",
                allowed=f"PostgreSQL {OLDEST_SERVER // 10000} or newer",
                next_step="use a newer server (pg_upgrade takes the registry along)",
            )
    except driver.Error as error:
        raise (explain(error, address) or unreachable(error, address)) from error
    return connection


def unreachable(error: Exception, address: Address, ended: str | None = None) -> DatabaseUnreachable:
    """Return the error that says that a server can't be reached, or went away in the midst of something."""
    return DatabaseUnreachable(
        f"the registry's database {address.url} can't be reached: {_first_line(error)}"
        + (f"; {ended}" if ended else ""),
        allowed="a PostgreSQL server that is up and lets this user in (password: PGPASSWORD, ~/.pgpass, "
        f"or the whole address in {VARIABLE})",
        next_step="start the server or mend the address, then run the command again"
        if ended is None or ended.startswith("nothing")
        else "look whether it is there (`tunewright registry audit`), then run the command again if it isn't",
    )


def explain(error: Exception | None, address: Address, ended: str | None = None) -> RegistryError | None:
    """Say what a driver's error means to the caller; None where it means a mistake of ours.

    Args:
        error: What psycopg raised.
        address: Of the database.
        ended: What has become of the act that was under way.
    """
    driver = import_driver()
    state = getattr(error, "sqlstate", None) or ""
    if error is None or not isinstance(error, driver.Error):
        return None
    if state == "55P03" or state[:2] == "40":
        return RegistryBusy(
            f"the registry's write lock was held for too long by another process: {_first_line(error)}",
            next_step="run the command again",
        )
    if has_lost_statements(error):
        return RegistryBusy(
            f"the registry's database {address.url} has lost what its session kept: {_first_line(error)}",
            next_step="run the command again",
        )
    if state == _CANCELLED:
        return DatabaseRefused(
            f"the registry's database {address.url} broke off what was asked: {_first_line(error)}",
            allowed="a server that gives a look-up time; statement_timeout may limit it, by database or role",
            next_step="run the command again; ALTER ROLE ... SET statement_timeout gives more, if that was it",
        )
    if state in _REFUSED or (state[:2] == "53" and state != "53300"):
        return DatabaseRefused(
            f"the registry's database {address.url} refuses: {_first_line(error)}",
            allowed="a database in UTF-8, with room, where this user may create tables and write",
            next_step="ask whoever keeps the server; GRANT CREATE ON SCHEMA, if it is about rights",
        )
    if isinstance(error, driver.OperationalError | driver.InterfaceError) or state in _LOST:
        return unreachable(error, address, ended)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class PostgresReader:
    """One thread's connection to a registry's database, for look-ups.

    Args:
        binding: The database, and the registry that it must hold.

    Raises:
        DatabaseUnreachable, DriverMissing: As `connect`.
        WrongDatabase: It holds another registry, or none.
        SchemaUnsupported: Another release wrote it.
    """

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._driver = import_driver()
        self._in_snapshot = self._closed = False
        self.process = os.getpid()
        self._connection = self._connect()

    def _connect(self) -> Any:
        connection = connect(self._binding.address)
        try:
            _check(connection, self._binding)
        except BaseException:
            connection.close()
            raise
        return connection

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT and return its rows; a connection that was lost since the last one is made anew.

        Raises:
            DatabaseUnreachable, DatabaseRefused: The server went away, or refuses.
            RegistryClosed: It has been closed, perhaps by another thread.
        """
        rows: Sequence[Sequence[Any]] = self._run(to_driver(sql), parameters).fetchall()
        return rows

    def together(self, statements: Sequence[Statement]) -> dict[Statement, Sequence[Sequence[Any]]]:
        """Run SELECTs in one message and return their rows.

        None of them inside a snapshot, or where one fails or the server is gone: whoever asks one by one is told why.
        """
        if self._in_snapshot or not self._driver.Pipeline.is_supported():  # libpq has it since 14
            return {}
        pipeline, inside = self._connection.pipeline(), False
        try:
            with closed_if_interrupted(self._connection):
                pipeline.__enter__()
                inside = True
                asked = [(one, self._connection.execute(to_driver(one[0]), one[1])) for one in statements]
                inside = False
                pipeline.__exit__(None, None, None)
            return {statement: cursor.fetchall() for statement, cursor in asked}
        except self._driver.Error:
            # psycopg takes a statement for kept that was sent behind one that failed, and that the server never saw
            self._connection.close()
            return {}
        finally:
            if inside:  # left without an error: psycopg would tell of it
                with suppress(Exception):
                    pipeline.__exit__(None, None, None)

    def _run(self, statement: str, parameters: Sequence[Any]) -> Any:
        for attempt in (1, 2):
            try:
                with closed_if_interrupted(self._connection):
                    return self._connection.execute(statement, parameters)
            except self._driver.Error as error:
                if self._closed:
                    raise RegistryClosed from error
                if has_lost_statements(error):
                    keep_no_more(error)
                    self._connection.close()
                explained = explain(error, self._binding.address)
                if explained is None:
                    raise
                if attempt == 2 or self._in_snapshot or not self._connection.closed:
                    raise explained from error
            self._connection = self._connect()
            if self._closed:  # meanwhile, and with the one that was lost
                self._connection.close()
        raise AssertionError("the second attempt returns or raises")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query inside see one state of the database; one inside another is part of it."""
        if self._in_snapshot:
            yield
            return
        self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
        self._in_snapshot = True
        try:
            yield
        finally:
            self._in_snapshot = False
            if self.process == os.getpid():
                with suppress(self._driver.Error):  # nothing was written, so that nothing depends on it
                    self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection, unless it belongs to the process that this one was forked from."""
        if self.process == os.getpid():
            self._closed = True
            self._connection.close()

    def __del__(self) -> None:
        # a thread that ends leaves its reader to the collector
        if hasattr(self, "_connection"):
            self.close()


@dataclass(frozen=True)
class State:
    """What a database holds: its schema's revision and its registry's id, and whether it has tables at all."""

    revision: str | None
    registry: str | None
    empty: bool
    encoding: str


def read_state(connection: Any, address: Address) -> State:
    """Look what a database holds, whatever that is.

    Raises:
        DatabaseUnreachable, DatabaseRefused: The server went away, or doesn't let this user look.
    """
    driver = import_driver()
    try:
        versioned, identified, empty, encoding = connection.execute(
            "SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('identity') IS NOT NULL, "
            "NOT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema()), "
            "current_setting('server_encoding')"
        ).fetchone()
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone() if versioned else None
        registry = connection.execute("SELECT registry FROM identity").fetchone() if versioned and identified else None
    except driver.errors.UndefinedColumn:  # somebody else's table of that name
        return State(None, None, empty=False, encoding=encoding)
    except driver.Error as error:
        raise (explain(error, address) or unreachable(error, address)) from error
    return State(revision and revision[0], registry and registry[0], empty, encoding)


def check_makeable(state: State, binding: Binding) -> None:
    """Refuse a database that isn't the folder's own, or where a new registry may not be made.

    Raises:
        WrongDatabase: It holds another registry, or none where the folder's should be, or something else.
        DatabaseRefused: It isn't in UTF-8.
    """
    url = binding.address.url
    if state.registry is not None and state.registry != binding.registry:
        raise other(binding, state.registry)
    if state.registry is None and binding.made:
        raise missing(binding)
    if state.registry is None and not state.empty:
        raise WrongDatabase(
            f"the database {url} holds tables of something else",
            allowed="an empty database, or an empty schema of one",
            next_step="make one for the registry (CREATE DATABASE), and give its address",
        )
    if state.encoding != "UTF8":
        raise DatabaseRefused(
            f"the database {url} is in {state.encoding}",
            allowed="a database in UTF-8",
            next_step="CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )


def _check(connection: Any, binding: Binding) -> None:
    driver, address = import_driver(), binding.address
    try:
        revision, registry, process_id = connection.execute(
            "SELECT (SELECT version_num FROM alembic_version), (SELECT registry FROM identity), pg_backend_pid()"
        ).fetchone()
    except driver.errors.UndefinedTable as error:
        raise missing(binding) from error
    except driver.Error as error:
        raise (explain(error, address) or missing(binding)) from error
    if registry is None:
        raise missing(binding)
    if registry != binding.registry:
        raise other(binding, registry)
    if revision not in READABLE_REVISIONS:
        raise SchemaUnsupported(
            f"{address.url} has schema {revision}, this release reads {SCHEMA_REVISION}",
            next_step="a writing command of this release brings an older schema up to date; a newer one needs a newer "
            "release",
        )
    if keep_statements(connection, process_id):
        try:
            connection.execute(f"SELECT {planning_settings(local=False)}")
        except driver.Error as error:
            raise (explain(error, address) or unreachable(error, address)) from error


def missing(binding: Binding) -> WrongDatabase:
    """Return the error that says that a folder's registry isn't in the database."""
    return WrongDatabase(
        f"the database {binding.address.url} holds no registry, and the folder belongs to registry {binding.registry}",
        allowed="the database that the folder's registry was made in, or a copy of it",
        next_step=f"restore the database from a copy, or give its address: {VARIABLE}",
    )


def other(binding: Binding, found: str) -> WrongDatabase:
    """Return the error that says that a database holds another folder's registry."""
    mine = f"belongs to registry {binding.registry}" if binding.made else "is not its folder"
    return WrongDatabase(
        f"the database {binding.address.url} holds registry {found}, and this folder {mine}",
        allowed="a registry's own folder, with its blobs, for its database",
        next_step="use that registry's folder or a copy of it (--home), or an empty database",
    )
