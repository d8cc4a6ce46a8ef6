"""The plan's kernels: chosen for the device that is planned for, tried where it is at hand. Called by plan.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from components.errors import InputError
from components.memory.gpus import Gpu
from components.memory.kernel_trial import failure
from components.models.kernels import AMPERE, Choice, Kernels, Machine, Rows, Wishes, choose_kernels, this_machine
from components.models.packed_attention import sees_all_before
from components.models.soft_prompt import SOFT_PROMPTS

__all__ = ["compiled_where_it_pays", "plan_kernels", "step_attention"]

# Measured with LoRA in float32 on a 135M base, one thread (docs/finetuning.md, Kernels): processor seconds that
# compiling took, and the part of a step's time that it saved. After four minutes they are even.
COMPILE_SECONDS, SAVED_FRACTION = 29, 0.13
MEASURED_METHOD, MEASURED_DTYPE = "lora", "float32"
# Several times as long as that, since other machines and bases are other ones.
COMPILED_FROM_SECONDS = 1800
# What the C++ compiler takes beside the training process, a fifth more than was measured.
COMPILER_BYTES = round(1.2 * 1086 * 2**20)


def plan_kernels(wishes: Wishes, rows: Rows, *, method: str, dtype: str, config: Any, gpu: Gpu | None) -> Choice:
    """Choose the kernels of a training step.

    Args:
        wishes: The recipe's.
        rows: What the rows of a sequence share.
        method: A method's name, or auto.
        dtype: dtype of computation.
        config: The base's config.
        gpu: A GPU that need not be at hand; None for this machine's device.

    Returns:
        The choice. On CUDA each was tried; with a named GPU nothing was.

    Raises:
        InputError: A wish that can't be granted.
    """
    machine = this_machine() if gpu is None else _named(gpu)
    choice = choose_kernels(wishes, machine, rows, method=method, dtype=dtype, config=config)
    if machine.device == "cpu" or gpu is not None:
        return choice
    return _tried(choice, wishes, rows, dtype, config)


def compiled_where_it_pays(
    choice: Choice,
    wishes: Wishes,
    rows: Rows,
    *,
    method: str,
    dtype: str,
    config: Any,
    seconds: float,
    spare_bytes: int,
    trial: Callable[..., str | None] = failure,
) -> Choice:
    """Compile on this machine's processor where nobody said whether to, the run is long, and memory is left for it.

    Args:
        choice: The plan's.
        wishes: The recipe's.
        rows: What the rows of a sequence share.
        method: The method that was planned.
        dtype: dtype of computation.
        config: The base's config.
        seconds: The predicted time of the run.
        spare_bytes: What the plan leaves of the budget.
        trial: `failure`, or what stands for it.

    Returns:
        The choice, with torch.compile or why not.
    """
    machine = this_machine()
    if wishes.compile != "auto" or machine.device != "cpu" or not machine.compiler:
        return choice
    compiled = False
    if (method, dtype) != (MEASURED_METHOD, MEASURED_DTYPE):
        why = f"what it gains with {method} in {dtype} was not measured: set finetune.compile to true to try it"
    elif seconds < COMPILED_FROM_SECONDS:
        why = f"it is for runs of {COMPILED_FROM_SECONDS // 60} minutes and more"
    elif spare_bytes < COMPILER_BYTES:
        why = f"the C++ compiler needs {COMPILER_BYTES / 2**30:.1f} GiB beside the plan's peak"
    else:
        found = trial(config, Kernels(compile=True), rows, dtype=dtype)
        compiled = found is None
        why = f"compile was tried, and {found}" if found is not None else (
            f"the run is long; where it was measured it saved {SAVED_FRACTION:.0%} of a step's time and took "
            f"{COMPILE_SECONDS} s"
        )  # fmt: skip
    return Choice(replace(choice.kernels, compile=compiled), {**choice.reasons, "compile": why})


def step_attention(kernels: Kernels, rows: Rows, method: str, config: Any) -> str:
    """Return what a simulated step has for attention: "alone" where each sequence is a row and no mask is laid out."""
    maskless = rows == "alone" and method not in SOFT_PROMPTS and sees_all_before(config)
    return "alone" if kernels.attention == "sdpa" and maskless else kernels.attention


def _named(gpu: Gpu) -> Machine:
    """Describe a GPU of the table: torch's CUDA builds bring Triton; bfloat16 came with the Ampere generation."""
    generation = AMPERE if gpu.bfloat16_flops else AMPERE - 1
    return Machine("cuda", True, generation, liger=importlib.util.find_spec("liger_kernel") is not None)


def _tried(choice: Choice, wishes: Wishes, rows: Rows, dtype: str, config: Any) -> Choice:
    """Leave out what fails on this device: one kernel after the other, each beside those that passed."""
    kernels, reasons = Kernels(), dict(choice.reasons)
    for name in ("attention", "liger", "compile"):
        value = getattr(choice.kernels, name)
        if value == getattr(kernels, name):
            continue
        found = failure(config, replace(kernels, **{name: value}), rows, dtype=dtype)
        if found is None:
            kernels = replace(kernels, **{name: value})
            continue
        if getattr(wishes, name) != "auto":
            raise InputError(f"finetune.{name} {str(value).lower()}: {found}", next_step=f"set finetune.{name} to auto")
        reasons[name] = f"{value if name == 'attention' else name} was tried, and {found}"
    return Choice(kernels, reasons)
