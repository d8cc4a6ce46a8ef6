"""A run by other kernels comes to the same losses, dev losses among them, and goes on by them where it stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from components.errors import InputError
from components.finetuning.finetune import FinetuneResult, StoppedError, finetune
from components.models import block_kernels
from components.models.kernels import Kernels
from tests.components.finetuning.conftest import rows, settings


def run(base: Path, folder: Path, kernels: Kernels, stop_after: int | None = None, **changes: object) -> FinetuneResult:
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == stop_after

    return finetune(
        base, rows(), rows(4), settings(epochs=2.0, kernels=kernels, **changes), run_folder=folder, identity={},
        checkpoint_steps=1, stop=stop,
    )  # fmt: skip


def losses(result: FinetuneResult) -> list[float]:
    return [entry["loss"] for entry in (*result.losses, *result.dev)]


def test_a_run_by_flex_comes_to_the_losses_of_one_with_masks(
    tiny_folder: Path, tmp_path: Path, reference_flex: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"finetune\.attention flex: this machine has no CUDA GPU"):
        run(tiny_folder, tmp_path / "refused", Kernels("flex"))
    # what refuses it is the kernels' absence; torch's reference stands in for them
    monkeypatch.setattr("components.finetuning.finetune.check_kernels", lambda *_: None)
    plain = run(tiny_folder, tmp_path / "plain", Kernels(), micro_batch_size=2, gradient_accumulation_steps=1)
    flex = run(tiny_folder, tmp_path / "flex", Kernels("flex"), micro_batch_size=2, gradient_accumulation_steps=1)
    assert losses(flex) == pytest.approx(losses(plain), abs=1e-4)
    assert flex.kernels == {"attention": "flex", "compile": False, "liger": False}


def test_a_compiled_run_comes_to_the_plain_losses_and_is_resumed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    without_cpp = partial(block_kernels.kernels_in_use, backend="aot_eager")
    monkeypatch.setattr(block_kernels, "kernels_in_use", without_cpp)
    compiled = Kernels(compile=True)
    plain, whole = (run(tiny_folder, tmp_path / str(k.compile), k) for k in (Kernels(), compiled))
    assert losses(whole) == pytest.approx(losses(plain), abs=1e-4)
    with pytest.raises(StoppedError):
        run(tiny_folder, tmp_path / "stopped", compiled, stop_after=3)
    again = run(tiny_folder, tmp_path / "stopped", compiled)
    assert again.resumed_from == 3
    assert losses(again) == losses(whole)
    torch._dynamo.reset()
