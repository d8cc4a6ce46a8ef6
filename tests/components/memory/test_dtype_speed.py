"""The dtype that is fast on this device, measured."""

from __future__ import annotations

import pytest

from components.memory.dtype_speed import TIMED_SHAPES, DtypeSpeed, least_seconds, measure_dtype


def test_passes_are_queued_between_two_waits_and_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    # a clock by which each pass takes a second
    monkeypatch.setattr("time.perf_counter", lambda: float(events.count("run")))
    taken = least_seconds(lambda: events.append("run"), passes=4, synchronise=lambda: events.append("wait"), seconds=0)
    assert events == [*["run"] * 4, "wait"] * 2
    assert taken == 1.0
    assert TIMED_SHAPES["cuda"].passes > 1
    assert TIMED_SHAPES["cuda"].features >= 4096


def test_the_dtype_is_the_one_that_was_measured_faster() -> None:
    speed = measure_dtype(features=64, tokens=16, seconds=0.02)
    assert speed.seconds_float32 > 0
    assert (speed.dtype == "bfloat16") == (speed.bfloat16_speedup > 1.2)


def test_relative_time_is_against_float32() -> None:
    speed = DtypeSpeed("bfloat16", 2.0, 1.0, "cpu")
    assert speed.bfloat16_speedup == 2.0
    assert (speed.relative_seconds("float32"), speed.relative_seconds("bfloat16")) == (1.0, 0.5)
