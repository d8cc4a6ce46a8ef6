"""Which kernels compute a training step: what the machine has, what suits the rows, and why. Chosen with the plan.

Attention (`packed_attention.py`), torch.compile of the decoder's blocks, and Liger's fused norms, gated layers and
rotary positions (Hsu et al. 2024, arXiv:2410.10989). What was asked for and isn't there is refused here, before time is
spent; `auto` takes what is there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.errors import InputError
from components.models.packed_attention import sees_all_before
from components.models.soft_prompt import SOFT_PROMPTS

__all__ = [
    "AMPERE",
    "Choice",
    "Kernels",
    "Machine",
    "Rows",
    "Wishes",
    "check_kernels",
    "choose_kernels",
    "this_machine",
]

# What the rows of a sequence share. "prefix": several behind one; "documents": nothing; "alone": it is one row.
Rows = Literal["prefix", "documents", "alone"]
SIXTEEN_BITS = ("bfloat16", "float16")
# The first generation of GPUs that FlashAttention's kernels are for.
AMPERE = 8


@dataclass(frozen=True)
class Kernels:
    """What computes a training step. Each gives the same numbers but for rounding.

    Attributes:
        attention: One of `packed_attention.ATTENTIONS`.
        compile: Whether torch.compile makes the passes of the decoder's blocks.
        liger: Whether Liger's kernels stand in for norms, gated layers and rotary positions.
    """

    attention: str = "sdpa"
    compile: bool = False
    liger: bool = False


@dataclass(frozen=True)
class Wishes:
    """What the recipe asks for.

    Attributes:
        attention: auto, or one of `packed_attention.ATTENTIONS`.
        compile: "auto", or whether.
        liger: "auto", or whether.
    """

    attention: str = "auto"
    compile: bool | Literal["auto"] = "auto"
    liger: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Machine:
    """What kernels can be made of.

    Attributes:
        device: cpu or cuda.
        triton: Whether torch can compile for the GPU.
        generation: Major compute capability of the GPU; 0 on a CPU.
        compiler: Whether torch can compile for the CPU: a C++ compiler.
        liger: Whether liger-kernel is installed.
    """

    device: str
    triton: bool = False
    generation: int = 0
    compiler: bool = False
    liger: bool = False


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        kernels: For the training.
        reasons: For each of its fields why, in a clause.
    """

    kernels: Kernels
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan's `kernels`."""
        return {**asdict(self.kernels), "reasons": self.reasons}


def this_machine() -> Machine:
    """Look at what is there."""
    import torch

    liger = importlib.util.find_spec("liger_kernel") is not None
    if not torch.cuda.is_available():
        return Machine("cpu", compiler=_has_cpp_compiler(), liger=liger)
    from torch.utils._triton import has_triton

    return Machine("cuda", has_triton(), torch.cuda.get_device_capability()[0], liger=liger)


def _has_cpp_compiler() -> bool:
    """Look for the compiler that torch would call, without loading what calls it."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None


def choose_kernels(wishes: Wishes, machine: Machine, rows: Rows, *, method: str, dtype: str, config: Any) -> Choice:
    """Choose what computes a training step.

    Args:
        wishes: The recipe's.
        machine: What is there.
        rows: What the rows of a sequence share.
        method: A method's name, or auto.
        dtype: dtype of computation.
        config: The base's config.

    Returns:
        Kernels, with a reason for each.

    Raises:
        InputError: A wish that can't be granted, with what would have to be there.
    """
    flex, flash = _against_flex(machine, method, config), _against_flash(machine, rows, method, dtype, config)
    attention, why = _attention(wishes.attention, machine, rows, flex, flash)
    compiled, compiled_why = _compile(wishes.compile, machine)
    liger, liger_why = _liger(wishes.liger, machine, config)
    return Choice(Kernels(attention, compiled, liger), {"attention": why, "compile": compiled_why, "liger": liger_why})


def check_kernels(kernels: Kernels, machine: Machine) -> None:
    """Refuse kernels that this machine hasn't, such as those of a plan for another one.

    Raises:
        InputError: With what isn't there.
    """
    if kernels.attention != "sdpa" and machine.device == "cpu":
        raise _refused("attention", kernels.attention, "this machine has no CUDA GPU", "sdpa")
    if kernels.compile:
        _compile(True, machine)
    if kernels.liger:
        _liger(True, machine, None)


def _attention(
    wish: str, machine: Machine, rows: Rows, flex: tuple[str, str] | None, flash: tuple[str, str] | None
) -> tuple[str, str]:
    for name, against in (("flex", flex), ("flash", flash)):
        if wish == name and against is not None:
            raise _refused("attention", name, *against)
    if wish != "auto":
        return wish, "as asked for"
    if machine.device == "cpu":
        return "sdpa", "the only one of these kernels with a backward pass on a processor"
    if rows != "prefix" and flash is None:
        return "flash", "no rows share a prefix, so that each is computed by itself, without a mask"
    if rows == "alone":
        return "sdpa", f"rows alone need no mask, so that it is torch's fastest for this GPU ({_said(flash)})"
    if flex is None:
        return "flex", "blocks that the packed rows' mask hides are passed over, and no mask is laid out"
    return "sdpa", _said(flex)


def _said(against: tuple[str, str] | None) -> str:
    return against[0] if against is not None else ""


def _against_packed(method: str, config: Any) -> tuple[str, str] | None:
    """Return why neither flex nor flash can be used, and what to set instead."""
    if method in SOFT_PROMPTS:
        return f"{method} lays virtual tokens before a mask", "sdpa"
    if not sees_all_before(config):
        return f"layers of {config.model_type} see a window of tokens", "sdpa"
    dropout = getattr(config.get_text_config(), "attention_dropout", 0.0)
    if dropout:
        return f"the base's attention_dropout {dropout:g} is beyond these kernels, which would leave it out", "sdpa"
    return None


def _against_flex(machine: Machine, method: str, config: Any) -> tuple[str, str] | None:
    if machine.device == "cpu":
        return "FlexAttention has no backward pass on processors", "sdpa"
    if not machine.triton:
        return "FlexAttention is compiled by Triton, which torch doesn't find", "sdpa, or install triton"
    return _against_packed(method, config)


def _against_flash(machine: Machine, rows: Rows, method: str, dtype: str, config: Any) -> tuple[str, str] | None:
    if machine.device == "cpu":
        return "FlashAttention's kernels are for CUDA GPUs", "sdpa"
    if machine.generation < AMPERE:
        return f"FlashAttention's kernels are for compute capability {AMPERE}.0 and later", "sdpa"
    if dtype not in SIXTEEN_BITS:
        return f"FlashAttention computes in 16 bits, and the dtype is {dtype}", "sdpa, or memory.dtype bfloat16"
    if rows == "prefix":
        return "it can't show one prefix to several rows", "flex, or finetune.rows_per_sequence to 1"
    return _against_packed(method, config)


def _compile(wish: bool | str, machine: Machine) -> tuple[bool, str]:
    if wish is True:
        if machine.device == "cuda" and not machine.triton:
            raise _refused("compile", "true", "torch doesn't find Triton, which compiles for GPUs", "false")
        if machine.device == "cpu" and not machine.compiler:
            raise _refused("compile", "true", "there is no C++ compiler", "false, or install g++")
        return True, "as asked for"
    if wish is False:
        return False, "as asked for"
    if machine.device == "cuda":
        return False, "what it gains on a GPU was not measured: set finetune.compile to true to try it"
    return False, "only long runs win by it" if machine.compiler else "there is no C++ compiler"


def _liger(wish: bool | str, machine: Machine, config: Any) -> tuple[bool, str]:
    against = None
    if machine.device == "cpu":
        against = "Liger's kernels are for GPUs", "false"
    elif not machine.liger:
        against = "liger-kernel isn't installed", "false, or `pip install liger-kernel`"
    elif config is not None and not _known_to_liger(config):
        against = f"Liger has no kernels for {config.model_type}", "false"
    if wish is True and against is not None:
        raise _refused("liger", "true", *against)
    if wish == "auto":
        return against is None, _said(against) or "installed, and made for this architecture"
    return wish is True, "as asked for"


def _known_to_liger(config: Any) -> bool:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def _refused(key: str, value: str, why: str, instead: str) -> InputError:
    return InputError(f"finetune.{key} {value}: {why}", next_step=f"set finetune.{key} to {instead}")
