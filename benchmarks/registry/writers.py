"""Processes that promote at once; in a module of its own, since they find no name in a package's main one."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.registry.contestants import ALIAS, MODEL, POLICY
from registry.store import Registry

__all__ = ["WRITERS", "p99", "promote_at_once"]

WRITERS = 8


def promote_at_once(folder: Path, seconds: float) -> dict[str, float]:
    """Promote one model's versions from several processes, each as fast as it can.

    Args:
        folder: The registry's.
        seconds: For how long.

    Returns:
        `n`, `rate` of all together, `median` and `p99` of an act, waiting included, and `passed`: how often the others
        went, at most, between two acts of one. In a line of equals that is once each, however fast the machine is.
    """
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        found = pool.starmap(_promote, [(str(folder), number, seconds) for number in range(WRITERS)])
    times = [one for part, _ in found for one in part]
    return {
        "n": len(times),
        "rate": len(times) / seconds,
        "median": statistics.median(times),
        "p99": p99(times),
        "passed": max(passed for _, passed in found),
    }


def p99(times: Sequence[float]) -> float:
    """Return the time that one in a hundred is above."""
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def _promote(folder: str, number: int, seconds: float) -> tuple[list[float], int]:
    times = []
    passed, last = 0, None
    with Registry.open(folder) as registry:
        until = time.perf_counter() + seconds
        turn = number
        while time.perf_counter() < until:
            turn += 1
            began = time.perf_counter()
            change = registry.promote(f"{MODEL}:v{1 + turn % 10}", ALIAS, policy=POLICY, actor=f"writer {number}")
            times.append(time.perf_counter() - began)
            if last is not None:  # each promotion is a revision of the one alias
                passed = max(passed, change.revision - last - change.changed)
            last = change.revision
    return times, passed
