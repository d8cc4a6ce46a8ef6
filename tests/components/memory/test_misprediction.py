"""A plan that was wrong by more than a tenth asks for a report; one that held doesn't."""

from __future__ import annotations

from typing import Any

import pytest

from components.memory.misprediction import compare_peak, compare_time, report_request

PLAN: dict[str, Any] = {
    "peak_bytes": 1000, "device": "cpu", "overhead": {"baseline_bytes": 300, "allocator_bytes": 100, "mapped_bytes": 0},
    "method": "lora", "dtype": "float32", "optimizer": "adamw", "micro_batch_size": 1, "gradient_checkpointing": False,
    "sequence_tokens": 64, "time": {"seconds": 100.0, "low_seconds": 80.0, "high_seconds": 120.0},
}  # fmt: skip


@pytest.mark.parametrize(("measured", "wrong"), [(1000, False), (1099, False), (901, False), (1101, True), (890, True)])
def test_more_than_a_tenth_either_way_is_a_misprediction(measured: int, wrong: bool) -> None:
    found = compare_peak(PLAN, measured, [])
    assert found["mispredicted"] is wrong
    request = report_request(found, PLAN, [])
    assert (request is not None) is wrong
    if request is not None:
        assert all(word in request for word in ("config.json", "recipe", "tunewright doctor", "lora"))
        assert ("more than" in request) is (measured > 1000)


def test_on_cuda_tensors_are_held_against_tensors() -> None:
    found = compare_peak(PLAN | {"device": "cuda"}, 600, [])
    assert (found["predicted_bytes"], found["ratio"], found["mispredicted"]) == (600, 1.0, False)


def test_memory_that_ran_out_is_a_misprediction_whatever_was_measured_then() -> None:
    splits = [{"step": 7, "micro_batch_size": 1}]
    found = compare_peak(PLAN, 1000, splits)
    assert found["mispredicted"]
    assert "ran out in step 7" in str(report_request(found, PLAN, splits))


def test_time_is_held_against_the_interval() -> None:
    assert compare_time(PLAN, 110.0) == {
        "predicted_seconds": 100.0, "measured_seconds": 110.0, "ratio": 1.1, "within": True
    }  # fmt: skip
    assert compare_time(PLAN, 130.0)["within"] is False  # type: ignore[index]
    assert compare_time(PLAN | {"time": None}, 1.0) is None
