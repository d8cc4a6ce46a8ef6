"""What a plan refuses before anything is simulated, and the budget that it is made for. Called by plan.py."""

from __future__ import annotations

import copy
from typing import Any

from components.errors import InputError
from components.finetuning.guards import check_positions
from components.finetuning.methods import METHODS
from components.finetuning.shards import check_shardable
from components.memory.feature_plan import METHOD as FEATURES
from components.memory.hardware import Budget, detect_budget, gpu_budget
from components.memory.settings import DTYPES, OPTIMIZERS, SIMULATED_METHODS
from components.memory.workload import Workload
from components.models.rope import RopeScaling, scale_config

__all__ = ["check_devices", "check_plan", "check_row_positions", "plan_budget", "shardable"]

# A budget below this is a number that lacks its unit.
LEAST_BUDGET_BYTES = 2**20


def check_row_positions(config: Any, rope_scaling: RopeScaling | None, workload: Workload | None) -> None:
    """Refuse what training would refuse, before anything is simulated."""
    scaled = copy.deepcopy(config)
    if rope_scaling is not None:
        scale_config(scaled, rope_scaling)
    if workload is not None:
        check_positions(scaled, workload.positions)


def plan_budget(budget_bytes: int | None, gpu: str | None) -> Budget:
    """Return the budget of a plan.

    Args:
        budget_bytes: What was given; None to ask the machine, or the table for a named GPU.
        gpu: Name of a GPU that need not be at hand.

    Raises:
        InputError: Less than a model can be, or more than the GPU has.
    """
    if budget_bytes is not None and budget_bytes < LEAST_BUDGET_BYTES:
        raise InputError(
            f"a budget of {budget_bytes} bytes holds no model",
            allowed="1MiB or more",
            next_step=f"a number without a unit counts bytes; give the unit, such as {budget_bytes}GiB",
        )
    if gpu is None:
        found = detect_budget()
        return found if budget_bytes is None else Budget(budget_bytes, "given", found.device)
    found = gpu_budget(gpu)
    if budget_bytes in (None, found.budget_bytes):
        return found
    assert budget_bytes is not None
    if budget_bytes > found.budget_bytes:
        raise InputError(
            f"a budget of {budget_bytes / 2**30:.1f} GiB on {gpu}",
            allowed=f"at most its {found.budget_bytes / 2**30:.1f} GiB",
        )
    return Budget(budget_bytes, f"given, on {gpu}", "cuda")


def shardable(method: str, methods: tuple[str, ...], optimizer: str, quantization_aware: str | None) -> tuple[str, ...]:
    """Return the methods whose weights can be parted among devices.

    Raises:
        InputError: The only method, or what belongs to it, can't be.
    """
    if method != "auto":
        check_shardable(method, optimizer, quantization_aware)
        return methods
    found = tuple(name for name in methods if METHODS[name].quantization is None)
    return found or methods[:1]


def check_devices(devices: int, sequences: int) -> None:
    """Refuse devices that can't share the sequences of a step evenly.

    Raises:
        InputError: With what would be allowed.
    """
    if devices < 1 or sequences % devices:
        raise InputError(
            f"{sequences} packed sequences a step can't be shared by {devices} devices",
            allowed="a number of devices that divides the sequences behind a step",
            next_step="change the devices, or the effective rows",
        )


def check_plan(
    method: str,
    methods: tuple[str, ...],
    dtype: str,
    optimizer: str,
    sequence_tokens: int,
    effective_rows: int,
    rows_per_sequence: int,
) -> None:
    """Refuse what is unknown or out of range; the arguments are those of `make_plan`.

    Raises:
        InputError: With what was given and what is allowed.
    """
    for what, value, allowed in (
        ("method", method, ("auto", *SIMULATED_METHODS, FEATURES)),
        *(("method", name, SIMULATED_METHODS) for name in methods),
        ("dtype", dtype, ("auto", *DTYPES)),
        ("optimizer", optimizer, ("auto", *OPTIMIZERS)),
    ):
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
