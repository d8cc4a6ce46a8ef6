"""Which kernels are chosen on which machine, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig

from components.errors import InputError
from components.models.kernels import Choice, Kernels, Machine, Wishes, check_kernels, choose_kernels, this_machine

CPU = Machine("cpu", compiler=True)
AMPERE = Machine("cuda", triton=True, generation=8)
FULL = LlamaConfig()
WINDOW = MistralConfig(sliding_window=4096)
DROPPING = LlamaConfig(attention_dropout=0.1)


def choose(wishes: Wishes = Wishes(), machine: Machine = AMPERE, rows: Any = "prefix", **changes: Any) -> Choice:  # noqa: B008
    return choose_kernels(wishes, machine, rows, **{"method": "lora", "dtype": "bfloat16", "config": FULL, **changes})


@pytest.mark.parametrize(
    ("machine", "rows", "changes", "expected"),
    [
        (CPU, "prefix", {}, "sdpa"),
        (CPU, "alone", {}, "sdpa"),
        (AMPERE, "prefix", {}, "flex"),
        (AMPERE, "documents", {}, "flash"),
        (AMPERE, "alone", {}, "flash"),
        (AMPERE, "alone", {"dtype": "float32"}, "sdpa"),
        (AMPERE, "documents", {"dtype": "float32"}, "flex"),
        (AMPERE, "prefix", {"method": "prompt_tuning"}, "sdpa"),
        (AMPERE, "prefix", {"config": WINDOW}, "sdpa"),
        (AMPERE, "documents", {"config": DROPPING}, "sdpa"),
        (Machine("cuda", triton=False, generation=8), "prefix", {}, "sdpa"),
        (Machine("cuda", triton=True, generation=7), "documents", {"dtype": "float16"}, "flex"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(machine: Machine, rows: str, changes: Any, expected: str) -> None:
    choice = choose(machine=machine, rows=rows, **changes)
    assert choice.kernels == Kernels(expected)
    assert all(choice.reasons.values())


@pytest.mark.parametrize(
    ("wishes", "machine", "changes", "message", "next_step"),
    [
        (Wishes("flex"), CPU, {}, "no backward pass on processors", "attention to sdpa"),
        (Wishes("flash"), CPU, {}, "for CUDA GPUs", "attention to sdpa"),
        (Wishes("flash"), AMPERE, {}, "can't show one prefix to several rows", "flex, or finetune.rows_per_sequence"),
        (Wishes("flash"), AMPERE, {"rows": "alone", "dtype": "float32"}, "16 bits", "memory.dtype bfloat16"),
        (Wishes("flash"), Machine("cuda", True, 7), {"rows": "alone"}, "compute capability 8.0", "sdpa"),
        (Wishes("flex"), Machine("cuda", False, 8), {}, "Triton", "install triton"),
        (Wishes("flex"), AMPERE, {"config": WINDOW}, "mistral see a window", "sdpa"),
        (Wishes("flash"), AMPERE, {"config": DROPPING, "rows": "alone"}, "attention_dropout 0.1", "sdpa"),
        (Wishes(compile=True), Machine("cpu"), {}, "no C\\+\\+ compiler", "install g"),
        (Wishes(compile=True), Machine("cuda", False, 8), {}, "Triton", "false"),
        (Wishes(liger=True), CPU, {}, "for GPUs", "false"),
        (Wishes(liger=True), AMPERE, {}, "isn't installed", "pip install liger-kernel"),
    ],
)
def test_what_is_not_there_is_refused(
    wishes: Wishes, machine: Machine, changes: Any, message: str, next_step: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        choose(wishes, machine, **changes)
    assert refused.value.next_step is not None
    assert next_step in refused.value.next_step


def test_what_is_asked_for_and_there_is_taken() -> None:
    assert choose(Wishes("sdpa", compile=True)).kernels == Kernels("sdpa", compile=True)
    assert choose(Wishes("flex", compile=False, liger=False)).kernels == Kernels("flex")
    assert choose(Wishes(compile=True), CPU).to_dict()["reasons"]["compile"] == "as asked for"


def test_a_plan_of_another_machine_is_refused_before_training() -> None:
    check_kernels(Kernels(), CPU)
    check_kernels(Kernels("flex", compile=True), AMPERE)
    for kernels in (Kernels("flex"), Kernels(liger=True)):
        with pytest.raises(InputError):
            check_kernels(kernels, CPU)


def test_a_compiler_is_there_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", sys.executable)
    assert this_machine().compiler
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not this_machine().compiler


def test_this_machine_is_what_it_is() -> None:
    import torch

    found = this_machine()
    assert (found.device == "cuda") == torch.cuda.is_available()
    assert found.liger == (importlib.util.find_spec("liger_kernel") is not None)
