"""Kernels are tried before they are planned with: what fails is left out, or refused where it was asked for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from components.errors import InputError
from components.memory import kernel_plan
from components.memory.gpus import find_gpu
from components.memory.kernel_plan import compiled_where_it_pays, plan_kernels, step_attention
from components.memory.kernel_trial import failure
from components.models import packed_attention
from components.models.base_config import read_config
from components.models.kernels import Kernels, Machine, Wishes
from components.models.tiny import make_tiny

TRIED = {"method": "lora", "dtype": "float32", "gpu": None}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read_config(make_tiny(tmp_path_factory.mktemp("base"), layers=3))


@pytest.mark.parametrize("rows", ["prefix", "documents", "alone"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_right_kernels_pass(config: Any, rows: Any, dtype: str) -> None:
    assert failure(config, Kernels(), rows, dtype=dtype) is None


def test_a_gradient_that_is_rounding_alone_condemns_no_kernel() -> None:
    from transformers import Qwen2Config

    biased = Qwen2Config(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    assert failure(biased, Kernels(), "prefix", dtype="bfloat16") is None


def test_a_kernel_that_fails_says_how(config: Any) -> None:
    found = failure(config, Kernels("flex"), "prefix", dtype="float32")
    assert found is not None
    assert "does not support backward on CPU" in found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_that_hides_too_little_is_told(config: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "_sdpa_grouped", _one_too_few)
    found = failure(config, Kernels(), "prefix", dtype=dtype)
    assert found is not None
    assert "of their size on this device" in found


def _one_too_few(module: Any, query: Any, key: Any, value: Any, mask: Any, **named: Any) -> Any:
    """Hide a token that half of the others may see."""
    hidden = mask.clone()
    hidden[..., 80:, 40] = float("-inf")
    return packed_attention._sdpa(module, query, key, value, hidden, **named)


def test_what_fails_on_the_device_is_left_out_or_refused(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is described as one with a GPU; that flex fails on it is the truth on one without."""
    monkeypatch.setattr(kernel_plan, "this_machine", lambda: Machine("cuda", triton=True, generation=8))
    choice = plan_kernels(Wishes(), "prefix", config=config, **TRIED)
    assert choice.kernels == Kernels()
    assert choice.reasons["attention"].startswith("flex was tried, and it fails on this device")
    with pytest.raises(InputError, match=r"finetune\.attention flex: it fails on this device"):
        plan_kernels(Wishes("flex"), "prefix", config=config, **TRIED)


def test_a_named_gpu_is_planned_for_as_described(config: Any) -> None:
    asked = {**TRIED, "config": config, "dtype": "bfloat16", "gpu": find_gpu("a100-80")}
    assert plan_kernels(Wishes(), "prefix", **asked).kernels == Kernels("flex")
    assert plan_kernels(Wishes(), "documents", **asked).kernels == Kernels("flash")
    old = {**asked, "gpu": find_gpu("t4-16"), "dtype": "float16"}
    assert plan_kernels(Wishes(), "alone", **old).kernels == Kernels("sdpa")


def test_rows_alone_are_simulated_without_a_mask(config: Any) -> None:
    assert step_attention(Kernels(), "alone", "lora", config) == "alone"
    assert step_attention(Kernels(), "prefix", "lora", config) == "sdpa"
    assert step_attention(Kernels(), "alone", "prompt_tuning", config) == "sdpa"
    assert step_attention(Kernels("flex"), "alone", "lora", config) == "flex"


LONG = {"method": "lora", "dtype": "float32", "seconds": 4000.0, "spare_bytes": 2**31}


@pytest.mark.parametrize(
    ("changes", "wish", "compiled", "said"),
    [
        ({}, "auto", True, "the run is long"),
        ({"seconds": 1700.0}, "auto", False, "30 minutes and more"),
        ({"spare_bytes": 2**30}, "auto", False, "needs 1.3 GiB beside the plan's peak"),
        ({"dtype": "bfloat16"}, "auto", False, "lora in bfloat16 was not measured"),
        ({"method": "qlora"}, "auto", False, "qlora in float32 was not measured"),
        ({}, False, False, "as asked for"),
    ],
)
def test_auto_compiles_long_runs_that_leave_memory_for_it(
    config: Any, changes: Any, wish: Any, compiled: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_plan, "this_machine", lambda: Machine("cpu", compiler=True))
    wishes = Wishes(compile=wish)
    choice = plan_kernels(wishes, "prefix", config=config, **TRIED)
    found = compiled_where_it_pays(
        choice, wishes, "prefix", config=config, trial=lambda *_, **__: None, **LONG | changes
    )
    assert found.kernels == Kernels(compile=compiled)
    assert said in found.reasons["compile"]


def test_auto_compiles_nothing_where_the_trial_fails(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_plan, "this_machine", lambda: Machine("cpu", compiler=True))
    choice = plan_kernels(Wishes(), "prefix", config=config, **TRIED)
    found = compiled_where_it_pays(
        choice, Wishes(), "prefix", config=config, trial=lambda *_, **__: "it fails on this device", **LONG
    )
    assert found.kernels == Kernels()
    assert found.reasons["compile"] == "compile was tried, and it fails on this device"


def test_compiled_blocks_pass_the_trial(config: Any, reference_flex: None) -> None:
    torch._dynamo.reset()
    compiled = Kernels("flex", compile=True)
    # both passes draw the same masks of a base's own dropout
    config = copy.deepcopy(config)
    config.attention_dropout = 0.1
    assert failure(config, Kernels(), "prefix", dtype="float32") is None
    config.attention_dropout = 0.0
    assert failure(config, compiled, "prefix", dtype="float32", backend="aot_eager") is None
