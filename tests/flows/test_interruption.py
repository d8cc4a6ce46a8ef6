"""The first SIGTERM is asked for while a block runs; it is never lost, and a second one ends the block at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from flows.interruption import Terminated, raise_on_sigterm, sigterm_asked


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class StopError(Exception):
    pass


def stop_when_asked() -> None:
    with sigterm_asked() as asked:
        assert not asked()
        terminate()
        assert asked()
        raise StopError


def end_without_asking(ended: list[bool]) -> None:
    with sigterm_asked():
        terminate()
        ended.append(True)


def take_two() -> None:
    with sigterm_asked():
        terminate()
        terminate()
        pytest.fail("the second signal was lost")


def test_a_block_that_stops_for_it_raises_what_it_wants() -> None:
    with pytest.raises(StopError):
        stop_when_asked()


def test_a_block_that_ends_without_having_asked_is_followed_by_the_signal() -> None:
    ended: list[bool] = []
    with pytest.raises(Terminated):
        end_without_asking(ended)
    assert ended


def test_a_second_one_ends_the_block_at_once() -> None:
    with pytest.raises(Terminated):
        take_two()


def test_nothing_happens_without_a_signal_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_asked() as asked:
        assert not asked()
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Terminated):
        terminate()


def test_another_thread_gets_no_signals_and_is_never_asked_to_stop() -> None:
    found: list[bool] = []

    def work() -> None:
        with sigterm_asked() as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
