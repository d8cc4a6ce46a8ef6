"""Sessions on PostgreSQL: lost at any moment, kept between acts, and whose they are after a fork, signal or close."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from registry.address import parse_address
from registry.database import writing
from registry.entities import Version
from registry.errors import DatabaseRefused, DatabaseUnreachable, GateRefused, RegistryError, RegistryNotFound
from registry.gate import Policy
from registry.layout import BINDING
from registry.lookup import Lookup
from registry.postgres import connect
from registry.postgres_writing import KEPT_CONNECTIONS
from registry.store import Registry

pytestmark = pytest.mark.integration


@pytest.fixture(params=["postgresql"])
def backend(request: pytest.FixtureRequest, postgres_backend: Any) -> Any:
    """These tests are about the one."""
    return postgres_backend


@pytest.fixture
def name(registry: Registry) -> str:
    """Of the registry's database."""
    address = json.loads((registry.folder / BINDING).read_text())["database"]
    return str(address.partition("?")[0].rpartition("/")[2])


@pytest.fixture
def sessions(server: Any, name: str) -> Callable[[], set[int]]:
    """The sessions on the registry's database, as the server's administrator sees them."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
    return lambda: {row[0] for row in server.execute(query, (name,))}


def act(registry: Registry) -> int:
    """Do something under the write lock; returns the session that did it."""
    with writing(registry._engine) as writer:
        return int(writer.query("SELECT pg_backend_pid()", ())[0][0])


def close_in_a_child(registry: Registry) -> None:
    child = os.fork()
    if child == 0:
        try:
            registry.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_that_closes_the_registry_ends_none_of_its_parents_sessions(
    registry: Registry, sessions: Callable[[], set[int]]
) -> None:
    kept = act(registry)
    close_in_a_child(registry)
    with writing(registry._engine) as writer:
        query = writer.query
        assert query("SELECT pg_backend_pid()", ())[0][0] == kept
        close_in_a_child(registry)
        time.sleep(0.1)
        assert query("SELECT 1", ())[0][0] == 1
    assert kept in sessions()
    assert act(registry) == kept


def test_a_signal_in_a_look_up_within_an_act_comes_out_as_it_is(registry: Registry) -> None:
    class StopError(BaseException):
        pass

    def stop(*_: object) -> None:
        raise StopError

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        timer.start()
        with pytest.raises(StopError), writing(registry._engine) as writer:
            writer.query("SELECT pg_sleep(3)", ())
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    assert act(registry)  # its lock is free, and so is the next session


def test_child_that_was_forked_in_an_act_reaches_nothing_of_it(registry: Registry) -> None:
    with writing(registry._engine) as writer:
        child = os.fork()
        if child == 0:
            try:
                writer.query("SELECT pg_backend_pid()", ())
                os._exit(0)
            except BaseException as error:
                os._exit(7 if "Error" in type(error).__name__ else 8)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert writer.query("SELECT 1", ())[0][0] == 1
    assert act(registry)


def test_child_that_was_forked_while_another_thread_waited_goes_on(registry: Registry) -> None:
    waiting = threading.Event()

    def wait() -> None:
        with writing(registry._engine) as writer:
            waiting.set()
            writer.query("SELECT pg_sleep(2)", ())

    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(wait)
        waiting.wait(20)
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            os._exit(0)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.05)
        waited.result(20)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert act(registry)


def test_error_that_is_passed_over_in_an_act_is_no_commit(registry: Registry) -> None:
    def pass_over() -> None:
        with writing(registry._engine) as writer, suppress(Exception):
            writer.query("SELECT nothing", ())

    with pytest.raises(AssertionError, match="came to nothing"):
        pass_over()
    assert act(registry)


def test_what_is_in_use_when_a_registry_is_closed_ends_with_its_act(
    registry: Registry, add_base: Callable[..., Version], sessions: Callable[[], set[int]]
) -> None:
    add_base()
    with writing(registry._engine) as writer:
        assert writer.query("SELECT 1", ())[0][0] == 1
        registry.close()
    act(registry)  # it makes a session, and ends it
    deadline = time.monotonic() + 20  # a session needs a moment to end
    while sessions():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _error_of(act: Callable[[], object]) -> RegistryError | None:
    try:
        act()
    except RegistryError as error:
        return error
    return None


@contextmanager
def _lost_at(step: int | None, server: Any) -> Iterator[None]:
    """End the writer's session from outside at one of its statements, or right before its commit."""
    import psycopg

    seen = 0
    writing: set[int] = set()
    execute, commit = psycopg.Cursor.execute, psycopg.Connection.commit

    def end(connection: Any) -> None:
        # of a pid that is gone PostgreSQL says false; a session needs a moment to end
        server.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))

    def count(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        # the store's alone, and not those of readers or of the server's administrator
        if str(query).startswith("BEGIN ISOLATION LEVEL READ COMMITTED") or "lock_timeout" in str(query):
            writing.add(id(cursor.connection))
        if id(cursor.connection) in writing:
            seen += 1
            if seen == step or (step is None and query == "COMMIT"):
                end(cursor.connection)
        return execute(cursor, query, *arguments, **options)

    def count_commit(connection: Any) -> None:
        if step is None:
            end(connection)
        commit(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", count)
        patch.setattr(psycopg.Connection, "commit", count_commit)  # of a migration
        yield


def test_connection_lost_at_any_statement_of_a_promotion_leaves_nothing(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any
) -> None:
    passing("one")
    strict = replace(policy, min_rows=10**6)
    rows = len(registry.audit())
    # begin, settings, lock, and seven reads that are asked for with it: nothing was done yet, and it is begun anew
    for step in range(1, 11):
        with _lost_at(step, server), pytest.raises(GateRefused):
            registry.promote("text2sql", "champion", policy=strict, actor="ada")
    assert [entry.action for entry in registry.audit()[rows:]] == ["refuse"] * 10
    rows += 10
    for step in range(11, 100):
        with _lost_at(step, server):
            error = _error_of(lambda: registry.promote("text2sql", "champion", policy=policy, actor="ada"))
        if error is None:
            break
        assert isinstance(error, DatabaseUnreachable)
        # of a row that is sent with the commit only the commit's answer would tell
        assert ("nothing was written" if step == 11 else "whether it was written can't be told") in str(error)
        assert (registry.aliases(), len(registry.audit())) == ([], rows)
    assert step == 16  # the alias's revision, its row, the audit's, the outbox's, and the commit
    assert len(registry.history("text2sql", "champion")) == 1
    assert registry.verify().intact


def test_connection_lost_at_the_commit_is_told_as_what_it_is(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any
) -> None:
    passing("one")
    with _lost_at(None, server):
        error = _error_of(lambda: registry.promote("text2sql", "champion", policy=policy, actor="ada"))
    assert isinstance(error, DatabaseUnreachable)
    assert "whether it was written can't be told" in str(error)
    assert "registry audit" in str(error)
    assert registry.verify().intact


def test_kept_connection_that_was_lost_is_made_anew(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any, name: str
) -> None:
    for number in range(3):
        passing(str(number))
    promote = lambda n: registry.promote(f"text2sql:v{n}", "champion", policy=policy, actor="ada")  # noqa: E731
    with ThreadPoolExecutor(3) as pool:  # so that more than one is kept
        assert sorted(change.revision for change in pool.map(promote, (1, 2, 3))) == [1, 2, 3]
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
    assert promote(1).revision == 4 - (registry.history("text2sql", "champion")[2].version == 1)
    with _lost_at(1, server):  # just as it is used again
        promote(2)
    assert registry.verify().intact


def test_connections_are_kept_and_not_taken_over_a_fork(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any, name: str
) -> None:
    pids: list[int] = []
    act = event.listens_for(registry._engine, "checkout")
    act(lambda connection, *_: pids.append(connection.info.backend_pid))
    for number in range(3):
        passing(str(number))
    assert len(pids) >= 6
    assert len(set(pids)) == 1
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: registry.record_evaluation(registry.resolve("text2sql").digest, {"n": n}), range(12)))
        readers = 7  # one a thread
        deadline = time.monotonic() + 20  # a session needs a moment to end
        while server.execute(sessions, (name,)).fetchone()[0] > KEPT_CONNECTIONS + readers:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    child = os.fork()
    if child == 0:
        try:
            revision = registry.promote("text2sql:v1", "champion", policy=policy, actor="ada").revision
            os._exit(0 if revision == 1 and pids[-1] not in pids[:-1] else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    before = len(set(pids))
    assert registry.promote("text2sql:v2", "champion", policy=policy, actor="ada").revision == 2
    assert len(set(pids)) == before, "the child closed the parent's connection"
    assert registry.verify().intact


def test_look_ups_go_on_after_the_server_ended_their_session(
    registry: Registry, add_base: Callable[..., Version], server: Any, name: str
) -> None:
    version = add_base()
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
    with Lookup(registry.folder) as lookup:
        for _ in range(2):
            server.execute(end, (name,))
            assert lookup.resolve("tiny-base") == registry.resolve("tiny-base") == version
        server.execute(end, (name,))
        assert add_base() == version  # begins with several look-ups at once
        assert add_base("other", "c" * 64, "other").version == 1
        server.execute(end, (name,))
        assert registry.verify().intact  # begins with a snapshot
        with lookup.snapshot():
            server.execute(end, (name,))
            # another session would see another state
            assert isinstance(_error_of(lambda: lookup.resolve("tiny-base")), DatabaseUnreachable)
        assert lookup.resolve("tiny-base") == version


def test_forked_process_has_its_own_connection(registry: Registry, add_base: Callable[..., Version]) -> None:
    version = add_base()
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(0 if registry.resolve("tiny-base") == version and registry.verify().intact else 1)
        _, status = os.waitpid(child, 0)
        assert os.WEXITSTATUS(status) == 0
        assert registry.resolve("tiny-base") == version


def test_closed_registry_holds_no_session(
    registry: Registry, add_base: Callable[..., Version], backend: Any, server: Any, name: str
) -> None:
    add_base()
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda _: registry.resolve("tiny-base").version, range(9))) == {1}
        registry.close()
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        deadline = time.monotonic() + 20  # a session needs a moment to end
        while server.execute(count, (name,)).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_claim_stays_where_the_commit_may_have_been_done_and_the_next_finishes_it(
    tmp_path: Path, make_database: Any, server: Any
) -> None:
    address = make_database()
    with _lost_at(None, server):
        error = _error_of(lambda: Registry.open(tmp_path / "r", database=address).close())
    assert "can't be told" in str(error)
    claim = json.loads((tmp_path / "r" / BINDING).read_text())
    assert not claim["made"]
    with Registry.open(tmp_path / "r") as registry:
        assert registry.versions() == []
    assert json.loads((tmp_path / "r" / BINDING).read_text()) == {**claim, "made": True}


def test_server_that_goes_away_while_a_registry_is_made_leaves_nothing_in_the_way(
    tmp_path: Path, make_database: Any, server: Any
) -> None:
    address = make_database()
    failures = 0
    for step in range(1, 200, 9):
        with _lost_at(step, server):
            error = _error_of(lambda: Registry.open(tmp_path / "r", database=address).close())
        if error is None:
            break
        assert isinstance(error, DatabaseUnreachable)
        failures += 1
        assert not (tmp_path / "r" / BINDING).exists()
        with pytest.raises(RegistryNotFound):
            Lookup(tmp_path / "r")
    assert failures > 3
    with Lookup(tmp_path / "r") as lookup:
        assert lookup.versions() == []


def test_server_that_is_too_old_is_refused(make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.postgres.OLDEST_SERVER", 990000)
    with pytest.raises(DatabaseRefused, match=r"is on PostgreSQL [1-9]") as caught:
        connect(parse_address(make_database()))
    assert caught.value.allowed == "PostgreSQL 99 or newer"


def test_server_that_is_silently_gone_is_noticed(make_database: Callable[..., str]) -> None:
    with connect(parse_address(make_database())) as connection:
        limits = connection.info.get_parameters()
    assert limits["tcp_user_timeout"] == "30000"  # milliseconds
    assert int(limits["keepalives_idle"]) + int(limits["keepalives_interval"]) * int(limits["keepalives_count"]) <= 120
