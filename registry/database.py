"""The database behind the store: durable, one writer at a time, migrated when it is opened. SQLite or PostgreSQL.

How either is written to, and what takes its write lock, is in `sqlite_writing.py` and `postgres_writing.py`.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from registry import sqlite_writing
from registry.binding import Binding, find_binding, put_back_binding, remembered_binding, write_binding
from registry.errors import RegistryBusy, RegistryPathError, WrongDatabase
from registry.layout import DATABASE, SCHEMA_REVISION
from registry.lookup import Statement
from registry.sqlite import no_registry
from registry.writer import Writer

__all__ = ["close_engine", "open_engine", "writing"]

BUSY_TIMEOUT_SECONDS = 30


def open_engine(
    folder: Path, *, create: bool, database: str | None = None, making: Callable[[], object] = lambda: None
) -> Engine:
    """Open a registry's database, making or migrating it where needed.

    Args:
        folder: The registry's folder.
        create: Make the folder and the database's tables if they aren't there.
        database: As in `registry.binding.find_binding`.
        making: Called before a registry is made, by one process at a time; nothing is made if it raises.

    Raises:
        RegistryNotFound: Nothing there, and `create` is False.
        RegistryPathError: The folder can't be made or written, or holds something else under the database's name.
        SchemaUnsupported: A newer release wrote it.
        WrongDatabase: The database isn't the one that the folder belongs to, or holds something else.
        DatabaseAddressInvalid, DatabaseUnreachable, DatabaseRefused, DriverMissing: The database can't be used.
    """
    binding = find_binding(folder, database)
    there = (folder / DATABASE).is_file() if binding is None else binding.made
    if not create and not there:
        raise no_registry(folder, binding)
    if binding is None:
        _make_writable(folder)
        return _open_sqlite(folder, making)
    return _open_postgres(folder, binding, database, making)


def _make_writable(folder: Path) -> None:
    path = folder / DATABASE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
            code = errno.EROFS if _is_read_only(folder) else errno.EACCES
            raise OSError(code, os.strerror(code))
    except OSError as error:
        mounted = error.errno == errno.EROFS
        raise RegistryPathError(
            f"the registry at {folder} can't be written: {error.strerror}",
            allowed="a folder on a disk that is mounted to be written"
            if mounted
            else "a folder that this user may write",
            next_step="pass another --home, or set TUNEWRIGHT_HOME"
            + ("; what only looks up works here, too" if mounted else ", or change the folder's owner or mode"),
        ) from error


def _is_read_only(folder: Path) -> bool:
    """Say whether a folder is on what is mounted to be read: whoever owns it, and whatever its mode, may not write."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _open_sqlite(folder: Path, making: Callable[[], object]) -> Engine:
    path = folder / DATABASE
    engine = sqlite_writing.make_engine(folder, BUSY_TIMEOUT_SECONDS)
    try:
        if _revision(path) != SCHEMA_REVISION:
            with _one_migration(folder):
                if _revision(path) is None:
                    making()
                _migrate(engine, f"the registry at {folder}", os.urandom(16).hex())
    except (OperationalError, sqlite3.DatabaseError) as error:
        engine.dispose()
        raise RegistryPathError(
            f"{path} can't be opened as a registry: {error}",
            allowed="a database that Tunewright made and this user may write",
            next_step="pass another --home, or restore the database from a copy",
        ) from error
    return engine


@contextmanager
def _one_migration(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / "migrate.lock", timeout=BUSY_TIMEOUT_SECONDS):
            yield
    except Timeout as error:
        raise RegistryBusy(
            f"another process has been making or migrating the registry at {folder} for {BUSY_TIMEOUT_SECONDS} s",
            next_step="run the command again",
        ) from error


def _revision(path: Path) -> str | None:
    """Read the schema's revision without Alembic, which takes 0.2 s to import."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise sqlite3.DatabaseError("it is a database of something else")
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    return None if row is None else str(row[0])


def _open_postgres(folder: Path, binding: Binding, database: str | None, making: Callable[[], object]) -> Engine:
    from registry import postgres, postgres_writing

    address = binding.address
    engine = postgres_writing.make_engine(address)
    with postgres.connect(address) as connection:
        state = postgres.read_state(connection, address)
    _make_writable(folder)  # not before: a server that can't be reached leaves no folder behind
    if binding.made and (state.revision, state.registry) == (SCHEMA_REVISION, binding.registry):
        return engine
    with _one_migration(folder):
        before = remembered_binding(folder)
        binding = find_binding(folder, database) or binding  # another process may have made it meanwhile
        commits = False

        def commit_comes() -> None:
            nonlocal commits
            commits = True

        try:
            if not binding.made:
                if state.registry is not None and state.registry != binding.registry:
                    raise postgres.other(binding, state.registry)
                if state.registry is None:
                    making()
                write_binding(folder, binding)
            _migrate(engine, address.url, binding.registry, binding, commit_comes)
        except BaseException as error:
            engine.dispose()
            if not binding.made and not commits:
                # nothing was committed, so nothing has to be finished; a claim from before stays for what it is on,
                # unless that turned out to be somebody else's
                void = isinstance(error, WrongDatabase) and before is not None and before.address == address
                with suppress(OSError, RegistryPathError):  # a claim that stays is told where it is in the way
                    put_back_binding(folder, None if void else before)
            raise
        if not binding.made:
            write_binding(folder, Binding(binding.address, binding.registry, made=True))
    return engine


def writing(engine: Engine, expected: Sequence[Statement] = ()) -> AbstractContextManager[Writer]:
    """Give a writer that holds the write lock; commits at the end, undoes everything on an error.

    Args:
        engine: Of `open_engine`.
        expected: What will be read, as far as can be told; PostgreSQL is asked for it with the lock, in one message.

    Raises:
        RegistryBusy: The write lock was held for longer than the busy timeout.
        RegistryPathError: SQLite's file can't be written: the disk is full, or fails.
        DatabaseUnreachable, DatabaseRefused: PostgreSQL's server can't be reached, went away, or refuses.
    """
    if engine.dialect.name == "postgresql":
        from registry.postgres_writing import write_on_postgres

        return write_on_postgres(engine, BUSY_TIMEOUT_SECONDS, expected)
    return sqlite_writing.write_on_sqlite(engine, BUSY_TIMEOUT_SECONDS)


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Give SQLAlchemy's connection, as migrations need it, that holds the write lock; otherwise as `writing`."""
    if engine.dialect.name == "postgresql":
        from registry.postgres_writing import lock_on_postgres

        with lock_on_postgres(engine, BUSY_TIMEOUT_SECONDS) as connection:
            yield connection
    else:
        with sqlite_writing.lock_on_sqlite(engine, BUSY_TIMEOUT_SECONDS) as connection:
            yield connection


def close_engine(engine: Engine) -> None:
    """End an engine's connections: kept ones now, one in use or made by an act after this when that act is done."""
    engine.update_execution_options(closed=True)
    engine.dispose()


def _migrate(
    engine: Engine,
    what: str,
    registry: str,
    binding: Binding | None = None,
    commit_comes: Callable[[], None] = lambda: None,
) -> None:
    """Bring the tables to the newest schema and note the registry's id, in one transaction with the write lock.

    `commit_comes` is called right before the commit: an error after that may leave it done.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with _locked(engine) as connection:
        _check_migratable(connection, config, what, binding)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        from registry.audit import now
        from registry.schema import identity

        if connection.execute(identity.select()).first() is None:
            connection.execute(identity.insert().values(id=1, registry=registry, created_at=now()))
        commit_comes()


def _check_migratable(connection: Connection, config: Any, what: str, binding: Binding | None) -> None:
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from registry.errors import SchemaUnsupported

    if binding is not None:
        from registry import postgres

        state = postgres.read_state(connection.connection.driver_connection, binding.address)
        postgres.check_makeable(state, binding)
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaUnsupported(
            f"{what} has schema {found}, this release knows up to {SCHEMA_REVISION}",
            next_step="use the release that wrote it, or a newer one",
        )
