"""The simulation against the same step on real tensors: equal to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import InputError
from components.finetuning import lora, qlora
from components.finetuning.lora import LoraSettings
from components.finetuning.loss import forward_loss
from components.memory.estimate import PeakEstimator
from components.memory.quantized_layers import scale_tensors
from components.memory.simulate import StepModel, StepSettings, StepShape, simulate
from components.memory.storages import Peak, StorageLog, tracking
from components.models.base_config import read_config
from components.models.load import load_model
from components.models.packed_attention import use_attention
from components.models.tiny import make_tiny

TOKENS = 96


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


def measured(base: Path, settings: StepSettings, shape: StepShape) -> Peak:
    """Run the step for real, in the steady state, and follow its storages."""
    model = load_model(base, dtype=settings.dtype, quantization="nf4" if settings.method == "qlora" else None)
    use_attention(model, "sdpa", "cpu")
    if settings.method == "full":
        model.requires_grad_(True)
    else:
        method = qlora if settings.method == "qlora" else lora
        model = method.attach(model, LoraSettings(rank=settings.rank, targets=settings.targets))
    model.train()
    if shape.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    if not shape.accumulating:
        optimizer.zero_grad(set_to_none=True)
    rows, tokens = shape.micro_batch_size, shape.sequence_tokens
    batch = {
        "input_ids": torch.randint(0, 300, (rows, tokens)),
        "position_ids": torch.arange(tokens).expand(rows, tokens).contiguous(),
        "labels": torch.randint(0, 300, (rows, tokens)),
        "weights": torch.ones(rows, tokens),
    }
    if settings.attention == "sdpa":
        seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        batch["attention_mask"] = seen.expand(rows, 1, tokens, tokens).clone()
    log = StorageLog()
    for tensors in (model.parameters(), model.buffers(), scale_tensors(model)):
        log.add(tensors, "weights")
    log.add((value for state in optimizer.state.values() for value in state.values()), "optimizer")
    log.add((parameter.grad for parameter in trained if parameter.grad is not None), "gradients")
    log.add(batch.values(), "other")
    with tracking(log):
        log.phase = "forward"
        loss = forward_loss(model, batch, 1.0)
        log.phase = "backward"
        loss.backward()
        log.add((parameter.grad for parameter in trained if parameter.grad is not None), "gradients")
    return log.peak(("forward", "backward"))


@pytest.mark.parametrize(
    ("method", "attention"), [("lora", "sdpa"), ("qlora", "sdpa"), ("full", "sdpa"), ("lora", "alone")]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_simulated_peak_is_the_real_peak(base: Path, method: str, attention: str, checkpointing: bool) -> None:
    settings = StepSettings(method=method, rank=8, attention=attention)
    shape = StepShape(3, TOKENS, checkpointing, accumulating=True)
    real, simulated = measured(base, settings, shape), simulate(base, settings, shape).peak
    # full finetuning may peak in the optimizer's step, which the measurement leaves out
    peaks = [simulated.phase_peaks[phase] for phase in ("forward", "backward")]
    assert max(peaks) == pytest.approx(real.peak_bytes, rel=1e-3)
    assert simulated.peak_bytes >= real.peak_bytes * 0.999
    if simulated.phase == real.phase:
        for category, size in real.breakdown.items():
            assert simulated.breakdown[category] == pytest.approx(size, rel=0.01, abs=20_000), category


def test_what_has_no_mask_takes_none(base: Path) -> None:
    """Of T x T there is the boolean mask and, for all layers together, the additive one: 1 + 4 bytes."""
    tokens = 1024
    peaks = {
        (attention, device): simulate(
            base, StepSettings(rank=8, attention=attention, device=device), StepShape(1, tokens)
        ).peak.phase_peaks["backward"]
        for attention, device in (
            ("sdpa", "cpu"),
            ("alone", "cpu"),
            ("sdpa", "cuda"),
            ("flex", "cuda"),
            ("flash", "cuda"),
        )
    }
    assert peaks["sdpa", "cpu"] - peaks["alone", "cpu"] == 5 * tokens**2
    # keys and values of 2 heads are repeated for 4 under a mask on CUDA, in each of 3 layers
    repeated = 3 * 2 * (4 - 2) * tokens * 16 * 4
    assert peaks["sdpa", "cuda"] - peaks["flex", "cuda"] == pytest.approx(5 * tokens**2 + repeated, rel=0.15)
    assert peaks["flash", "cuda"] == peaks["flex", "cuda"] == peaks["alone", "cpu"]


def test_the_breakdown_adds_up_and_names_trained_parameters(base: Path) -> None:
    found = simulate(base, StepSettings(rank=8), StepShape(2, TOKENS, accumulating=True))
    assert sum(found.peak.breakdown.values()) == found.peak.peak_bytes
    assert found.peak.breakdown["gradients"] == found.trainable_parameters * 4
    # two float32 moments, and a counter for each tensor
    assert 0 <= found.peak.breakdown["optimizer"] - found.trainable_parameters * 8 < 1000
    real = lora.attach(load_model(base), LoraSettings(rank=8))
    trained, total = real.get_nb_trainable_parameters()
    assert (found.trainable_parameters, found.parameters) == (trained, total)


def test_checkpointing_trades_memory_for_operations(base: Path) -> None:
    model = StepModel(base, StepSettings(rank=8))
    plain, checkpointed = (model.run(StepShape(4, 256, checkpointing)) for checkpointing in (False, True))
    assert checkpointed.peak.breakdown["activations"] < plain.peak.breakdown["activations"]
    assert checkpointed.flops > plain.flops
    assert model.run(StepShape(4, 256)).peak.peak_bytes == plain.peak.peak_bytes


def test_four_bit_weights_and_bfloat16_take_less(base: Path) -> None:
    shape = StepShape(1, TOKENS)
    single, half, packed = (
        simulate(base, StepSettings(method=method, dtype=dtype, rank=4), shape).peak.breakdown["weights"]
        for method, dtype in (("lora", "float32"), ("lora", "bfloat16"), ("qlora", "float32"))
    )
    assert half < single
    assert packed < single


def test_a_step_names_the_module_of_its_peak(base: Path) -> None:
    found = simulate(base, StepSettings(method="full"), StepShape(1, 8, gradient_checkpointing=True))
    assert found.peak.phase in {"forward", "backward", "step"}
    wide = simulate(base, StepSettings(rank=4), StepShape(1, 900))
    assert wide.peak.module == "" or wide.peak.module.startswith("model.")


def test_a_few_blocks_give_the_peak_of_all(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "deep", layers=6)
    estimator = PeakEstimator(read_config(folder), StepSettings(rank=8), TOKENS)
    model = StepModel(folder, StepSettings(rank=8))
    for size in (1, 2, 5):
        for checkpointing in (False, True):
            whole = model.run(StepShape(size, TOKENS, checkpointing, accumulating=True))
            guessed = estimator.estimate(size, checkpointing)
            # past 256 labelled tokens the loss goes over to chunks, which no straight line shows in so small a model
            assert guessed.tensor_bytes == pytest.approx(whole.peak.peak_bytes, rel=0.06)
            assert guessed.flops == pytest.approx(whole.flops, rel=0.05)


def test_a_log_keeps_no_storage_alive() -> None:
    log = StorageLog()
    with tracking(log):
        log.phase = "forward"
        held = torch.ones(1000)
        twice = held * 2
        del twice
        log.phase = "backward"
        view = held[:10]
    assert log.live_bytes == 4000
    peak = log.peak(("forward", "backward"))
    assert (peak.peak_bytes, peak.phase) == (8000, "forward")
    assert peak.phase_peaks == {"forward": 8000}  # a view takes nothing
    del held, view
    assert log.live_bytes == 0


@pytest.mark.parametrize(
    ("settings", "shape", "word"),
    [
        (StepSettings(method="magic"), StepShape(1, 8), "unknown method"),
        (StepSettings(optimizer="lion"), StepShape(1, 8), "unknown optimizer"),
        (StepSettings(dtype="int8"), StepShape(1, 8), "unknown dtype"),
        (StepSettings(rank=0), StepShape(1, 8), "rank 0"),
        (StepSettings(targets="no_such_layer"), StepShape(1, 8), "match no module"),
        (StepSettings(), StepShape(0, 8), "at least one sequence"),
        (StepSettings(quantization_aware="int4"), StepShape(1, 8), "training for int4 with lora"),
        (StepSettings("full", quantization_aware="int2"), StepShape(1, 8), "unknown quantization 'int2'"),
        (StepSettings("full", quantization_aware="int4", world_size=2), StepShape(1, 8), "on 2 devices"),
    ],
)
def test_impossible_steps_are_refused(base: Path, settings: Any, shape: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        simulate(base, settings, shape)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        simulate(tmp_path, StepSettings(), StepShape(1, 8))


@pytest.mark.parametrize("scaling", ["linear:4", "dynamic:4", "yarn:4"])
def test_a_scaled_base_is_simulated_past_its_positions(tmp_path: Path, scaling: str) -> None:
    folder = make_tiny(tmp_path / "short", positions=TOKENS // 2)
    shape = StepShape(2, TOKENS, gradient_checkpointing=True)
    scaled = simulate(folder, StepSettings(rank=4, rope_scaling=scaling), shape)
    plain = simulate(folder, StepSettings(rank=4), shape)
    # positions are angles: other ones take no more room
    assert scaled.peak.peak_bytes == pytest.approx(plain.peak.peak_bytes, rel=1e-3)
    with pytest.raises(InputError, match="spin:4"):
        simulate(folder, StepSettings(rope_scaling="spin:4"), shape)
