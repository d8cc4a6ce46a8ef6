"""Connections that acts on SQLite keep between them: few, whole, and of one process."""

from __future__ import annotations

import os
import sqlite3
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from registry.audit import now
from registry.database import writing
from registry.layout import DATABASE
from registry.promotion import emit
from registry.sqlite_writing import _KEPT_CONNECTIONS, _Kept
from registry.store import Registry

SOON = 30.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path) as registry:
        yield registry


def _write(registry: Registry) -> None:
    with writing(registry._engine) as writer:
        emit(writer, now(), "test", "{}")


def _kept(registry: Registry) -> _Kept:
    kept = registry._engine.get_execution_options()["kept"]
    assert isinstance(kept, _Kept)
    return kept


def _open_files(folder: Path) -> int:
    links = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one by which they are listed
            links.append(str(number.readlink()))
    return sum(link.startswith(str(folder / DATABASE)) for link in links)


def test_acts_one_after_the_other_share_a_connection(registry: Registry) -> None:
    _write(registry)
    (connection,) = _kept(registry)._idle
    _write(registry)
    with pytest.raises(ZeroDivisionError), writing(registry._engine):
        raise ZeroDivisionError
    assert _kept(registry)._idle == [connection]
    assert len(registry.outbox()) == 2


def test_storm_of_writers_leaves_few_connections(registry: Registry) -> None:
    errors: list[BaseException] = []

    def act() -> None:
        try:
            _write(registry)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=act) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert errors == []
    assert len(registry.outbox()) == 60
    assert 1 <= len(_kept(registry)._idle) <= _KEPT_CONNECTIONS


def test_connection_that_cannot_undo_is_not_used_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry import sqlite_writing

    class Stubborn(sqlite_writing._Connection):
        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            if sql in ("COMMIT", "ROLLBACK"):
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *given)

    monkeypatch.setattr(sqlite_writing, "_Connection", Stubborn)
    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        _write(registry)
    assert _kept(registry)._idle == []
    monkeypatch.undo()
    assert registry.outbox() == []
    _write(registry)  # nothing holds the lock


@pytest.mark.parametrize("opens", ["its parent's", "its own"])
def test_commits_of_a_forked_process_outlive_its_parents_connections(tmp_path: Path, opens: str) -> None:
    registry = Registry.open(tmp_path)
    _write(registry)
    assert registry.outbox()
    (from_child, to_parent), (from_parent, to_child) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            mine = registry if opens == "its parent's" else Registry.open(tmp_path)
            _write(mine)
            os.write(to_parent, b"1")
            os.read(from_parent, 1)
            _write(mine)
            assert len(mine.outbox()) == 4
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.read(from_child, 1)
    _write(registry)
    registry.close()  # its last connection: the log would be folded away under the child's
    os.write(to_child, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (from_child, to_parent, from_parent, to_child):
        os.close(end)
    with Registry.open(tmp_path) as again:
        assert len(again.outbox()) == 4
        assert again.verify().intact


def test_a_fork_leaves_a_snapshot_and_what_is_looked_up_after_it(registry: Registry) -> None:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    _write(registry)
    with registry._lookup.snapshot():
        assert len(registry.outbox()) == 1
        fork()
        with Registry.open(registry.folder) as other:
            _write(other)
        assert len(registry.outbox()) == 1
    assert len(registry.outbox()) == 2
    fork()
    assert len(registry.outbox()) == 2


@pytest.mark.parametrize("closed", ["before", "meanwhile"])
def test_closed_registry_leaves_no_file_open(tmp_path: Path, closed: str) -> None:
    assert _open_files(tmp_path) == 0
    registry = Registry.open(tmp_path)
    _write(registry)
    assert _open_files(tmp_path) > 0
    if closed == "meanwhile":
        with writing(registry._engine) as writer:
            registry.close()
            emit(writer, now(), "test", "{}")
    else:
        registry.close()
        _write(registry)
    assert _open_files(tmp_path) == 0
    with Registry.open(tmp_path) as again:
        assert len(again.outbox()) == 2
