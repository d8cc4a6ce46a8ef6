"""The SQLite database behind the store: durable, one writer at a time, migrated when it is opened.

WAL lets readers go on while a writer commits; synchronous=FULL makes a commit survive a power cut; BEGIN IMMEDIATE
takes the write lock before anything is read, so that a compare-and-swap can't be overtaken.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from registry.errors import RegistryBusy, RegistryNotFound, RegistryPathError, SchemaUnsupported
from registry.layout import DATABASE, SCHEMA_REVISION

__all__ = ["open_engine", "query_on", "writing"]

BUSY_TIMEOUT_SECONDS = 30


def open_engine(folder: Path, *, create: bool) -> Engine:
    """Open a registry's database, making or migrating it where needed.

    Args:
        folder: The registry's folder.
        create: Make the folder and the database if they aren't there.

    Raises:
        RegistryNotFound: Nothing there, and `create` is False.
        RegistryPathError: The folder can't be made or written, or holds something else under the database's name.
        SchemaUnsupported: A newer release wrote it.
    """
    path = folder / DATABASE
    if not create and not path.is_file():
        raise RegistryNotFound(f"there is no registry at {folder}", next_step="tunewright run RECIPE registers a model")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise RegistryPathError(
            f"the registry at {folder} can't be written: {error.strerror}",
            allowed="a folder that this user may write",
            next_step="pass another --home, set TUNEWRIGHT_HOME, or change the folder's owner or mode",
        ) from error
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    try:
        if _revision(path) != SCHEMA_REVISION:
            _migrate(engine, folder)
    except (OperationalError, sqlite3.DatabaseError) as error:
        engine.dispose()
        raise RegistryPathError(
            f"{path} can't be opened as a registry: {error}",
            allowed="a database that Tunewright made and this user may write",
            next_step="pass another --home, or restore the database from a copy",
        ) from error
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    # None: Python's sqlite3 begins no transactions of its own, `_begin` does
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("write_lock", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection that holds the write lock; commits at the end, undoes everything on an error.

    Raises:
        RegistryBusy: Another process held the lock for longer than the busy timeout.
    """
    with engine.connect().execution_options(write_lock=True) as connection:
        try:
            transaction = connection.begin()
        except OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
            raise RegistryBusy(
                f"the registry's write lock was held for {BUSY_TIMEOUT_SECONDS} s by another process",
                next_step="run the command again",
            ) from error
        with transaction:
            yield connection


def query_on(connection: Connection) -> Any:
    """Return the look-ups' query function on a store connection, so that they see its transaction."""

    def query(sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return [tuple(row) for row in connection.exec_driver_sql(sql, tuple(parameters))]

    return query


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


def _migrate(engine: Engine, folder: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with FileLock(folder / "migrate.lock", timeout=BUSY_TIMEOUT_SECONDS):
        found = _revision(folder / DATABASE)
        if found is not None and found not in known:
            raise SchemaUnsupported(
                f"the registry at {folder} has schema {found}, this release knows up to {SCHEMA_REVISION}",
                next_step="use the release that wrote it, or a newer one",
            )
        if found != SCHEMA_REVISION:
            with writing(engine) as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
