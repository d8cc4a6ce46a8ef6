"""Processes that promote at once; in a module of its own, since they find no name in a package's main one."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry.contestants import CONTESTANTS, PROMOTED

__all__ = ["WRITERS", "p99", "promote_at_once"]

WRITERS = 8
# For all of them to be there, on busy cores.
START_SECONDS = 300
_meeting: Any = None


def promote_at_once(name: str, folder: Path, database: str | None, seconds: float) -> dict[str, float | None]:
    """Promote one model's versions from several processes, each as fast as it can.

    Args:
        name: Of the contestant.
        folder: The contestant's.
        database: As the contestant was made with.
        seconds: For how long, from when all of them are ready.

    Returns:
        `n`, `rate` of all together, `median` and `p99` of an act, waiting included, `failed`: how many acts ended with
        an error, which don't count, and `passed`: how often the others went, at most, between two acts of one (None
        where there are no revisions). In a line of equals that is once each, however fast the machine is.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(WRITERS, _meet, (context.Barrier(WRITERS),)) as pool:
        each = [(name, str(folder), database, number, seconds) for number in range(WRITERS)]
        found = pool.starmap(_promote, each, chunksize=1)
    times = [one for part, _, _ in found for one in part]
    passed = [one for _, _, one in found if one is not None]
    return {
        "n": len(times),
        "rate": len(times) / seconds,
        "median": statistics.median(times),
        "p99": p99(times),
        "failed": sum(failed for _, failed, _ in found),
        "passed": max(passed) if passed else None,
    }


def p99(times: Sequence[float]) -> float:
    """Return the time that one in a hundred is above."""
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def _meet(barrier: Any) -> None:
    global _meeting
    _meeting = barrier


def _promote(
    name: str, folder: str, database: str | None, number: int, seconds: float
) -> tuple[list[float], int, int | None]:
    times: list[float] = []
    passed: int | None = None
    failed, last = 0, None
    one = CONTESTANTS[name](Path(folder), database, 0)
    try:
        one.promote_to(1 + number % PROMOTED, f"writer {number}")  # what the first one imports is not the others' time
        _meeting.wait(START_SECONDS)
        until = time.perf_counter() + seconds
        turn = number
        while time.perf_counter() < until:
            turn += 1
            began = time.perf_counter()
            try:
                told = one.promote_to(1 + turn % PROMOTED, f"writer {number}")
            except Exception as error:
                if failed == 0:
                    print(f"  {name}, writer {number}: {str(error)[:120]}", flush=True)
                failed += 1
                continue
            times.append(time.perf_counter() - began)
            if told is not None:  # each promotion is a revision of the one alias
                revision, changed = told
                if last is not None:
                    passed = max(passed or 0, revision - last - changed)
                last = revision
    finally:
        one.close()
    return times, failed, passed
