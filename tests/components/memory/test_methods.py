"""Each method, quantization, optimizer and precision, simulated, against the same step on real tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory.bases import folder_of
from benchmarks.memory.measured_step import RealStep
from components.errors import InputError
from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import simulate
from components.models.load import load_model
from components.models.tiny import make_tiny

CASES: dict[str, dict[str, Any]] = {
    "lora in 8 bits": {"method": "lora", "quantization": "int8"},
    "lora on a bfloat16 base": {"method": "lora", "dtype": "bfloat16"},
    "lora, whole logits": {"method": "lora", "objective": "logits"},
    "qlora in bfloat16": {"method": "qlora", "dtype": "bfloat16"},
    "qlora, paged 8-bit optimizer": {"method": "qlora", "optimizer": "paged_adamw_8bit"},
    "full, mixed precision": {"method": "full", "dtype": "bfloat16"},
    "full, pure bfloat16": {"method": "full", "dtype": "bfloat16", "trained_dtype": "bfloat16"},
    "full, momentum": {"method": "full", "optimizer": "momentum"},
    "full, plain gradient descent": {"method": "full", "optimizer": "sgd"},
    "full, 8-bit optimizer": {"method": "full", "optimizer": "adamw_8bit"},
    "full, paged optimizer": {"method": "full", "optimizer": "paged_adamw"},
    "full, step in the backward pass": {"method": "full", "step_in_backward": True},
    "full, trained for 8 bits": {"method": "full", "quantization_aware": "int8"},
    "full, trained for 4 bits": {"method": "full", "quantization_aware": "int4"},
    "lora with dropout": {"method": "lora", "dropout": 0.1},
    "bottleneck": {"method": "bottleneck", "bottleneck_width": 16},
    "bottleneck in 4 bits": {"method": "bottleneck", "bottleneck_width": 16, "quantization": "nf4"},
    "prompt tuning": {"method": "prompt_tuning", "virtual_tokens": 8},
    "prompt tuning in bfloat16": {"method": "prompt_tuning", "virtual_tokens": 8, "dtype": "bfloat16"},
    "p-tuning": {"method": "p_tuning", "virtual_tokens": 8},
    "lora with magnitudes": {"method": "lora", "dora": True},
    "prefix tuning": {"method": "prefix_tuning", "virtual_tokens": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


# blocks that are run a second time, once for each kind of layer, precision and update
CHECKPOINTED = ("lora in 8 bits", "qlora in bfloat16", "full, mixed precision", "full, step in the backward pass",
                "full, trained for 4 bits", "bottleneck", "prompt tuning")  # fmt: skip


@pytest.mark.parametrize(
    ("case", "checkpointing"), [*((case, False) for case in CASES), *((case, True) for case in CHECKPOINTED)]
)
def test_a_simulated_peak_is_the_measured_peak(base: Path, case: str, checkpointing: bool) -> None:
    settings = StepSettings(**{"rank": 8, **CASES[case]})
    compare(base, settings, StepShape(2, 96, checkpointing, accumulating=not settings.step_in_backward))


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        ("mistral", "lora"),
        ("qwen2", "lora"),
        ("qwen2", "bottleneck"),
        ("gpt2", "qlora"),
        ("gpt2", "bottleneck"),
        ("gpt2", "full"),
    ],
)
def test_other_architectures_are_simulated_as_they_run(architecture: str, method: str, tmp_path: Path) -> None:
    settings = StepSettings(method, 4, bottleneck_width=8)
    compare(folder_of(architecture, tmp_path), settings, StepShape(1, 64))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}),
        ("gemma2", {"head_dim": 16}),
        ("mixtral", {"num_local_experts": 4}),
    ],
)
def test_long_context_own_attention_and_experts_run_without_data(architecture: str, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig

    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = AutoConfig.for_model(architecture, **shape, **heads, **changes)
    # four times as long as the positions that the base was trained with
    found = simulate(config, StepSettings(rank=4, dtype="bfloat16"), StepShape(1, 512))
    assert found.peak.breakdown["activations"] > 512 * 64 * 2 * 2


def test_a_step_that_needs_data_is_refused_with_its_reason() -> None:
    from transformers import AutoConfig

    # its attention takes a mask of two dimensions only, in the trainer as well
    config = AutoConfig.for_model("bloom", vocab_size=300, hidden_size=64, n_layer=2, n_head=4)
    with pytest.raises(InputError, match="BloomForCausalLM can't be simulated"):
        simulate(config, StepSettings(rank=4), StepShape(1, 16))


def compare(folder: Path, settings: StepSettings, shape: StepShape) -> None:
    step = RealStep(folder, settings, shape)
    step.run(1)
    real, simulated = step.measure(), simulate(folder, settings, shape).peak
    assert simulated.peak_bytes == pytest.approx(real.peak_bytes, rel=1e-3)
    assert simulated.phase == real.phase
    assert simulated.breakdown == pytest.approx(real.breakdown, rel=0.01, abs=2_000)
    # an optimizer without temporaries leaves no trace in the real step's history
    for phase in real.phase_peaks:
        assert simulated.phase_peaks[phase] == pytest.approx(real.phase_peaks[phase], rel=1e-3), phase


def test_what_is_trained_and_kept_differs_by_method(base: Path) -> None:
    shape = StepShape(1, 64, accumulating=True)
    found = {
        name: simulate(base, StepSettings(**{"rank": 8, **CASES[name]}), shape)
        for name in CASES
        if "backward" not in name
    }
    states = {name: one.peak.breakdown["optimizer"] / one.trainable_parameters for name, one in found.items()}
    assert states["full, plain gradient descent"] == 0
    assert states["full, momentum"] == 4
    assert states["full, paged optimizer"] == pytest.approx(8, rel=0.01)
    # two states of a byte, with a scale of four for each 256, and of 32 bits for small tensors; two maps for all
    sizes = [parameter.numel() for parameter in load_model(base).parameters()]
    kept = sum(2 * (size + 4 * -(-size // 256)) if size >= 4096 else 8 * size for size in sizes)
    assert found["full, 8-bit optimizer"].peak.breakdown["optimizer"] == kept + 2 * 256 * 4
    assert states["full, pure bfloat16"] == pytest.approx(4, rel=0.01)
    weights = {name: one.peak.breakdown["weights"] for name, one in found.items()}
    assert weights["bottleneck in 4 bits"] < weights["lora in 8 bits"] < weights["lora, whole logits"]
    assert weights["full, pure bfloat16"] == pytest.approx(weights["full, mixed precision"] / 2, rel=0.01)
    assert found["prompt tuning"].trainable_parameters == 8 * 64


def test_paged_states_may_leave_and_offloaded_ones_are_on_the_host(base: Path) -> None:
    shape = StepShape(1, 64)
    plain, offloaded = (simulate(base, StepSettings("full", offload_optimizer=on), shape) for on in (False, True))
    assert offloaded.peak.breakdown["optimizer"] == 0
    assert offloaded.peak.peak_bytes < plain.peak.peak_bytes
    # two states, a copy of the weights and one of the gradients
    assert offloaded.host_bytes == pytest.approx(16 * plain.trainable_parameters, rel=0.01)
    assert plain.host_bytes == plain.pageable_bytes == 0


def test_large_tensors_of_a_paged_optimizer_may_leave(tmp_path: Path) -> None:
    wide = make_tiny(tmp_path / "wide", hidden_size=320, layers=1)
    found = simulate(wide, StepSettings("full", optimizer="paged_adamw_8bit"), StepShape(1, 8))
    # hidden x hidden and hidden x 2 hidden matrices and the embeddings are above bitsandbytes' bound, norms are not
    assert 1.7 * found.trainable_parameters < found.pageable_bytes < 2 * found.trainable_parameters


@pytest.mark.parametrize(
    ("settings", "shape", "word"),
    [
        (StepSettings("prefix_tuning"), StepShape(1, 8, gradient_checkpointing=True), "prefix tuning with"),
        (StepSettings("full", step_in_backward=True), StepShape(1, 8, accumulating=True), "while gradients"),
        (StepSettings("full", quantization="nf4"), StepShape(1, 8), "full finetuning of weights in nf4"),
        (StepSettings("qlora", quantization="int8"), StepShape(1, 8), "qlora in int8"),
        (StepSettings(trained_dtype="bfloat16"), StepShape(1, 8), "beside computation in float32"),
        (StepSettings("full", step_in_backward=True, offload_optimizer=True), StepShape(1, 8), "host's memory"),
        (StepSettings(world_size=0), StepShape(1, 8), "devices 0"),
        (StepSettings(dropout=1.0), StepShape(1, 8), "dropout 1.0"),
        (StepSettings(quantization="int3"), StepShape(1, 8), "unknown quantization"),
    ],
)
def test_contradictions_are_refused(base: Path, settings: StepSettings, shape: StepShape, word: str) -> None:
    with pytest.raises(InputError, match=word):
        simulate(base, settings, shape)
