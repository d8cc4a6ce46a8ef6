"""Snapshots and closing mean the same on both databases, and from whichever thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.entities import Version
from registry.errors import RegistryClosed
from registry.lookup import Lookup
from registry.store import Registry

Add = Callable[..., Version]
COUNT = "SELECT count(*) FROM evaluations"


def test_snapshot_inside_a_snapshot_is_part_of_it(registry: Registry, add_base: Add) -> None:
    version = add_base()

    def seen() -> int:
        return int(lookup.query(COUNT, ())[0][0])

    with Lookup(registry.folder) as lookup:
        with lookup.snapshot():
            assert seen() == 0
            with lookup.snapshot():
                registry.record_evaluation(version.digest, {"note": "x"})
                assert seen() == 0
            assert seen() == 0
        assert seen() == 1
        with lookup.snapshot(), pytest.raises(ZeroDivisionError), lookup.snapshot():
            _ = 1 / 0
        registry.record_evaluation(version.digest, {"note": "y"})
        assert seen() == 2


def test_closed_look_up_says_so(registry: Registry, add_base: Add) -> None:
    version = add_base()
    lookup = Lookup(registry.folder)
    assert lookup.resolve("tiny-base") == version
    lookup.close()
    lookup.close()
    for use in (lambda: lookup.resolve("tiny-base"), lambda: lookup.snapshot().__enter__()):
        with pytest.raises(RegistryClosed, match="has been closed") as caught:
            use()
        assert caught.value.next_step
    registry.close()
    with pytest.raises(RegistryClosed):
        registry.versions()


def test_closing_inside_a_snapshot_ends_it(registry: Registry, add_base: Add) -> None:
    add_base()
    lookup = Lookup(registry.folder)
    with lookup.snapshot():
        lookup.close()
        with pytest.raises(RegistryClosed):
            lookup.versions()


def test_look_up_that_another_thread_closed_is_not_opened_again(registry: Registry, add_base: Add) -> None:
    version = add_base()
    lookup = Lookup(registry.folder)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lookup.resolve, "tiny-base").result() == version
        lookup.close()
        for _ in range(2):
            with pytest.raises(RegistryClosed):
                pool.submit(lookup.resolve, "tiny-base").result()


def test_threads_come_and_go_while_it_is_closed(registry: Registry, add_base: Add) -> None:
    add_base()
    for _ in range(5):
        lookup, begun, wrong = Lookup(registry.folder), threading.Barrier(5), []

        def use(lookup: Lookup = lookup, begun: threading.Barrier = begun, wrong: list[object] = wrong) -> None:
            begun.wait()
            try:
                while True:
                    lookup.resolve("tiny-base")
            except RegistryClosed:
                return
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        lookup.close()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_forked_process_leaves_its_parents_snapshot_alone(registry: Registry, add_base: Add) -> None:
    version = add_base()
    with Lookup(registry.folder) as lookup:
        child, status = -1, 1
        try:
            with lookup.snapshot():
                assert lookup.query(COUNT, ())[0][0] == 0
                child = os.fork()
                if child == 0:
                    status = 0 if lookup.resolve("tiny-base") == version else 1
                    # and leaves the block, whose snapshot is the parent's
                else:
                    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
                    registry.record_evaluation(version.digest, {"note": "x"})
                    assert lookup.query(COUNT, ())[0][0] == 0
        finally:
            if child == 0:
                os._exit(status)
        assert lookup.query(COUNT, ())[0][0] == 1
