"""The memory plan: which method, micro-batch, accumulation, checkpointing and dtype fit the budget, and why the others
lost. Between the decision and finetuning; every number comes from a simulated step or a measurement.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory import fake_model
from components.memory.hardware import Budget, DtypeSpeed, detect_budget, measure_dtype
from components.memory.process import ProcessOverhead, TrainingProcess
from components.memory.search import HEADROOM_FRACTION, Candidate, Search
from components.memory.simulate import DTYPES, METHODS, StepSettings

__all__ = ["Plan", "make_plan"]

# From the best quality on; full finetuning is planned only when it is asked for.
AUTO_METHODS = ("lora", "qlora")


@dataclass(frozen=True)
class Plan:
    """What was chosen, or the nearest that would fit a larger budget.

    Attributes:
        chosen: The candidate.
        budget: The budget and its source.
        rows_per_sequence: Rows packed into a sequence.
        sequence_tokens: Length that was planned for.
        breakdown: Peak by category; adds up to `chosen.peak_bytes`.
        overhead: The parts of `breakdown["other"]` that are no tensors.
        peak_phase: forward, backward or step.
        peak_module: Module at work at the peak; "" is the loss or the optimizer.
        speed: The measurement behind the dtype, where there was one.
        flops_per_step: Floating-point operations of an optimizer step.
        trainable_parameters: Parameters that are trained.
        total_parameters: All parameters.
        alternatives: The others, each with its reason.
        seconds: How long planning took.
    """

    chosen: Candidate
    budget: Budget
    rows_per_sequence: int
    sequence_tokens: int
    breakdown: dict[str, int]
    overhead: ProcessOverhead
    peak_phase: str
    peak_module: str
    speed: DtypeSpeed | None
    flops_per_step: int
    trainable_parameters: int
    total_parameters: int
    alternatives: tuple[Candidate, ...]
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether the chosen candidate leaves the head-room free."""
        return self.chosen.fits

    @property
    def margin_bytes(self) -> int:
        """Budget less peak; negative when it doesn't fit."""
        return self.budget.budget_bytes - self.chosen.peak_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `plan RECIPE`; sizes in bytes."""
        chosen = self.chosen
        return {
            "method": chosen.method,
            "dtype": chosen.dtype,
            "micro_batch_size": chosen.micro_batch_size,
            "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
            "gradient_checkpointing": chosen.gradient_checkpointing,
            "rows_per_sequence": self.rows_per_sequence,
            "sequence_tokens": self.sequence_tokens,
            "peak_bytes": chosen.peak_bytes,
            "budget_bytes": self.budget.budget_bytes,
            "budget_source": self.budget.source,
            "margin_bytes": self.margin_bytes,
            "headroom_fraction": HEADROOM_FRACTION,
            "fits": self.fits,
            "device": self.budget.device,
            "breakdown": self.breakdown,
            "overhead": vars(self.overhead),
            "peak_phase": self.peak_phase,
            "peak_module": self.peak_module,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "flops_per_step": self.flops_per_step,
            "bfloat16_speedup": round(self.speed.bfloat16_speedup, 3) if self.speed else None,
            "alternatives": [
                {**vars(candidate), "relative_seconds": round(candidate.relative_seconds, 3)}
                for candidate in self.alternatives
            ],
            "seconds": round(self.seconds, 3),
        }


def make_plan(
    base_folder: Path,
    *,
    method: str,
    rank: int,
    targets: str,
    sequence_tokens: int,
    effective_rows: int,
    rows_per_sequence: int,
    budget_bytes: int | None,
    dtype: str = "auto",
    optimizer: str = "adamw",
    budget: Budget | None = None,
) -> Plan:
    """Choose the fastest way to train within a memory budget, preferring LoRA to QLoRA where both are allowed.

    Args:
        base_folder: Folder of the base; only config.json and the size of its weights are read.
        method: lora, qlora, full, or auto for lora, then qlora.
        rank: LoRA rank.
        targets: LoRA targets.
        sequence_tokens: Tokens of the longest packed sequence.
        effective_rows: Rows behind each optimizer step.
        rows_per_sequence: Rows packed into a sequence.
        budget_bytes: Memory the run may take; None to ask the machine.
        dtype: float32, bfloat16, or auto to measure both on this machine.
        optimizer: adamw, momentum or sgd.
        budget: A budget with its source and device, instead of `budget_bytes`.

    Returns:
        The plan. `fits` is False when nothing fits; `chosen` is then the candidate that needs least.

    Raises:
        InputError: Values out of range or unknown, or a base whose config can't be used.
    """
    started = time.perf_counter()
    _check(method, dtype, sequence_tokens, effective_rows, rows_per_sequence)
    config = fake_model.read_config(base_folder)
    if budget is None:
        found = detect_budget()
        budget = found if budget_bytes is None else Budget(budget_bytes, "given", found.device)
    # on a CPU it imports while this process searches; a CUDA context needs no imports to be known
    process = TrainingProcess() if budget.device == "cpu" else None
    try:
        speed = measure_dtype() if dtype == "auto" else None
        search = Search(
            config=config,
            methods=AUTO_METHODS if method == "auto" else (method,),
            settings=StepSettings("lora", rank, targets, speed.dtype if speed else dtype, optimizer),
            sequence_tokens=sequence_tokens,
            sequences=effective_rows // rows_per_sequence,
            budget=budget,
            process=process,
            weight_files=sorted(base_folder.glob("*.safetensors")),
        )
        outcome = search.run()
    finally:
        if process is not None:
            process.close()
    return Plan(
        chosen=outcome.chosen,
        budget=budget,
        rows_per_sequence=rows_per_sequence,
        sequence_tokens=sequence_tokens,
        breakdown=outcome.breakdown,
        overhead=outcome.overhead,
        peak_phase=outcome.simulation.peak.phase,
        peak_module=outcome.simulation.peak.module,
        speed=speed,
        flops_per_step=outcome.simulation.flops * outcome.chosen.gradient_accumulation_steps,
        trainable_parameters=outcome.simulation.trainable_parameters,
        total_parameters=outcome.simulation.parameters,
        alternatives=outcome.alternatives,
        seconds=time.perf_counter() - started,
    )


def _check(method: str, dtype: str, sequence_tokens: int, effective_rows: int, rows_per_sequence: int) -> None:
    for what, value, allowed in (("method", method, ("auto", *METHODS)), ("dtype", dtype, ("auto", *DTYPES))):
        if value not in allowed:
            raise InputError(f"unknown {what} {value!r}", allowed=", ".join(allowed))
    if sequence_tokens < 2:
        raise InputError(f"a sequence of {sequence_tokens} tokens", allowed="2 tokens or more")
    if effective_rows < 1 or rows_per_sequence < 1 or effective_rows % rows_per_sequence:
        raise InputError(
            f"{effective_rows} effective rows can't be made of sequences with {rows_per_sequence} rows",
            allowed="effective rows that are a multiple of the rows in a sequence",
            next_step="change finetune.effective_rows or finetune.rows_per_sequence",
        )
