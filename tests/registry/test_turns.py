"""Writers of one SQLite file go one after another, first come, first served; the dead and stopped hold up nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry import turns
from registry.database import open_engine, writing
from registry.errors import RegistryBusy
from registry.layout import DATABASE, WRITERS
from registry.store import Registry
from registry.turns import Turns

SOON = 20.0  # for whoever needs a processor on a busy machine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / WRITERS


def _length(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        return len(turns._held(descriptor, 0, turns._END))
    finally:
        os.close(descriptor)


def _await(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until, "it did not come to this"
        time.sleep(0.002)


@pytest.fixture
def start(path: Path) -> Iterator[Callable[..., int]]:
    """Fork a writer that joins the line, does its act in its turn, and is killed at the end of the test."""
    children: list[int] = []

    def fork(act: Callable[[], object]) -> int:
        before = _length(path)
        child = os.fork()
        if child == 0:
            try:
                with Turns(path).turn(SOON):
                    act()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
        _await(lambda: _length(path) > before)
        return child

    yield fork
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def _end(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return status


def _note(path: Path, number: int) -> None:
    with path.open("ab", buffering=0) as stream:
        stream.write(bytes([number]))


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_first_come_is_first_served(path: Path, tmp_path: Path, start: Callable[..., int], kind: str) -> None:
    served = tmp_path / "served"
    ends: list[Callable[[], object]] = []
    with Turns(path).turn(SOON):
        for number in range(6):
            if kind == "processes":
                child = start(lambda number=number: _note(served, number))
                ends.append(lambda child=child: _end(child))
            else:

                def work(number: int = number) -> None:
                    with Turns(path).turn(SOON):
                        _note(served, number)

                thread = threading.Thread(target=work)
                thread.start()
                _await(lambda number=number: _length(path) == number + 2)
                ends.append(thread.join)
        time.sleep(0.05)
        assert not served.exists(), "somebody went before his turn"
    for end in ends:
        end()
    assert list(served.read_bytes()) == list(range(6))
    assert _length(path) == 0


@pytest.mark.parametrize("victim", ["whose turn it is", "who waits"])
def test_killed_writer_holds_up_nobody(path: Path, start: Callable[..., int], tmp_path: Path, victim: str) -> None:
    go = tmp_path / "go"

    def hold() -> None:
        while not go.exists():
            time.sleep(0.002)

    first, second, third = start(hold), start(lambda: None), start(lambda: None)
    if victim == "whose turn it is":
        os.kill(first, signal.SIGKILL)
        assert os.WIFSIGNALED(_end(first))
        assert _end(second) == 0
    else:
        os.kill(second, signal.SIGKILL)
        assert os.WIFSIGNALED(_end(second))
        assert os.waitpid(third, os.WNOHANG) == (0, 0), "it went before the first was done"
        go.touch()
        assert _end(first) == 0
    assert _end(third) == 0


def test_line_that_does_not_move_is_left_to_the_database(
    path: Path, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "STALLED_SECONDS", 0.2)
    stopped = start(lambda: time.sleep(SOON))
    os.kill(stopped, signal.SIGSTOP)
    begun = time.monotonic()
    with Turns(path).turn(SOON):
        assert 0.2 <= time.monotonic() - begun < SOON
        assert _length(path) == 2


def test_child_that_was_forked_in_a_turn_does_not_keep_it(path: Path) -> None:
    with Turns(path).turn(SOON):
        child = os.fork()
        if child == 0:
            time.sleep(SOON)
            os._exit(0)
    try:
        assert _length(path) == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("lacks", ["locks of this kind", "room for the file", "Linux's struct flock"])
def test_where_no_place_can_be_had_the_database_alone_decides(
    path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    if lacks == "room for the file":
        path.mkdir()
    elif lacks == "locks of this kind":
        monkeypatch.delattr(fcntl, "F_OFD_GETLK")
    else:
        monkeypatch.setattr(turns, "sys", SimpleNamespace(platform="darwin"))
    opened = _open_files()
    with Turns(path).turn(SOON):
        if lacks == "Linux's struct flock":
            assert not path.exists(), "a lock was asked for in a form that this system may read otherwise"
    assert _open_files() == opened


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("at", ["joining", "waiting", "leaving", "closing"])
def test_an_error_in_the_line_does_not_end_the_act(path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    asked = {"joining": (fcntl.F_OFD_SETLK, 1), "waiting": (fcntl.F_OFD_GETLK, 3), "leaving": (fcntl.F_OFD_SETLK, 2)}
    calls: list[int] = []
    real, close = fcntl.fcntl, os.close

    def refuse(descriptor: int, command: int, lock: bytes) -> bytes:
        calls.append(command)
        if at != "closing" and (command, calls.count(command)) == asked[at]:
            raise OSError(errno.ENOLCK, "No locks available")
        return real(descriptor, command, lock)

    def refuse_to_close(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    done = []
    with Turns(path).turn(SOON):  # somebody is ahead for whoever waits
        opened = _open_files()
        monkeypatch.setattr(turns, "STALLED_SECONDS", 0.1)
        monkeypatch.setattr(fcntl, "fcntl", refuse)
        if at == "closing":
            monkeypatch.setattr(turns.os, "close", refuse_to_close)
        with Turns(path).turn(SOON):
            done.append(at)
        monkeypatch.undo()
        assert _open_files() == opened
        assert _length(path) == 1
    assert done == [at]


@pytest.mark.parametrize(("why", "soon"), [(errno.EACCES, SOON), (errno.EAGAIN, 0.2)])
def test_a_place_that_is_refused_again_and_again_is_not_asked_for_without_an_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, why: int, soon: float
) -> None:
    real = fcntl.fcntl
    last = time.monotonic() + SOON / 2

    def refuse(descriptor: int, command: int, lock: bytes) -> bytes:
        assert time.monotonic() < last, "it spins"
        if command == fcntl.F_OFD_SETLK and lock[:2] != turns._lock(fcntl.F_UNLCK, 0, 1)[:2]:
            raise OSError(why, os.strerror(why))
        return real(descriptor, command, lock)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with Turns(path).turn(soon):
        pass


@pytest.mark.parametrize("at", ["opened", "joined"])
def test_an_interrupt_between_a_place_and_its_turn_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    real = fcntl.fcntl

    def interrupt(descriptor: int, command: int, lock: bytes) -> bytes:
        answer = real(descriptor, command, lock)
        if command == (fcntl.F_OFD_SETLK if at == "joined" else fcntl.F_OFD_GETLK):
            monkeypatch.undo()
            raise KeyboardInterrupt
        return answer

    opened = _open_files()
    monkeypatch.setattr(fcntl, "fcntl", interrupt)
    with pytest.raises(KeyboardInterrupt), Turns(path).turn(SOON):
        pass
    assert _open_files() == opened
    assert _length(path) == 0


def test_writer_goes_in_turn_and_a_reader_does_not_wait(tmp_path: Path) -> None:
    line = tmp_path / WRITERS
    with Registry.open(tmp_path) as registry:
        with writing(registry._engine):
            assert _length(line) == 1
            with Registry.open(tmp_path) as another:
                assert another.versions() == []
        assert _length(line) == 0
        with pytest.raises(ZeroDivisionError), writing(registry._engine):
            raise ZeroDivisionError
        assert _length(line) == 0


@pytest.mark.parametrize("others", ["another program", "a writer in line"])
def test_write_lock_that_is_held_for_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    engine = open_engine(tmp_path, create=True)
    other = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("registry.database.BUSY_TIMEOUT_SECONDS", 0.4)
    in_line = Turns(tmp_path / WRITERS if others == "a writer in line" else tmp_path / "another")
    begun = time.monotonic()
    with in_line.turn(SOON), pytest.raises(RegistryBusy, match=r"held for 0\.4 s") as caught, writing(engine):
        pass
    assert 0.3 < time.monotonic() - begun < SOON
    assert caught.value.exit_status == 4
    assert "again" in str(caught.value)
    other.execute("ROLLBACK")
    other.close()
    with writing(engine) as writer:
        assert writer.query("SELECT count(*) FROM versions", ())[0][0] == 0
    engine.dispose()
