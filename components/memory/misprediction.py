"""The plan against what was measured: peak and time of a run, kept in the version's manifest. A plan that was wrong by
more than a tenth asks for a report, since it is wrong for others too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["TOLERANCE", "compare_peak", "compare_time", "report_request"]

TOLERANCE = 0.1
GIB = 2**30


def compare_peak(plan: Mapping[str, Any], measured_bytes: int, splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Hold the planned peak against the measured one.

    Args:
        plan: The plan's document.
        measured_bytes: Largest resident memory of the process, or on CUDA the most that was allocated for tensors.
        splits: What the run changed when memory ran out.

    Returns:
        `predicted_bytes`, `measured_bytes`, `ratio` (measured over predicted), `mispredicted`.
    """
    predicted = plan["peak_bytes"]
    if plan["device"] == "cuda":
        # context and rounding aren't in what the allocator counts
        predicted -= plan["overhead"]["baseline_bytes"] + plan["overhead"]["allocator_bytes"]
    ratio = measured_bytes / predicted
    return {
        "predicted_bytes": predicted,
        "measured_bytes": measured_bytes,
        "ratio": round(ratio, 4),
        # memory that ran out is the worst misprediction, whatever the smaller batch then took
        "mispredicted": bool(splits) or abs(ratio - 1) > TOLERANCE,
    }


def compare_time(plan: Mapping[str, Any], measured_seconds: float) -> dict[str, Any] | None:
    """Hold the planned time against the measured one.

    Args:
        plan: The plan's document.
        measured_seconds: Time spent training.

    Returns:
        `predicted_seconds`, `measured_seconds`, `ratio` (measured over predicted), `within` the interval that the plan
        gave; None where it gave no time.
    """
    time = plan.get("time")
    if time is None:
        return None
    return {
        "predicted_seconds": time["seconds"],
        "measured_seconds": round(measured_seconds, 3),
        "ratio": round(measured_seconds / time["seconds"], 4),
        "within": time["low_seconds"] <= measured_seconds <= time["high_seconds"],
    }


def report_request(peak: Mapping[str, Any], plan: Mapping[str, Any], splits: Sequence[Mapping[str, Any]]) -> str | None:
    """Ask for a report of a peak that was mispredicted.

    Args:
        peak: As `compare_peak` gives it.
        plan: The plan's document.
        splits: What the run changed when memory ran out.

    Returns:
        A warning that says what to include, or None when the plan held.
    """
    if not peak["mispredicted"]:
        return None
    if splits:
        what = f"memory ran out in step {splits[0]['step']}, which the plan said would fit"
    else:
        more = "more" if peak["ratio"] > 1 else "less"
        what = (
            f"the peak was {peak['measured_bytes'] / GIB:.2f} GiB, {abs(peak['ratio'] - 1):.0%} {more} than the "
            f"{peak['predicted_bytes'] / GIB:.2f} GiB that were planned"
        )
    return (
        f"warning: {what}. Please report it: the base's config.json, the recipe, the plan ({plan['method']}, "
        f"{plan['dtype']}, {plan['optimizer']}, micro-batch {plan['micro_batch_size']}, checkpointing "
        f"{plan['gradient_checkpointing']}, {plan['sequence_tokens']} tokens, {plan['device']}), the run's run.json "
        "and what `tunewright doctor` prints"
    )
