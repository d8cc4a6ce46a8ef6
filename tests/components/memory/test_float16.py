"""float16 with loss scaling, which is planned for GPUs without bfloat16: a scaled real step against the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.memory.measured_step import RealStep
from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import simulate
from components.models.tiny import make_tiny


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_scaled_step_takes_what_is_simulated(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_tiny(tmp_path / "tiny", layers=4, hidden_size=64)
    settings, shape = StepSettings(method, 8, dtype="float16"), StepShape(2, 64, accumulating=True)
    step = RealStep(base, settings, shape)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    loss, update = step._loss, step._optimizer.step

    def scaled_update() -> Any:
        scaler.unscale_(step._optimizer)
        # a step is skipped where a gradient overflowed, and would then make no states
        overflows = scaler._per_optimizer_states[id(step._optimizer)]["found_inf_per_device"]
        assert not any(found.item() for found in overflows.values())
        update()
        scaler.update()

    monkeypatch.setattr(step, "_loss", lambda: scaler.scale(loss()))
    monkeypatch.setattr(step._optimizer, "step", scaled_update)
    step.run(2)
    measured = step.measure()
    predicted = simulate(base, settings, shape)
    assert predicted.peak.peak_bytes == pytest.approx(measured.peak_bytes, rel=0.01)
    # what is trained is its own master copy in float32, frozen weights are kept in 16 bits
    kept = predicted.trainable_parameters * 4 + (predicted.parameters - predicted.trainable_parameters) * 2
    assert predicted.peak.breakdown["weights"] == pytest.approx(kept, rel=0.02)
    assert measured.breakdown["weights"] == predicted.peak.breakdown["weights"]
    assert predicted.peak.breakdown["optimizer"] == measured.breakdown["optimizer"]
