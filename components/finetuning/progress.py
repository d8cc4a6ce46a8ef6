"""How far a run is: tokens/s and time left for every step, kept with the checkpoint's own history over a resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from components.finetuning.schedule import Schedule

__all__ = ["FIRST_STEPS", "Progress", "ProgressWatch", "stands_still"]

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
        f"warning: the loss has not fallen in the first {FIRST_STEPS} steps ({before:.3f} to {after:.3f}): the "
        "learning rate may be too low or too high, or the rows teach nothing that the base doesn't know"
    )


class ProgressWatch:
    """Turn the trainer's log into progress.

    Args:
        schedule: The run's order.
        progress: Called after each step with step, steps, loss, tokens_per_second, seconds_left; or None.

    Attributes:
        seconds: Time spent training so far, over all parts of a resumed run.
    """

    def __init__(self, schedule: Schedule, progress: Progress | None) -> None:
        self._tokens = [sum(len(s) for batch in step for s in batch) for step in schedule.steps]
        self._progress = progress
        self._first_step = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def begin(self, step: int, history: Sequence[Mapping[str, Any]]) -> None:
        """Start the clock, behind what an earlier part of the run has logged."""
        self._first_step = step
        self._seconds_before = max((entry["seconds"] for entry in history if "seconds" in entry), default=0.0)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def step(self, step: int, loss: float) -> float:
        """Tell a step's progress.

        Returns:
            Seconds spent so far, to be kept with the step's log.
        """
        elapsed = time.monotonic() - self._started
        speed = sum(self._tokens[self._first_step : step]) / max(elapsed, 1e-9)
        if self._progress is not None:
            self._progress(
                {
                    "step": step,
                    "steps": len(self._tokens),
                    "loss": loss,
                    "tokens_per_second": speed,
                    "seconds_left": sum(self._tokens[step:]) / speed,
                }
            )
        return self._seconds_before + elapsed

    def losses(self, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """List every step of the run; those before a resume come from the checkpoint's history.

        A step in float16 whose gradient overflowed was skipped: its gradient norm is None.
        """
        found: list[dict[str, Any]] = []
        for entry in history:
            if "loss" not in entry:
                continue
            step = int(entry["step"])
            spent = entry["seconds"] - (found[-1]["seconds"] if found else 0.0)
            found.append(
                {
                    "step": step,
                    "loss": entry["loss"],
                    "learning_rate": entry["learning_rate"],
                    "gradient_norm": entry["grad_norm"] if math.isfinite(entry["grad_norm"]) else None,
                    "tokens_per_second": self._tokens[step - 1] / max(spent, 1e-9),
                    "seconds": entry["seconds"],
                }
            )
        return found
