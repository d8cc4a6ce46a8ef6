"""The time of a planned run: measured where the device is at hand, else by a GPU's datasheet. After the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from components.memory.block_probe import measure_step_speed
from components.memory.duration import Duration, assumed_duration, measured_duration, shared_duration
from components.memory.gpus import Gpu
from components.memory.hardware import Budget
from components.memory.search import Outcome, settings_of, slowdown
from components.memory.settings import StepSettings
from components.memory.workload import Workload
from components.models.base_config import read_config

__all__ = ["duration_on", "predict_duration"]

# Places between which half of a run's micro-batches lie: blocks are timed at these lengths.
QUARTILES = (0.25, 0.75)


def predict_duration(
    config: Any,
    settings: StepSettings,
    outcome: Outcome,
    workload: Workload,
    *,
    gpu: Gpu | None,
    budget: Budget,
    devices: int,
    together: bool,
    sequence_tokens: int,
    sequences_per_step: int,
) -> Duration | None:
    """Predict the time of the chosen way to train.

    Args:
        config: The base's config.
        settings: Rank, targets, dtype and teacher.
        outcome: What the search found.
        workload: The sequences of the run.
        gpu: The named GPU, None for the device at hand.
        budget: The budget, for its device.
        devices: Devices that share each step.
        together: They are processes on this machine: each has a GPU, or its part of the cores.
        sequence_tokens: Length that was simulated.
        sequences_per_step: Sequences behind each optimizer step, over all devices.

    Returns:
        The prediction, as if the chosen way fitted; None for several devices that are neither named nor here, and for
        an architecture whose blocks can't be timed.
    """
    import torch

    chosen = outcome.chosen
    if gpu is not None:
        return duration_on(gpu, outcome, workload, devices, sequence_tokens, sequences_per_step)
    if (devices > 1 and not together) or budget.device != ("cuda" if torch.cuda.is_available() else "cpu"):
        return None
    batches = list(workload.micro_batches(chosen.micro_batch_size, sequences_per_step))
    lengths = sorted(batch.tokens for batch in batches)
    probed = tuple(sorted({lengths[round(part * (len(lengths) - 1))] for part in QUARTILES}))
    labelled = round(sum(batch.labelled for batch in batches) / len(batches))
    size, step = chosen.micro_batch_size, settings_of(settings, chosen.variant, budget.device, 1)
    speed = measure_step_speed(
        config,
        step,
        sequences=size,
        lengths=probed,
        labelled=labelled,
        gradient_checkpointing=chosen.gradient_checkpointing,
    )
    taught_by = None
    if settings.teacher is not None:
        other = read_config(Path(settings.teacher))
        frozen = StepSettings("lora", dtype=chosen.dtype, device=budget.device)
        of_teacher = measure_step_speed(
            other, frozen, sequences=size, lengths=probed, labelled=labelled, gradient_checkpointing=False
        )
        taught_by = None if of_teacher is None else (of_teacher, other.num_hidden_layers)
    if speed is None or (settings.teacher is not None and taught_by is None):
        return None
    found = measured_duration(
        workload,
        speed,
        blocks=config.num_hidden_layers,
        trainable_parameters=outcome.simulation.trainable_parameters,
        micro_batch_size=size,
        sequences_per_step=sequences_per_step,
        teacher=taught_by,
    )
    if devices == 1:
        return found
    # processes on a CPU share the cores that one was timed with, and do together what it does
    share = devices if budget.device == "cuda" else 1
    alone = slowdown(replace(chosen.variant, sharding="none"))
    return shared_duration(found, slowdown(chosen.variant) / alone / share, devices)


def duration_on(
    gpu: Gpu, outcome: Outcome, workload: Workload, devices: int, sequence_tokens: int, sequences_per_step: int
) -> Duration:
    """Predict the time on a GPU that need not be at hand.

    Args:
        gpu: The GPU.
        outcome: What the search found.
        workload: The sequences of the run.
        devices: Devices that share each step.
        sequence_tokens: Length that was simulated.
        sequences_per_step: Sequences behind each optimizer step, over all devices.
    """
    chosen = outcome.chosen
    return assumed_duration(
        workload,
        gpu,
        dtype=chosen.dtype,
        flops_per_token=outcome.simulation.flops / (chosen.micro_batch_size * sequence_tokens),
        slowdown=slowdown(chosen.variant),
        sequences_per_step=sequences_per_step,
        devices=devices,
    )
