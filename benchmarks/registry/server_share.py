"""How much of an act on PostgreSQL is its server and the driver: a bound on what other code of ours could save."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from registry.postgres import PostgresReader
from registry.postgres_session import Session

__all__ = ["server_share"]

# Every message of an act goes through one of these; `query` is one statement of a look-up.
_DOORS: tuple[tuple[type, str], ...] = ((Session, "exchange"), (PostgresReader, "query"), (PostgresReader, "together"))


def server_share(act: Callable[[], object], calls: int) -> dict[str, float]:
    """Return the medians, in seconds, of an act and of what of it is spent between asking the driver and its answer.

    Args:
        act: What writes to a registry on PostgreSQL, in this thread.
        calls: How often it is done.
    """
    whole, inside = [], []
    with _timed() as spent:
        for _ in range(calls):
            before, began = spent[0], time.perf_counter()
            act()
            whole.append(time.perf_counter() - began)
            inside.append(spent[0] - before)
    return {"seconds": statistics.median(whole), "server_seconds": statistics.median(inside)}


@contextmanager
def _timed() -> Iterator[list[float]]:
    spent = [0.0]
    plain = [(door, name, getattr(door, name)) for door, name in _DOORS]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[0] += time.perf_counter() - began

        return call

    for door, name, method in plain:
        setattr(door, name, timed(method))
    try:
        yield spent
    finally:
        for door, name, method in plain:
            setattr(door, name, method)
