"""What holds for all tests: servers and processes that some share, what the garbage collector walks, and that Ctrl-C
works even where the tests were started with it ignored, as a shell does with jobs in the background.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from benchmarks.postgres_server import on_server, own_server

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

    class Kept(module.FrameworksProcess):
        lent = True

        def end(self) -> None:
            self.lent = False
            if not self.is_idle:
                super().end()

    kept: list[Kept] = []

    def start() -> module.FrameworksProcess:
        free = [one for one in kept if one.is_idle and not one.lent]
        if not free:
            kept.append(Kept())
            return kept[-1]
        free[0].lent = True
        return free[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "start_frameworks", start)
        yield
    for one in kept:
        module.FrameworksProcess.end(one)


@pytest.fixture
def any_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let registries take reports of any form, as an earlier release did: those are still there."""
    monkeypatch.setattr("registry.recording.check_report", lambda _report: None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server's database `postgres`: one of $TUNEWRIGHT_TEST_POSTGRES_URL, or one of our own.

    Each worker of pytest-xdist has its own, on a socket in its own folder: a second to start, and nothing to share.
    """
    elsewhere = os.environ.get("TUNEWRIGHT_TEST_POSTGRES_URL")
    if elsewhere:
        yield elsewhere
        return
    with own_server(durable=False) as address:
        yield address


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
