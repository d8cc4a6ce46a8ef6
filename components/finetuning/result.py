"""What a training run leaves behind, and the error of one that was asked to stop."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TunewrightError

__all__ = ["FinetuneResult", "StoppedError"]


class StoppedError(TunewrightError):
    """Training was asked to stop, and has saved where it is.

    Attributes:
        step: Optimizer steps done.
        steps: Optimizer steps of the whole run.
        seconds: Time spent training, over all parts of the run.
        peak_bytes: Largest memory of this part.
        asked: Whether a signal asked for it.
    """

    # a chain that is cut off here is not done; that of a process which SIGTERM ends
    exit_status = 128 + signal.SIGTERM

    def __init__(self, step: int, steps: int, *, seconds: float = 0.0, peak_bytes: int = 0, asked: bool = True) -> None:
        super().__init__(
            f"stopped after step {step} of {steps}; a checkpoint of it is saved",
            next_step="run the same command again; it goes on where it stopped",
        )
        self.step, self.steps = step, steps
        self.seconds, self.peak_bytes, self.asked = seconds, peak_bytes, asked


@dataclass(frozen=True)
class FinetuneResult:
    """What a run left behind.

    Attributes:
        weights: Folder of what was trained: an adapter or a head with the digests of its base, or a whole model.
        kind: "adapter", "full", "quantized" or "head".
        steps: Optimizer steps that were done, over all parts of a resumed run.
        planned_steps: Those of the whole run, where nothing ends it early.
        ended: Why it ended, in words.
        kept_step: The step whose weights these are.
        kept_reason: Why, in words.
        rows: Rows seen, repeats counted.
        tokens: Tokens that went through the model.
        seconds: Time spent training, over all its parts when the run was resumed.
        tokens_per_second: Tokens over seconds.
        peak_bytes: Largest resident memory of this process while training.
        losses: For each step its loss, learning rate, gradient norm, tokens/s, seconds and peak memory so far; the
            norm is None where a step in float16 overflowed and was skipped.
        skipped_steps: How many those are.
        dev: For some steps the dev loss and, where dev rows were answered, the score.
        answering_seconds: Time spent on those answers, a part of `seconds`.
        resumed_from: Step of the checkpoint that the run went on from, or None.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of base and adapter.
        largest_logit_change: What training changes on a probe, at most.
        deltas: What LoRA learned matrix by matrix, and a hint for the next rank; None for other methods.
        splits: For each time that memory ran out the step, and the micro-batch, accumulation and checkpointing from
            there on; empty when the plan held.
        energy: As `EnergyWatch` counted it, from loading the base to the check of what was saved, and of this call
            alone: neither of calls that it went on from nor of features that were kept.
        head: What a head is, its epochs and seconds, and how many rows' features were computed; None for other kinds.
        kernels: What computed the steps: attention, compile, liger; None for a head.
    """

    weights: Path
    kind: str
    steps: int
    planned_steps: int
    ended: str
    kept_step: int
    kept_reason: str
    rows: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_bytes: int
    losses: list[dict[str, Any]]
    skipped_steps: int
    dev: list[dict[str, float]]
    answering_seconds: float
    resumed_from: int | None
    trainable_parameters: int
    total_parameters: int
    largest_logit_change: float
    deltas: dict[str, Any] | None
    splits: list[dict[str, Any]]
    energy: dict[str, Any]
    head: dict[str, Any] | None = None
    kernels: dict[str, Any] | None = None

    @property
    def planned_peak_bytes(self) -> int | None:
        """The peak of what the plan's is of; None where all of a head's features were there and no base was loaded."""
        return None if self.head is not None and not self.head["features_computed"] else self.peak_bytes

    @property
    def planned_seconds(self) -> float | None:
        """Seconds of what the plan's time is of; None where the run ended before its last step."""
        if self.head is not None:
            return float(self.head["features_seconds"])
        return self.seconds - self.answering_seconds if self.steps == self.planned_steps else None
