"""How far a run is: speed, memory and time left for every step, kept with a checkpoint's history over a resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from components.finetuning.best import Measurement, measurements
from components.finetuning.schedule import Schedule

__all__ = ["FIRST_STEPS", "Progress", "ProgressWatch", "stands_still", "step_losses"]

Progress = Callable[[Mapping[str, float]], None]

# Steps after which a loss that has not moved is worth a word; their first and last third are compared.
FIRST_STEPS = 12
LEAST_FALL = 0.02


def stands_still(losses: Sequence[float]) -> str | None:
    """Say that the loss of the first steps has not moved, or None where it has.

    Args:
        losses: Of each step from the first on; only the first 12 are looked at, and fewer say nothing.
    """
    if len(losses) < FIRST_STEPS:
        return None
    third = FIRST_STEPS // 3
    before, after = median(losses[:third]), median(losses[FIRST_STEPS - third : FIRST_STEPS])
    if after < (1 - LEAST_FALL) * before:
        return None
    return (
        f"warning: the loss has not fallen by {LEAST_FALL:.0%} in the first {FIRST_STEPS} steps ({before:.3f} in their "
        f"first third, {after:.3f} in their last): the learning rate may be too low or "
        "too high, or the rows teach nothing that the base doesn't know"
    )


class ProgressWatch:
    """Turn the trainer's log into progress.

    Args:
        schedule: The run's order.
        progress: Called after each step with step, steps, loss, learning_rate, gradient_norm, tokens_per_second,
            peak_bytes, seconds_left and, once they were measured, dev_loss and dev_score; or None.
        peak_bytes: Says how large the memory in use was at most so far.

    Attributes:
        seconds: Time spent training so far, over all parts of a resumed run.
    """

    def __init__(self, schedule: Schedule, progress: Progress | None, peak_bytes: Callable[[], int]) -> None:
        self._tokens = [sum(len(s) for batch in step for s in batch) for step in schedule.steps]
        self._progress = progress
        self._peak_bytes = peak_bytes
        self._dev: dict[str, float] = {}
        self._first_step = 0
        self._seconds_before = 0.0
        self._started = self._last = time.monotonic()

    def begin(self, step: int, history: Sequence[Mapping[str, Any]]) -> None:
        """Start the clock, behind what an earlier part of the run has logged."""
        self._first_step = step
        self._seconds_before = max((entry["seconds"] for entry in history if "seconds" in entry), default=0.0)
        self.measured(measurements(history))
        self._started = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def step(self, step: int, logs: Mapping[str, float]) -> dict[str, float]:
        """Tell a step's progress.

        Args:
            step: Optimizer steps done.
            logs: The trainer's: loss, learning_rate, grad_norm.

        Returns:
            What is kept with the step's log: tokens_per_second of this step, seconds spent so far, peak_bytes.
        """
        now = time.monotonic()
        elapsed, spent, self._last = now - self._started, now - self._last, now
        speed = sum(self._tokens[self._first_step : step]) / max(elapsed, 1e-9)
        peak = self._peak_bytes()
        if self._progress is not None:
            told = {
                "step": step,
                "steps": len(self._tokens),
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "gradient_norm": logs["grad_norm"],
                "tokens_per_second": speed,
                "peak_bytes": peak,
                "seconds_left": sum(self._tokens[step:]) / speed,
            }
            self._progress(told | self._dev)
        return {
            "tokens_per_second": self._tokens[step - 1] / max(spent, 1e-9),
            "seconds": self._seconds_before + elapsed,
            "peak_bytes": peak,
        }

    def measured(self, measured: Sequence[Measurement]) -> None:
        """Note what was measured on dev rows; the last of it is told with the steps that follow."""
        for last in measured[-1:]:
            self._dev = {"dev_loss": last.loss} | ({} if last.score is None else {"dev_score": last.score})

    def tokens(self, steps: int) -> int:
        """Return the tokens that go through the model in the first steps of the run, padding not counted."""
        return sum(self._tokens[:steps])


def step_losses(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List every step of a run; those before a resume come from the checkpoint's history.

    A step in float16 whose gradient overflowed was skipped: its gradient norm is None.

    Args:
        history: The trainer's.
    """
    return [
        {
            "step": int(entry["step"]),
            "loss": entry["loss"],
            "learning_rate": entry["learning_rate"],
            "gradient_norm": entry["grad_norm"] if math.isfinite(entry["grad_norm"]) else None,
            "tokens_per_second": entry["tokens_per_second"],
            "seconds": entry["seconds"],
            "peak_bytes": int(entry["peak_bytes"]),
        }
        for entry in history
        if "loss" in entry
    ]
