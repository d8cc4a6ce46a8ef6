"""How an act reads and writes: on PostgreSQL in few messages, what is expected being asked for with the lock."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from registry.address import parse_address
from registry.audit import LAST
from registry.database import writing
from registry.entities import Version
from registry.gate import Policy
from registry.postgres import connect
from registry.schema import audit, outbox
from registry.store import Registry
from registry.writer import Writer

ROW = {"created_at": "t", "topic": "test", "payload": "{}"}
COUNTED = "SELECT count(*) FROM outbox", ()


@pytest.fixture
def unexpected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What acts read under the lock that they hadn't asked for with it."""
    found: list[str] = []
    query = Writer.query

    def look(writer: Writer, sql: str, parameters: Sequence[Any]) -> Any:
        if (sql, tuple(parameters)) not in {**writer._asked, **writer._answers}:
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
def test_registration_asks_for_all_with_the_lock(
    registry: Registry, add_adapter: Callable[[str], Version], unexpected: list[str]
) -> None:
    add_adapter("one")
    unexpected.clear()
    add_adapter("two")
    assert unexpected == []


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
        with pytest.raises(AttributeError):
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


@pytest.mark.integration
def test_session_of_its_own_keeps_statements_and_one_behind_a_pooler_none(
    postgres_server: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    direct = make_database()
    folder = parse_qs(urlsplit(direct).query).get("host", [""])[0]
    if not folder.startswith("/"):
        pytest.skip("the tests' server was named, and isn't on a socket")
    with _pooler(Path(folder) / ".s.PGSQL.5432", tmp_path / ".s.PGSQL.5432"):
        assert _kept_statements(direct) == ["SELECT 1"]
        assert _kept_statements(direct.replace(folder, str(tmp_path))) == []


def _kept_statements(url: str) -> list[str]:
    with connect(parse_address(url)) as connection:
        for _ in range(5):
            connection.execute("SELECT 1")
        return [row[0] for row in connection.execute("SELECT statement FROM pg_prepared_statements")]


@contextmanager
def _pooler(server: Path, at: Path) -> Iterator[None]:
    """Hand one client's bytes on, with a process id of one's own in what names the session, as poolers do."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(at))
    listening.listen()

    def serve() -> None:
        client, _ = listening.accept()
        session = socket.socket(socket.AF_UNIX)
        session.connect(str(server))
        with client, session, ThreadPoolExecutor(1) as other_way:
            other_way.submit(_hand_on, client, session, lambda data: data)
            _hand_on(session, client, _renamed)

    with listening, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        yield
        served.result(20)


def _hand_on(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]) -> None:
    while data := source.recv(65536):
        target.sendall(change(data))
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _renamed(data: bytes) -> bytes:
    """Change the process id in BackendKeyData: `K`, the message's length of 12 bytes, process id, key."""
    found = data.find(b"K" + struct.pack("!i", 12))
    return data if found < 0 else data[: found + 5] + struct.pack("!i", 123456789) + data[found + 9 :]
