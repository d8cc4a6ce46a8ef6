"""Sessions that are kept between acts: whose they are after a fork, a signal and a close."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from registry.database import query_on, writing
from registry.entities import Version
from registry.layout import BINDING
from registry.store import Registry

pytestmark = pytest.mark.integration


@pytest.fixture(params=["postgresql"])
def backend(request: pytest.FixtureRequest, postgres_backend: Any) -> Any:
    """These tests are about the one."""
    return postgres_backend


@pytest.fixture
def sessions(postgres_server: str, registry: Registry) -> Iterator[Callable[[], set[int]]]:
    """The sessions on the registry's database, as the server's administrator sees them."""
    import psycopg

    address = json.loads((registry.folder / BINDING).read_text())["database"]
    name = address.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        yield lambda: {row[0] for row in connection.execute(query, (name,))}


def act(registry: Registry) -> int:
    """Do something under the write lock; returns the session that did it."""
    with writing(registry._engine) as connection:
        return int(query_on(connection)("SELECT pg_backend_pid()", ())[0][0])


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
    with writing(registry._engine) as connection:
        query = query_on(connection)
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
        with pytest.raises(StopError), writing(registry._engine) as connection:
            query_on(connection)("SELECT pg_sleep(3)", ())
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    assert act(registry)  # its lock is free, and so is the next session


def test_what_is_in_use_when_a_registry_is_closed_ends_with_its_act(
    registry: Registry, add_base: Callable[..., Version], sessions: Callable[[], set[int]]
) -> None:
    add_base()
    with writing(registry._engine) as connection:
        assert query_on(connection)("SELECT 1", ())[0][0] == 1
        registry.close()
    act(registry)  # it makes a session, and ends it
    deadline = time.monotonic() + 20  # a session needs a moment to end
    while sessions():
        assert time.monotonic() < deadline
        time.sleep(0.05)
