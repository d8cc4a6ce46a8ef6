"""16 bits: what is trained stays in float32. In float16 the loss is scaled too, its scaler is part of the checkpoint,
and what overflows for good is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.errors import TunewrightError
from components.finetuning.finetune import FinetuneResult, finetune
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.trainer import ScheduledTrainer
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings
from tests.components.finetuning.test_methods import CASES


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def run(base: Path, folder: Path, **changes: object) -> FinetuneResult:
    return finetune(
        base, rows(), [], settings(**changes), run_folder=folder, identity={"data": "d"}, checkpoint_steps=2
    )


@pytest.mark.parametrize(
    "method", [{"attachment": LoraSettings(rank=4)}, {"method": "full", "attachment": FullSettings()}]
)
def test_it_learns_as_float32_does(base: Path, tmp_path: Path, method: dict[str, object]) -> None:
    half = run(base, tmp_path / "half", dtype="float16", epochs=2.0, **method)
    whole = run(base, tmp_path / "whole", epochs=2.0, **method)
    for one, two in zip(half.losses, whole.losses, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=0.02)
    assert half.losses[-1]["loss"] < half.losses[0]["loss"] - 0.1


def test_the_scale_is_kept_over_a_stop(base: Path, tmp_path: Path) -> None:
    plain = {"attachment": LoraSettings(rank=4), "dtype": "float16", "epochs": 1.0}
    whole = run(base, tmp_path / "whole", **plain)
    asked = iter([True])
    with pytest.raises(TunewrightError, match="stopped after step 1"):
        finetune(
            base, rows(), [], settings(**plain), run_folder=tmp_path / "half", identity={"data": "d"},
            checkpoint_steps=100, stop=lambda: next(asked),
        )  # fmt: skip
    scaler = json.loads((tmp_path / "half" / "checkpoint-1" / "scaler.json").read_text())
    assert scaler["scale"] > 1
    resumed = run(base, tmp_path / "half", **plain)
    assert resumed.resumed_from == 1
    assert [e["loss"] for e in resumed.losses] == [e["loss"] for e in whole.losses]


def test_an_overflow_skips_the_step_and_lowers_the_scale(base: Path, tmp_path: Path) -> None:
    # the gradient of a loss that is scaled by 65,536 leaves float16 at this alpha, and not much later
    steep = run(base, tmp_path, dtype="float16", attachment=LoraSettings(rank=4, alpha=1e4), learning_rate=1e-7)
    newest = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    scaler = json.loads((newest / "scaler.json").read_text())
    assert scaler["scale"] < 65536
    assert all(e["loss"] < 100 for e in steep.losses)
    assert steep.skipped_steps == sum(e["gradient_norm"] is None for e in steep.losses) > 0
    json.dumps(steep.losses, allow_nan=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["full", "lora", "prefix_tuning"])
def test_in_16_bits_master_weights_states_and_loss_are_float32(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, dtype: str
) -> None:
    seen: set[tuple[str, torch.dtype]] = set()
    compute = ScheduledTrainer.compute_loss

    def watched(self: Any, model: Any, *arguments: Any, **named: Any) -> Any:
        layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
        with_output = layer.register_forward_hook(lambda *given: seen.add(("product", given[2].dtype)))
        loss = compute(self, model, *arguments, **named)
        with_output.remove()
        seen.add(("loss", loss.dtype))
        return loss

    monkeypatch.setattr(ScheduledTrainer, "compute_loss", watched)
    method, attachment, rate = CASES[case]
    run(base, tmp_path, method=method, attachment=attachment, learning_rate=rate, epochs=1.0, dtype=dtype)
    assert seen == {("product", getattr(torch, dtype)), ("loss", torch.float32)}
    (newest, *_) = sorted(tmp_path.glob("checkpoint-*"), reverse=True)
    for stem in ("weights", "optimizer"):
        kept = load_file(newest / f"{stem}.safetensors")
        assert {value.dtype for value in kept.values()} == {torch.float32}
    # and an update is finer than the dtype could keep
    weights = load_file(newest / "weights.safetensors").values()
    assert any(not torch.equal(value.to(getattr(torch, dtype)).float(), value) for value in weights)
