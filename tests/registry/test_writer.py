"""How an act reads and writes: on PostgreSQL in few messages, what is expected being asked for with the lock."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from registry import database, postgres_session
from registry.audit import LAST
from registry.database import writing
from registry.entities import Version
from registry.errors import DatabaseUnreachable
from registry.gate import Policy
from registry.layout import BINDING
from registry.lookup import reference_statement
from registry.manifest import Manifest, Parent, describe_files
from registry.postgres_writing import _SETTINGS, WRITE_LOCK
from registry.schema import audit, outbox
from registry.store import Registry
from registry.writer import Writer
from tests.registry.wire import Wire

ROW = {"created_at": "t", "topic": "test", "payload": "{}"}
COUNTED = "SELECT count(*) FROM outbox", ()


@pytest.fixture
def unexpected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What acts read under the lock that they hadn't asked for with it."""
    found: list[str] = []
    query = Writer.query

    def look(writer: Writer, sql: str, parameters: Sequence[Any]) -> Any:
        if (sql, tuple(parameters)) not in writer._answers:
            found.append(sql)
        return query(writer, sql, parameters)

    monkeypatch.setattr(Writer, "query", look)
    return found


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_promotion_asks_for_all_with_the_lock(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, unexpected: list[str]
) -> None:
    passing("one"), passing("two")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    unexpected.clear()
    registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert unexpected == []


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("there", [False, True])
def test_registration_asks_for_all_with_the_lock(
    registry: Registry,
    add_adapter: Callable[[str], Version],
    write_files: Callable[..., dict[str, Path]],
    unexpected: list[str],
    there: bool,
) -> None:
    one = add_adapter("one")
    files = write_files("adapter one" if there else "another")
    manifest = dataclasses.replace(one.manifest, files=describe_files(files), content_key="two")
    unexpected.clear()
    two = registry.register("text2sql", manifest, files)
    assert (two.version, unexpected) == (2, [])
    assert registry.register("text2sql", manifest, files) == two
    assert registry.register("text2sql", dataclasses.replace(manifest, seed=8), files) == two  # by its content key
    three = registry.register("text2sql", dataclasses.replace(manifest, content_key="three"), files)
    assert three.id == two.id + 1, "what is there already takes no id"


def test_answers_are_asked_for_again_once_a_row_has_come_in(registry: Registry) -> None:
    with writing(registry._engine, [COUNTED, LAST]) as writer:
        before = writer.query(*COUNTED)[0][0]
        assert writer.query(*COUNTED)[0][0] == before
        chain = writer.query(*LAST)
        first = writer.insert_numbered(outbox, ROW)
        writer.insert(outbox, ROW)
        assert writer.query(*COUNTED)[0][0] == before + 2
        assert writer.query(*LAST) == chain
        assert writer.query("SELECT max(id) FROM outbox", ())[0][0] == first + 1
    with writing(registry._engine, [COUNTED]) as writer:
        writer.insert(outbox, ROW)  # before the answer was looked at
        assert writer.query(*COUNTED)[0][0] == before + 3


def test_nothing_is_written_past_the_end_of_the_transaction(registry: Registry) -> None:
    with writing(registry._engine) as writer:
        writer.insert(outbox, ROW)
    for act in (lambda: writer.insert(outbox, ROW), lambda: writer.query(*COUNTED)):
        with pytest.raises(AssertionError, match="after the end"):
            act()
    assert len(registry.outbox()) == 1


@pytest.mark.parametrize("then_read", [False, True])
def test_row_that_is_refused_takes_the_others_with_it(registry: Registry, then_read: bool) -> None:
    """On PostgreSQL it is refused with the next answer or the commit, on SQLite at once."""
    row = dict.fromkeys((column.name for column in audit.c), "x") | {"sequence": 99}

    def act() -> None:
        with writing(registry._engine) as writer:
            writer.insert(outbox, ROW)
            writer.insert(audit, row)
            writer.insert(outbox, ROW)
            if then_read:
                writer.query(*COUNTED)

    with pytest.raises(Exception, match="does not continue the chain"):
        act()
    with writing(registry._engine) as writer:
        assert writer.query(*COUNTED)[0][0] == 0
    assert registry.audit() == []


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_without_pipelines_acts_are_the_same(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(psycopg.Pipeline, "is_supported", classmethod(lambda cls: False))  # libpq before 14
    passing("one")
    assert registry.promote("text2sql:v1", "champion", policy=policy, actor="ada").revision == 1
    assert registry.verify().intact


@pytest.fixture
def on_wire(
    backend: Any, registry: Registry, passing: Callable[[str], Version], tmp_path: Path
) -> Iterator[Callable[..., Registry]]:
    """Open the registry over a wire that is listened to; `Wire.waits` counts there."""
    passing("one"), passing("two")
    address = json.loads((registry.folder / BINDING).read_text())["database"]
    folder = parse_qs(urlsplit(address).query).get("host", [""])[0]
    if not folder.startswith("/"):
        pytest.skip("the tests' server was named, and isn't on a socket")
    with ExitStack() as stack:

        def open_over(wire: Wire) -> Registry:
            stack.enter_context(wire.between(Path(folder) / ".s.PGSQL.5432", tmp_path / ".s.PGSQL.5432"))
            opened = Registry.open(registry.folder, database=address.replace(folder, str(tmp_path)))
            stack.callback(opened.close)
            return opened

        yield open_over


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_how_often_an_act_waits_for_the_server(
    on_wire: Callable[..., Registry], policy: Policy, write_files: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = on_wire(wire := Wire())
    promote = lambda n: registry.promote(f"text2sql:v{n}", "champion", policy=policy, actor="ada")  # noqa: E731
    base = registry.versions("tiny-base")[0]

    def register(number: int) -> Version:
        files = write_files(f"waits {number}")
        parents = (Parent(base.digest, "base"),)
        described = describe_files(files)
        fingerprint = base.base_fingerprint
        manifest = Manifest(kind="adapter", files=described, base_fingerprint=fingerprint, parents=parents)
        return registry.register("waits", manifest, files)

    def waits(act: Callable[[int], object]) -> int:
        for turn in range(6):  # until statements are kept: each waits once for that
            before = wire.waits
            act(1 + turn % 2 if act is promote else turn)
        return wire.waits - before

    # the lock with all that is read; the rows with their commit
    assert waits(promote) == 2
    # what is there of it with its parent, and that one's state, before the lock; the lock; the rows with their commit
    assert waits(register) == 3
    files = write_files("waits 0")
    named = dataclasses.replace(registry.resolve("waits:v1").manifest, files=describe_files(files))
    # all of its contents are there
    assert waits(lambda n: registry.register("again", dataclasses.replace(named, seed=n), files)) == 2
    assert waits(lambda n: registry.record_evaluation(base.digest, {"n": n})) == 2


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("pooler", [False, True])
def test_session_keeps_statements_unless_a_pooler_is_between(
    on_wire: Callable[..., Registry], policy: Policy, pooler: bool
) -> None:
    registry = on_wire(Wire(process_id=123456789 if pooler else None))
    for turn in range(4):
        registry.promote(f"text2sql:v{1 + turn % 2}", "champion", policy=policy, actor="ada")
        registry.resolve("text2sql@champion")
    kept = "SELECT count(*) FROM pg_prepared_statements", ()
    assert (registry._lookup.query(*kept)[0][0] > 0) is not pooler
    with writing(registry._engine) as writer:
        assert (writer.query(*kept)[0][0] > 0) is not pooler


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_statements_that_were_lost_are_asked_in_another_session_and_kept_no_more(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler that shows the server's own process id."""
    monkeypatch.setattr("registry.postgres_session._is_keeping", True)
    lose = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"  # past psycopg, which would hear of it otherwise
    passing("one"), passing("two")
    for turn in range(4):
        registry.promote(f"text2sql:v{1 + turn % 2}", "champion", policy=policy, actor="ada")
        registry.resolve("text2sql:v1")
    pooled = registry._engine.raw_connection()
    pooled.info["session"].exchange([(lose, ())])
    pooled.close()
    registry._lookup._reader()._connection.execute(lose)
    assert registry.resolve("text2sql:v1").version == 1
    assert registry.promote("text2sql:v1", "champion", policy=policy, actor="ada").revision == 5
    for _ in range(4):
        registry.resolve("text2sql:v1")
    assert registry._lookup.query("SELECT count(*) FROM pg_prepared_statements", ())[0][0] == 0
    assert registry.verify().intact


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_short_tables_are_read_by_their_indexes_since_they_become_long(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, backend: Any
) -> None:
    passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    asked = "EXPLAIN SELECT max(revision) FROM alias_events WHERE name = 'text2sql' AND alias = 'champion'"

    def plan(rows: Sequence[Sequence[Any]]) -> str:
        return "\n".join(row[0] for row in rows)

    backend.connect(registry.folder).execute("ANALYZE alias_events")
    assert "Seq Scan on alias_events" in plan(backend.connect(registry.folder).execute(asked).fetchall())
    assert "Seq Scan" not in plan(registry._lookup.query(asked, ()))
    with writing(registry._engine) as writer:
        assert "Seq Scan" not in plan(writer.query(asked, ()))
        assert writer.query("SHOW jit", ()) == [("off",)]


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_statement_that_fits_its_table_no_more_is_made_anew(registry: Registry, backend: Any) -> None:
    query = "SELECT id FROM runs", ()
    for _ in range(4):
        registry._lookup.query(*query)
    backend.connect(registry.folder).execute("ALTER TABLE runs ALTER COLUMN id TYPE bigint")
    assert registry._lookup.query(*query) == []


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("read", [False, True])
def test_writer_that_stopped_is_ended_by_the_server(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    monkeypatch.setattr("registry.postgres_writing.IDLE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("registry.postgres_writing._SETTINGS", _SETTINGS.replace("{idle}s", "200ms"))

    def act() -> None:
        with writing(registry._engine, [COUNTED]) as writer:
            writer.insert_numbered(outbox, ROW)
            writer.insert(outbox, ROW)
            if read:
                writer.query(*COUNTED)
            time.sleep(1)
            writer.query(*COUNTED)

    with pytest.raises(DatabaseUnreachable, match="nothing was written"):
        act()
    assert registry.outbox() == []


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_signal_ends_the_wait_for_the_lock(registry: Registry, backend: Any) -> None:
    class StopError(BaseException):
        pass

    def stop(*_: object) -> None:
        raise StopError

    holder = backend.connect(registry.folder)
    holder.execute("SELECT pg_advisory_lock(?)", (WRITE_LOCK,))
    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    began = time.monotonic()
    try:
        timer.start()
        with pytest.raises(StopError), writing(registry._engine, [COUNTED]):
            pass
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
        holder.execute("SELECT pg_advisory_unlock_all()")
    assert time.monotonic() - began < database.BUSY_TIMEOUT_SECONDS / 2
    with writing(registry._engine) as writer:
        assert writer.query(*COUNTED)[0][0] == 0


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_look_ups_that_fail_together_are_asked_one_by_one(
    registry: Registry,
    add_base: Callable[[], Version],
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = add_base()
    found = reference_statement("tiny-base")
    asked = registry._lookup.ahead([found, ("SELECT 1 FROM nowhere", ())])
    assert [row[3] for row in asked(*found)] == [version.digest]
    with pytest.raises(Exception, match="nowhere"):
        asked("SELECT 1 FROM nowhere", ())
    assert registry.resolve("tiny-base") == version
    # psycopg takes what stands behind the one that failed for a statement that the server keeps
    monkeypatch.setattr("registry.postgres_session._is_keeping", True)
    for _ in range(4):
        registry._lookup.ahead([("SELECT 1 FROM nowhere", ()), found])
        assert registry.resolve("tiny-base") == version
    assert postgres_session._is_keeping
    with registry._lookup.snapshot():
        assert registry._lookup.ahead([("SELECT 1 FROM nowhere", ())])(*found)[0][3] == version.digest
    # and nothing is said of a session that was lost
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname LIKE 'tunewright%'")
    assert registry._lookup.ahead([found])(*found)[0][3] == version.digest
    assert [record for record in caplog.records if record.name == "psycopg"] == []
