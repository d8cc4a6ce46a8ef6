"""The memory plan: which method, micro-batch, accumulation, checkpointing and dtype fit the budget, and why the others
lost. Between the decision and finetuning; every number comes from a simulated step or a measurement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from components.errors import InputError
from components.memory.dtype_speed import DtypeSpeed, measure_dtype
from components.memory.duration import Duration
from components.memory.feature_plan import METHOD as FEATURES
from components.memory.feature_plan import FeaturePass, plan_features
from components.memory.gpus import Gpu, find_gpu
from components.memory.hardware import Budget, shared
from components.memory.kernel_plan import compiled_where_it_pays, plan_kernels, step_attention
from components.memory.plan_checks import check_devices, check_plan, check_row_positions, plan_budget, shardable
from components.memory.predicted_time import duration_on, predict_duration
from components.memory.prices import priced
from components.memory.process import ProcessOverhead, TrainingProcess, own_bytes
from components.memory.search import HEADROOM_FRACTION, Candidate, Search
from components.memory.settings import DTYPES, StepSettings
from components.memory.workload import Workload, uniform_workload
from components.memory.would_fit import Remedy, remedies
from components.models.base_config import read_config
from components.models.kernels import Choice, Rows, Wishes
from components.models.rope import RopeScaling

__all__ = ["AUTO_METHODS", "Plan", "make_plan"]

# From the best quality on; a recipe with many rows puts full finetuning first.
AUTO_METHODS = ("lora", "qlora")
NO_PRICES: Mapping[str, float] = MappingProxyType({})


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
        kernels: What computes the steps; None for a pass without gradients.
        attention: What the simulated step had for attention.
        flops_per_step: Floating-point operations of an optimizer step.
        trainable_parameters: Parameters that are trained.
        total_parameters: All parameters.
        alternatives: The others, each with its reason.
        would_fit: Where nothing fits, changes that would help.
        duration: The predicted time of the run; None where nothing fits or the device can't be known.
        price_per_hour: Price of a device for an hour, where it is known.
        gpu_prices: Prices of GPUs by name.
        gpu: The named GPU, None for the device at hand.
        devices: Devices that share each step.
        launcher_bytes: What this process holds beside those that it starts on the same memory; 0: there are none.
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
    kernels: Choice | None
    attention: str
    flops_per_step: int
    trainable_parameters: int
    total_parameters: int
    alternatives: tuple[Candidate, ...]
    would_fit: tuple[Remedy, ...]
    duration: Duration | None
    price_per_hour: float | None
    gpu_prices: Mapping[str, float]
    gpu: str | None
    devices: int
    launcher_bytes: int
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
        document = {
            "method": chosen.method,
            "dtype": chosen.dtype,
            "optimizer": chosen.optimizer,
            "devices": self.devices,
            "sharding": chosen.sharding,
            "micro_batch_size": chosen.micro_batch_size,
            "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
            "gradient_checkpointing": chosen.gradient_checkpointing,
            "rows_per_sequence": self.rows_per_sequence,
            "sequence_tokens": self.sequence_tokens,
            "peak_bytes": chosen.peak_bytes,
            "host_bytes": chosen.host_bytes,
            "budget_bytes": self.budget.budget_bytes,
            "budget_source": self.budget.source,
            # of processes that share a machine's memory; each peak and budget is that of one
            "together_bytes": self.devices * chosen.peak_bytes + self.launcher_bytes if self.launcher_bytes else None,
            "margin_bytes": self.margin_bytes,
            "headroom_fraction": HEADROOM_FRACTION,
            "fits": self.fits,
            "device": self.budget.device,
            "gpu": self.gpu,
            "breakdown": self.breakdown,
            "overhead": vars(self.overhead),
            "peak_phase": self.peak_phase,
            "peak_module": self.peak_module,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "kernels": {**self.kernels.to_dict(), "simulated_attention": self.attention} if self.kernels else None,
            "flops_per_step": self.flops_per_step,
            "bfloat16_speedup": round(self.speed.bfloat16_speedup, 3) if self.speed else None,
            "alternatives": [
                {**vars(candidate), "relative_seconds": round(candidate.relative_seconds, 3)}
                for candidate in self.alternatives
            ],
            "would_fit": [remedy.to_dict() for remedy in self.would_fit],
            "time": self.duration.to_dict() if self.duration else None,
            "seconds": round(self.seconds, 3),
        }
        return priced(document, self.price_per_hour, self.gpu_prices)


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
    optimizer: str = "auto",
    methods: tuple[str, ...] = AUTO_METHODS,
    gpu: str | None = None,
    devices: int = 1,
    sharding: str | None = None,
    together: bool = False,
    workload: Workload | None = None,
    price_per_hour: float | None = None,
    gpu_prices: Mapping[str, float] = NO_PRICES,
    budget: Budget | None = None,
    dropout: float = 0.0,
    dora: bool = False,
    bottleneck_width: int = 64,
    virtual_tokens: int = 20,
    rope_scaling: RopeScaling | None = None,
    head_pooling: str = "last",
    head_layer: int | str = "last",
    quantization_aware: str | None = None,
    teacher: Path | None = None,
    wishes: Wishes = Wishes(),  # noqa: B008 - frozen
    rows: Rows = "prefix",
    process: TrainingProcess | None = None,
) -> Plan:
    """Choose how to train within a memory budget: the best quality that fits, then the fastest.

    Args:
        base_folder: Folder of the base; only config.json and the size of its weights are read.
        method: One of `SIMULATED_METHODS`, auto for the best of `methods` that fits, or features, whose passes have no
            gradients: `micro_batch_size` is then the number of prompts in a pass.
        rank: LoRA rank.
        targets: LoRA targets.
        sequence_tokens: Tokens of the longest packed sequence.
        effective_rows: Rows behind each optimizer step.
        rows_per_sequence: Rows packed into a sequence.
        budget_bytes: Memory the run may take on each device; None to ask the machine, or the table for a named GPU.
        dtype: float32, bfloat16, float16, or auto: measured on this machine, or the named GPU's.
        optimizer: adamw, momentum, sgd, or auto: adamw, and on CUDA its 8-bit or paged form where that doesn't fit.
        methods: What auto may choose from, the best quality first.
        gpu: Name of a GPU that need not be at hand; None for this machine's device.
        devices: Devices that share each optimizer step.
        sharding: "data-parallel" or "fsdp", the way in which several do; None: the former, or where it doesn't fit the
            latter.
        together: The devices are processes that this one starts on this machine. On a CPU they share the budget, with
            this process.
        workload: The sequences of the run, for its time; by default those of one optimizer step, all of them as long as
            the longest.
        price_per_hour: Price of one device for an hour.
        gpu_prices: Prices of GPUs by name for an hour, for what would fit where nothing does.
        budget: A budget with its source and device, instead of `budget_bytes`.
        dropout: LoRA's dropout, whose masks take memory too.
        dora: Whether LoRA learns each weight's magnitude apart.
        bottleneck_width: Width of bottleneck adapters.
        virtual_tokens: Length of a soft prompt.
        rope_scaling: How the base's positions are scaled.
        head_pooling: With features: which tokens' states are taken.
        head_layer: With features: of which layer.
        quantization_aware: The integers that full finetuning trains for, int8 or int4.
        teacher: Folder of a frozen model that reads every batch too.
        wishes: What is asked of the kernels that compute a step.
        rows: What the rows of a sequence share; one row a sequence shares nothing, whatever is said.
        process: A training process that was started early, and is asked where the plan is for a CPU.

    Returns:
        The plan. `fits` is False when nothing fits; `chosen` is then the candidate that needs least.

    Raises:
        InputError: Values out of range or unknown, a base whose config can't be used or scaled, or rows longer than its
            positions.
    """
    started = time.perf_counter()
    allowed = methods if method == "auto" else (method,)
    if sharding == "fsdp" and devices > 1:
        allowed = shardable(method, allowed, optimizer, quantization_aware)
    check_plan(method, methods, dtype, optimizer, sequence_tokens, effective_rows, rows_per_sequence)
    sequences = effective_rows // rows_per_sequence
    check_devices(devices, sequences)
    if method == FEATURES and devices > 1:
        raise InputError(f"features on {devices} devices", allowed="one device", next_step="leave the devices out")
    named = find_gpu(gpu) if gpu is not None else None
    if named and dtype != "auto" and named.peak_flops(dtype) is None:
        raise InputError(
            f"{dtype} on {named.name}, which doesn't compute in it",
            allowed=", ".join(name for name in DTYPES if named.peak_flops(name)),
            next_step=f"leave the dtype out: {named.dtype} is then planned",
        )
    config = read_config(base_folder)
    check_row_positions(config, rope_scaling, workload)
    budget = budget or plan_budget(budget_bytes, gpu)
    # on a CPU it imports while this process searches; a CUDA context needs no imports to be known
    on_cpu = budget.device == "cpu"
    process = (process or TrainingProcess()) if on_cpu else None
    launcher_bytes = 0
    if together and devices > 1 and process is not None:
        process.leave()
        launcher_bytes = own_bytes()
        budget = shared(budget, devices, launcher_bytes)
    try:
        speed = measure_dtype() if dtype == "auto" and named is None else None
        chosen_dtype = speed.dtype if speed else named.dtype if named and dtype == "auto" else dtype
        if rows == "prefix" and rows_per_sequence == 1:
            rows = "alone"
        kernels = None
        if method != FEATURES:
            kernels = plan_kernels(wishes, rows, method=method, dtype=chosen_dtype, config=config, gpu=named)
        named_optimizer = "adamw" if optimizer == "auto" else optimizer
        settings = StepSettings(
            "lora",
            rank,
            targets,
            chosen_dtype,
            named_optimizer,
            virtual_tokens=virtual_tokens,
            bottleneck_width=bottleneck_width,
            dropout=dropout,
            dora=dora,
            rope_scaling=str(rope_scaling) if rope_scaling is not None else None,
            quantization_aware=quantization_aware,
            teacher=str(teacher.absolute()) if teacher is not None else None,
            attention=step_attention(kernels.kernels, rows, method, config) if kernels else "sdpa",
        )

        def search(number: int) -> Search:
            return Search(
                config=config,
                methods=allowed,
                settings=settings,
                any_optimizer=optimizer == "auto",
                sequence_tokens=sequence_tokens,
                sequences=max(1, sequences // number),
                devices=number,
                sharding=sharding,
                budget=budget,
                process=process,
                folder=base_folder,
            )

        work = workload or uniform_workload(sequences, sequence_tokens)
        if method == FEATURES:
            how = FeaturePass(head_pooling, head_layer)
            outcome, duration = plan_features(
                config, settings, how, workload=work, budget=budget, process=process, folder=base_folder, gpu=named
            )
        else:
            outcome = search(devices).run()
            duration = predict_duration(
                config,
                settings,
                outcome,
                work,
                gpu=named,
                budget=budget,
                devices=devices,
                together=together,
                sequence_tokens=sequence_tokens,
                sequences_per_step=sequences,
            )

        # beside the hooks of several processes it wasn't tried
        alone = named is None and devices == 1
        if kernels is not None and alone and outcome.chosen.fits and duration is not None:
            kernels = compiled_where_it_pays(
                kernels,
                wishes,
                rows,
                method=outcome.chosen.method,
                dtype=chosen_dtype,
                config=config,
                seconds=duration.seconds,
                spare_bytes=budget.budget_bytes - outcome.chosen.peak_bytes,
            )

        def seconds_on(other: Gpu) -> float:
            return duration_on(other, outcome, work, devices, sequence_tokens, sequences).seconds

        would_fit = (
            []
            if outcome.chosen.fits or method == FEATURES
            else remedies(
                search,
                outcome.chosen,
                methods=allowed,
                sequence_tokens=sequence_tokens,
                sequences=sequences,
                budget=budget,
                devices=devices,
                seconds=duration.seconds if duration else None,
                seconds_on=seconds_on,
            )
        )
    finally:
        if process is not None:
            process.close()
    return Plan(
        chosen=outcome.chosen,
        budget=budget,
        rows_per_sequence=1 if method == FEATURES else rows_per_sequence,
        sequence_tokens=sequence_tokens,
        breakdown=outcome.breakdown,
        overhead=outcome.overhead,
        peak_phase=outcome.simulation.peak.phase,
        peak_module=outcome.simulation.peak.module,
        speed=speed,
        kernels=kernels,
        attention=settings.attention,
        flops_per_step=outcome.simulation.flops * outcome.chosen.gradient_accumulation_steps,
        trainable_parameters=outcome.simulation.trainable_parameters,
        total_parameters=outcome.simulation.parameters,
        alternatives=outcome.alternatives,
        would_fit=tuple(would_fit),
        duration=duration if outcome.chosen.fits else None,
        price_per_hour=price_per_hour,
        gpu_prices=gpu_prices,
        gpu=gpu,
        devices=devices,
        launcher_bytes=launcher_bytes,
        seconds=time.perf_counter() - started,
    )
