"""The plan's search: ways to train within one budget, estimated, ordered by quality, then by time; the winner verified.

Between the estimates (fast, from a few blocks) and the plan. What is returned as fitting was simulated whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.finetuning.methods import METHODS
from components.memory.estimate import PeakEstimate, PeakEstimator
from components.memory.hardware import Budget
from components.memory.process import (
    CUDA_ROUNDING_FRACTION,
    ProcessOverhead,
    TrainingProcess,
    cpu_overhead,
    cuda_overhead,
    estimated_holes,
    kept_mapped_bytes,
    sharded_overhead,
)
from components.memory.reasons import SAME_SPEED_FRACTION, why_not
from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import Simulation, StepModel

__all__ = ["HEADROOM_FRACTION", "RELATIVE_SECONDS", "Candidate", "Outcome", "Search", "Variant"]

# The part of the budget that stays free: measured peaks differ from run to run, and a machine has other users.
HEADROOM_FRACTION = 0.05
# 4-bit layers are unpacked for each use, forward and backward.
RELATIVE_SECONDS = {"qlora": 1.3}
# Gathering shards before each block; paged states cross the bus when they are needed.
FSDP_RELATIVE_SECONDS = 1.15
PAGED_RELATIVE_SECONDS = 1.05
LARGEST_MICRO_BATCH = 16
NEAREST_VERIFIED = 3
# Tokens at once that use half of what the arithmetic units can do: on a CPU a sequence is enough, a GPU wants more.
HALF_SPEED_TOKENS = {"cpu": 8, "cuda": 1024}
# What takes the place of AdamW's float32 states where they don't fit; bitsandbytes has them on CUDA only.
SMALLER_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit")


@dataclass(frozen=True)
class Variant:
    """What needs a simulation of its own.

    Attributes:
        method: One of `SIMULATED_METHODS`.
        optimizer: Name as in the simulation.
        sharding: "none"; "data-parallel", each device has all weights; "fsdp", each holds a part.
    """

    method: str
    optimizer: str
    sharding: str


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        method: One of `SIMULATED_METHODS`.
        dtype: dtype of frozen weights and of computation.
        optimizer: adamw, or one with smaller or paged states.
        sharding: "none", "data-parallel" or "fsdp".
        micro_batch_size: Packed sequences at once, on each device.
        gradient_accumulation_steps: Micro-batches of a device behind each optimizer step.
        gradient_checkpointing: Whether blocks are computed again in the backward pass.
        peak_bytes: Expected peak of the training process, of each device.
        relative_seconds: Expected time against the fastest candidate of the plan.
        fits: Whether the peak leaves the head-room free.
        why_not: Why it wasn't chosen; "" for the one that was.
        host_bytes: What a paged optimizer moves to the host's memory for it to fit.
    """

    method: str
    dtype: str
    optimizer: str
    sharding: str
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    peak_bytes: int
    relative_seconds: float
    fits: bool
    why_not: str = ""
    host_bytes: int = 0

    @property
    def variant(self) -> Variant:
        """What it shares a simulated model with."""
        return Variant(self.method, self.optimizer, self.sharding)


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
        any_optimizer: Whether smaller optimizer states may be chosen where those of `settings` don't fit.
        sequence_tokens: Tokens of the longest packed sequence.
        sequences: Packed sequences behind an optimizer step, on each device.
        devices: Devices that share a step.
        sharding: "data-parallel" or "fsdp" where several devices are to work in this way; None, whichever fits.
        budget: What the process may take on each device.
        folder: The base's; only its config.json and the sizes of its weights are used.
        process: Where a CPU step is run on untouched memory; None for a CUDA budget.
    """

    def __init__(
        self,
        *,
        config: Any,
        methods: tuple[str, ...],
        settings: StepSettings,
        any_optimizer: bool,
        sequence_tokens: int,
        sequences: int,
        devices: int,
        sharding: str | None,
        budget: Budget,
        folder: Path,
        process: TrainingProcess | None,
    ) -> None:
        self._config = config
        self._methods = methods
        self._settings = settings
        self._any_optimizer = any_optimizer
        self._tokens = sequence_tokens
        self._sequences = sequences
        self._devices = devices
        self._sharding = sharding
        self._budget = budget
        self._process = process
        self._folder = folder
        self._file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        self._file_dtype = getattr(config, "dtype", None)
        self._limit_bytes = round(budget.budget_bytes * (1 - HEADROOM_FRACTION))
        self._estimators: dict[Variant, PeakEstimator] = {}
        self._whole: dict[Variant, StepModel] = {}

    def run(self) -> Outcome:
        """Return the fastest candidate of the most wanted method that fits, verified."""
        seen: list[Candidate] = []
        for number, method in enumerate(self._methods):
            for variant in self._variants(method):
                found = self._candidates(variant)
                seen += found
                for place, candidate in enumerate(found):
                    if not candidate.fits:
                        continue
                    outcome = self._verify(candidate)
                    seen[len(seen) - len(found) + place] = outcome.chosen
                    if outcome.chosen.fits:
                        # of methods that are wanted less one shape each, to be told of
                        others = [self._glance(other) for other in self._methods[number + 1 :]]
                        return self._with_alternatives(outcome, [*seen, *others])
        # estimates are off by some percent either way: of the nearest few the one that is nearest once simulated whole
        few = sorted(seen, key=lambda candidate: candidate.peak_bytes)[:NEAREST_VERIFIED]
        verified = [(candidate, self._verify(candidate)) for candidate in few]
        for candidate, found_so in verified:
            seen[seen.index(candidate)] = found_so.chosen
        outcome = min((found_so for _, found_so in verified), key=lambda found_so: found_so.chosen.peak_bytes)
        return self._with_alternatives(outcome, seen)

    def estimated(self, variant: Variant, sequence_tokens: int, size: int = 1, checkpointing: bool = True) -> Candidate:
        """Estimate one way to train; by default the one that takes least: one sequence at a time, with checkpointing.

        Args:
            variant: Method, optimizer and sharding; any that the simulation knows.
            sequence_tokens: Tokens of the longest sequence.
            size: Sequences at once.
            checkpointing: Whether blocks are computed again.

        Returns:
            The candidate; its `relative_seconds` are comparable with those of other estimates only.
        """
        estimator = PeakEstimator(self._config, self._settings_of(variant), sequence_tokens)
        checkpointing = checkpointing and METHODS[variant.method].recomputes
        return self._candidate(variant, size, checkpointing, estimator)

    def _variants(self, method: str) -> Iterator[Variant]:
        """Yield a method's variants; those that come later only matter where earlier ones don't fit."""
        asked = self._sharding if self._devices > 1 else None
        yield from (variant for variant in self._any_variants(method) if asked in (None, variant.sharding))

    def _any_variants(self, method: str) -> Iterator[Variant]:
        plain = "data-parallel" if self._devices > 1 else "none"
        optimizer = self._settings.optimizer
        yield Variant(method, optimizer, plain)
        if self._any_optimizer and self._budget.device == "cuda" and optimizer == "adamw":
            yield from (Variant(method, name, plain) for name in SMALLER_OPTIMIZERS)
        if self._devices > 1:
            yield Variant(method, optimizer, "fsdp")

    def _sizes(self) -> list[int]:
        return [n for n in range(1, min(self._sequences, LARGEST_MICRO_BATCH) + 1) if self._sequences % n == 0]

    def _candidates(self, variant: Variant) -> list[Candidate]:
        """Estimate a variant's shapes: the fastest first, those of about the same time by memory."""
        found: list[Candidate] = []
        for size in self._sizes():
            # all of these before the training process is asked, which imports meanwhile
            self._estimator(variant).estimate(size, False)
        for checkpointing in (False, True) if METHODS[variant.method].recomputes else (False,):
            if found and self._budget.device == "cpu" and any(candidate.fits for candidate in found):
                # on a CPU a larger micro-batch doesn't make up for computing blocks twice; one shape, to be told of
                found.append(self._candidate(variant, 1, checkpointing))
            else:
                found += [self._candidate(variant, size, checkpointing) for size in self._sizes()]
        fastest = min(candidate.relative_seconds for candidate in found)
        return sorted(
            found, key=lambda c: (round((c.relative_seconds / fastest - 1) / SAME_SPEED_FRACTION), c.peak_bytes)
        )

    def _glance(self, method: str) -> Candidate:
        return self._candidate(next(self._variants(method)), 1, False)

    def _settings_of(self, variant: Variant) -> StepSettings:
        return settings_of(self._settings, variant, self._budget.device, self._devices)

    def _estimator(self, variant: Variant) -> PeakEstimator:
        if variant not in self._estimators:
            self._estimators[variant] = PeakEstimator(self._config, self._settings_of(variant), self._tokens)
        return self._estimators[variant]

    def _candidate(
        self, variant: Variant, size: int, checkpointing: bool, estimator: PeakEstimator | None = None
    ) -> Candidate:
        estimator = estimator or self._estimator(variant)
        estimate = estimator.estimate(size, checkpointing)
        tensors = self._on_device(estimate.tensor_bytes, estimate.least_bytes)
        extra = self._estimated_overhead(estimator, size, checkpointing, tensors)
        peak = tensors + extra.total_bytes
        steps = self._sequences // size
        return Candidate(
            method=variant.method,
            dtype=self._settings.dtype,
            optimizer=variant.optimizer,
            sharding=variant.sharding,
            micro_batch_size=size,
            gradient_accumulation_steps=steps,
            gradient_checkpointing=checkpointing,
            peak_bytes=peak,
            relative_seconds=self._relative_seconds(variant, size, estimator.sequence_tokens, estimate) * steps,
            fits=peak <= self._limit_bytes,
            host_bytes=estimate.tensor_bytes - tensors,
        )

    def _on_device(self, tensor_bytes: int, least_bytes: int) -> int:
        """Return what stays on the device: paged states leave it as far as they must, and as far as they can."""
        if self._process is not None:
            return tensor_bytes
        context = cuda_overhead(0, beside_context=self._budget.beside_context).total_bytes
        room = int((self._limit_bytes - context) / (1 + CUDA_ROUNDING_FRACTION)) - 1
        return min(tensor_bytes, max(least_bytes, room))

    def _relative_seconds(self, variant: Variant, size: int, sequence_tokens: int, estimate: PeakEstimate) -> float:
        tokens = size * sequence_tokens
        busy = tokens / (tokens + HALF_SPEED_TOKENS[self._budget.device])
        return estimate.flops * slowdown(variant) / busy

    def _estimated_overhead(
        self, estimator: PeakEstimator, size: int, checkpointing: bool, tensors: int
    ) -> ProcessOverhead:
        if self._process is None:
            return cuda_overhead(tensors, beside_context=self._budget.beside_context)
        if estimator.settings.world_size > 1:
            unmapped = estimator.unmapped_bytes(self._file_dtype)
            return sharded_overhead(self._process, tensors, unmapped, self._file_bytes)
        mapped = estimator.mapped_bytes(self._file_dtype)
        outside = mapped + estimator.large_bytes(size)
        plain = estimator.estimate(size, False).tensor_bytes
        holes = estimated_holes(max(0, tensors - outside), max(0, plain - outside), checkpointing)
        return ProcessOverhead(self._process.baseline_bytes(), holes, kept_mapped_bytes(mapped, self._file_bytes))

    def _verify(self, candidate: Candidate) -> Outcome:
        variant = candidate.variant
        settings = self._settings_of(variant)
        shape = StepShape(
            candidate.micro_batch_size,
            self._tokens,
            candidate.gradient_checkpointing,
            accumulating=candidate.gradient_accumulation_steps > 1,
        )
        sharded = settings.world_size > 1
        if self._process is not None and not sharded:
            self._process.ask(self._folder, settings, shape)  # it runs while the same step is simulated here
        if variant not in self._whole:
            self._whole[variant] = StepModel(self._config, settings)
        model = self._whole[variant]
        simulation = model.run(shape)
        tensors = self._on_device(simulation.peak.peak_bytes, simulation.least_bytes)
        moved = simulation.peak.peak_bytes - tensors
        if self._process is None:
            extra = cuda_overhead(tensors, beside_context=self._budget.beside_context)
        elif sharded:
            # the step on untouched memory would be one of a whole model
            unmapped = model.unmapped_bytes(self._file_dtype)
            extra = sharded_overhead(self._process, tensors, unmapped, self._file_bytes)
        else:
            extra = cpu_overhead(
                self._process, simulation.peak, model.mapped_bytes(self._file_dtype), self._file_bytes, settings.dtype
            )
        total = tensors + extra.total_bytes
        breakdown = dict(simulation.peak.breakdown)
        breakdown["other"] += extra.total_bytes
        breakdown["optimizer"] -= moved
        chosen = replace(candidate, peak_bytes=total, fits=total <= self._limit_bytes, host_bytes=moved)
        return Outcome(chosen, simulation, extra, breakdown, ())

    def _with_alternatives(self, outcome: Outcome, candidates: list[Candidate]) -> Outcome:
        """Keep the best of each other kind, and every micro-batch of the chosen one; say why each lost."""
        fastest = min(candidate.relative_seconds for candidate in candidates)
        scaled = [replace(c, relative_seconds=c.relative_seconds / fastest) for c in candidates]
        chosen = scaled[candidates.index(outcome.chosen)]
        kinds: dict[tuple[Variant, bool], list[Candidate]] = {}
        for candidate in scaled:
            if candidate is not chosen:
                kinds.setdefault((candidate.variant, candidate.gradient_checkpointing), []).append(candidate)
        others: list[Candidate] = []
        for kind, members in kinds.items():
            if kind == (chosen.variant, chosen.gradient_checkpointing):
                others += members
            else:
                # the first that fits is the fastest; where none does, the smallest comes nearest
                fitting = next((member for member in members if member.fits), None)
                others.append(fitting or min(members, key=lambda member: member.peak_bytes))
        reasons = tuple(replace(other, why_not=why_not(other, chosen, self._limit_bytes)) for other in others)
        return replace(outcome, chosen=chosen, alternatives=reasons)


def slowdown(variant: Variant) -> float:
    """Return a variant's time against the same operations in plain layers on one device."""
    paged = PAGED_RELATIVE_SECONDS if variant.optimizer.startswith("paged_") else 1.0
    sharded = FSDP_RELATIVE_SECONDS if variant.sharding == "fsdp" else 1.0
    return RELATIVE_SECONDS.get(variant.method, 1.0) * paged * sharded


def settings_of(settings: StepSettings, variant: Variant, device: str, devices: int) -> StepSettings:
    """Return the simulation's settings of a variant."""
    shards = devices if variant.sharding == "fsdp" else 1
    return replace(settings, method=variant.method, optimizer=variant.optimizer, device=device, world_size=shards)
