"""The plan's search: every method, micro-batch and checkpointing choice, estimated, ordered, and the winner verified.

Between the estimates (fast, from a few blocks) and the plan. What is returned as fitting was simulated whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.memory.estimate import PeakEstimate, PeakEstimator
from components.memory.hardware import Budget
from components.memory.process import ProcessOverhead, TrainingProcess, cuda_overhead, estimated_holes
from components.memory.simulate import Simulation, StepModel, StepSettings, StepShape

__all__ = ["HEADROOM_FRACTION", "Candidate", "Outcome", "Search"]

# The part of the budget that stays free: measured peaks differ from run to run, and a machine has other users.
HEADROOM_FRACTION = 0.05
# 4-bit layers are unpacked for each use, forward and backward.
RELATIVE_SECONDS = {"full": 1.0, "lora": 1.0, "qlora": 1.3}
LARGEST_MICRO_BATCH = 16
# Tokens at once that use half of what the arithmetic units can do: on a CPU a sequence is enough, a GPU wants more.
HALF_SPEED_TOKENS = {"cpu": 8, "cuda": 1024}
# A longer time is worth less memory only beyond this difference.
SAME_SPEED_FRACTION = 0.05


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        method: lora, qlora or full.
        dtype: dtype of frozen weights and of computation.
        micro_batch_size: Packed sequences at once.
        gradient_accumulation_steps: Micro-batches behind each optimizer step.
        gradient_checkpointing: Whether blocks are computed again in the backward pass.
        peak_bytes: Expected peak of the training process.
        relative_seconds: Expected time against the fastest candidate of the plan.
        fits: Whether the peak leaves the head-room free.
        why_not: Why it wasn't chosen; "" for the one that was.
    """

    method: str
    dtype: str
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    peak_bytes: int
    relative_seconds: float
    fits: bool
    why_not: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the search found.

    Attributes:
        chosen: The fastest that fits, or where none does the one that needs least.
        simulation: The whole simulation behind it.
        overhead: What the process takes beyond tensors.
        breakdown: The peak by category; adds up to `chosen.peak_bytes`.
        alternatives: The best of the others, each with its reason.
    """

    chosen: Candidate
    simulation: Simulation
    overhead: ProcessOverhead
    breakdown: dict[str, int]
    alternatives: tuple[Candidate, ...]


class Search:
    """Search one base under one budget.

    Args:
        config: The base's config.
        methods: Methods from the most to the least wanted.
        settings: Rank, targets, dtype and optimizer; the method in it is replaced.
        sequence_tokens: Tokens of the longest packed sequence.
        sequences: Packed sequences behind an optimizer step.
        budget: What the process may take.
        weight_files: The base's weights; only their sizes are used.
        process: Where a CPU step's allocations are replayed; None for a CUDA budget.
    """

    def __init__(
        self,
        *,
        config: Any,
        methods: tuple[str, ...],
        settings: StepSettings,
        sequence_tokens: int,
        sequences: int,
        budget: Budget,
        weight_files: list[Path],
        process: TrainingProcess | None,
    ) -> None:
        self._config = config
        self._methods = methods
        self._settings = settings
        self._tokens = sequence_tokens
        self._sequences = sequences
        self._budget = budget
        self._process = process
        self._baseline_bytes = 0
        self._file_bytes = sum(path.stat().st_size for path in weight_files)
        self._file_dtype = getattr(config, "dtype", None)
        self._limit_bytes = round(budget.budget_bytes * (1 - HEADROOM_FRACTION))
        self._estimators: dict[str, PeakEstimator] = {}
        self._whole: dict[str, StepModel] = {}

    def run(self) -> Outcome:
        """Return the fastest candidate of the most wanted method that fits, verified."""
        candidates = self._candidates()
        for place, candidate in enumerate(candidates):
            if candidate.fits:
                outcome = self._verify(candidate)
                candidates[place] = outcome.chosen
                if outcome.chosen.fits:
                    return self._with_alternatives(outcome, candidates, place)
        place = min(range(len(candidates)), key=lambda index: candidates[index].peak_bytes)
        return self._with_alternatives(self._verify(candidates[place]), candidates, place)

    def _candidates(self) -> list[Candidate]:
        sizes = [n for n in range(1, min(self._sequences, LARGEST_MICRO_BATCH) + 1) if self._sequences % n == 0]
        shapes = [
            (method, size, checkpointing)
            for method in self._methods
            for checkpointing in (False, True)
            for size in sizes
        ]
        estimates = [self._estimate(*shape) for shape in shapes]
        if self._process is not None:
            # asked after the simulations, since it imports meanwhile
            self._baseline_bytes = self._process.baseline_bytes()
        found = [self._candidate(*shape, estimate) for shape, estimate in zip(shapes, estimates, strict=True)]
        fastest = min(candidate.relative_seconds for candidate in found)
        found = [replace(c, relative_seconds=c.relative_seconds / fastest) for c in found]
        # candidates that take about the same time are ordered by memory
        return sorted(
            found,
            key=lambda c: (
                self._methods.index(c.method),
                round((c.relative_seconds - 1) / SAME_SPEED_FRACTION),
                c.peak_bytes,
            ),
        )

    def _estimate(self, method: str, size: int, checkpointing: bool) -> PeakEstimate:
        if method not in self._estimators:
            settings = replace(self._settings, method=method)
            self._estimators[method] = PeakEstimator(self._config, settings, self._tokens)
        return self._estimators[method].estimate(size, checkpointing)

    def _candidate(self, method: str, size: int, checkpointing: bool, estimate: PeakEstimate) -> Candidate:
        extra = self._estimated_overhead(method, size, checkpointing, estimate.tensor_bytes)
        steps = self._sequences // size
        busy = size * self._tokens / (size * self._tokens + HALF_SPEED_TOKENS[self._budget.device])
        peak = estimate.tensor_bytes + extra.total_bytes
        return Candidate(
            method=method,
            dtype=self._settings.dtype,
            micro_batch_size=size,
            gradient_accumulation_steps=steps,
            gradient_checkpointing=checkpointing,
            peak_bytes=peak,
            relative_seconds=estimate.flops * steps * RELATIVE_SECONDS[method] / busy,
            fits=peak <= self._limit_bytes,
        )

    def _estimated_overhead(self, method: str, size: int, checkpointing: bool, tensors: int) -> ProcessOverhead:
        if self._process is None:
            return cuda_overhead(tensors)
        estimator = self._estimators[method]
        mapped = estimator.mapped_bytes(self._file_dtype)
        outside = mapped + estimator.large_bytes(size)
        plain = estimator.estimate(size, False).tensor_bytes
        holes = estimated_holes(max(0, tensors - outside), max(0, plain - outside), checkpointing)
        return ProcessOverhead(self._baseline_bytes, holes, self._kept_mapped(mapped))

    def _kept_mapped(self, mapped_bytes: int) -> int:
        """One tensor that is read from a file's pages keeps all of the file mapped."""
        return max(0, self._file_bytes - mapped_bytes) if mapped_bytes else 0

    def _verify(self, candidate: Candidate) -> Outcome:
        method = candidate.method
        if method not in self._whole:
            self._whole[method] = StepModel(self._config, replace(self._settings, method=method))
        model = self._whole[method]
        shape = StepShape(
            candidate.micro_batch_size,
            self._tokens,
            candidate.gradient_checkpointing,
            accumulating=candidate.gradient_accumulation_steps > 1,
        )
        simulation = model.run(shape)
        tensors = simulation.peak.peak_bytes
        if self._process is None:
            extra = cuda_overhead(tensors)
        else:
            mapped = model.mapped_bytes(self._file_dtype)
            grown = self._process.replay_bytes(model.allocations(self._file_dtype))
            extra = ProcessOverhead(self._baseline_bytes, max(0, grown + mapped - tensors), self._kept_mapped(mapped))
        total = tensors + extra.total_bytes
        breakdown = dict(simulation.peak.breakdown)
        breakdown["other"] += extra.total_bytes
        chosen = replace(candidate, peak_bytes=total, fits=total <= self._limit_bytes)
        return Outcome(chosen, simulation, extra, breakdown, ())

    def _with_alternatives(self, outcome: Outcome, candidates: list[Candidate], place: int) -> Outcome:
        """Keep the best of each other method and checkpointing choice, and every micro-batch of the chosen one."""
        chosen = outcome.chosen
        kinds: dict[tuple[str, bool], list[Candidate]] = {}
        for index, candidate in enumerate(candidates):
            if index != place:
                kinds.setdefault((candidate.method, candidate.gradient_checkpointing), []).append(candidate)
        others: list[Candidate] = []
        for kind, members in kinds.items():
            if kind == (chosen.method, chosen.gradient_checkpointing):
                others += members
            else:
                # the first that fits is the fastest; where none does, the smallest comes nearest
                fitting = next((member for member in members if member.fits), None)
                others.append(fitting or min(members, key=lambda member: member.peak_bytes))
        reasons = (replace(other, why_not=self._why_not(other, chosen)) for other in others)
        return replace(outcome, alternatives=tuple(reasons))

    def _why_not(self, other: Candidate, chosen: Candidate) -> str:
        if not other.fits:
            over = other.peak_bytes - self._limit_bytes
            return f"needs {over / 2**30:.2f} GiB more than the budget leaves"
        if other.method != chosen.method:
            return f"{chosen.method} fits, and 4-bit weights cost quality and time"
        slower = other.relative_seconds / chosen.relative_seconds - 1
        if slower > SAME_SPEED_FRACTION:
            return f"takes {slower:.0%} longer"
        return f"is no faster and takes {(other.peak_bytes - chosen.peak_bytes) / 2**30:+.2f} GiB"
