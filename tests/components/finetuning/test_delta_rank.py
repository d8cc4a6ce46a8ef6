"""Norm and rank of a learned delta are those of the matrix that the factors stand for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.finetuning.delta_rank import measure_deltas


def write(folder: Path, factors: dict[str, tuple[torch.Tensor, torch.Tensor]], **config: object) -> Path:
    tensors = {}
    for module, (down, up) in factors.items():
        tensors |= {
            f"{module}.lora_A.weight": down.clone().contiguous(),
            f"{module}.lora_B.weight": up.clone().contiguous(),
        }
    save_file(tensors, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": 4, "lora_alpha": 8.0, **config}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


def factors(values: list[float], inputs: int = 12, outputs: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors whose product has these singular values."""
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(outputs, len(values)))[0]
    right = torch.linalg.qr(torch.randn(inputs, len(values)))[0]
    return right.T, left * torch.tensor(values)


@pytest.mark.parametrize(
    ("values", "effective", "energy"),
    [([1.0, 1.0, 1.0, 1.0], 4.0, 4), ([1.0, 0.0, 0.0, 0.0], 1.0, 1), ([3.0, 3.0, 0.0, 0.0], 2.0, 2)],
)
def test_ranks_are_those_of_the_product(tmp_path: Path, values: list[float], effective: float, energy: int) -> None:
    found = measure_deltas(write(tmp_path, {"model.layers.3.self_attn.q_proj": factors(values)}))
    assert found is not None
    (matrix,) = found.matrices
    assert (matrix.layer, matrix.matrix, matrix.rank, matrix.energy_rank) == (3, "q_proj", 4, energy)
    assert matrix.effective_rank == pytest.approx(effective, rel=1e-4)
    assert matrix.norm == pytest.approx(8 / 4 * math.sqrt(sum(value**2 for value in values)), rel=1e-5)


def test_scale_of_rslora_and_of_single_modules_is_counted(tmp_path: Path) -> None:
    one = factors([1.0, 0.0, 0.0, 0.0])
    found = measure_deltas(
        write(
            tmp_path,
            {"model.layers.0.mlp.up_proj": one, "model.layers.0.mlp.down_proj": one, "lm_head": one},
            use_rslora=True,
            alpha_pattern={"up_proj": 2.0},
        )
    )
    assert found is not None
    norms = {(m.layer, m.matrix): m.norm for m in found.matrices}
    expected = {(0, "down_proj"): 4.0, (0, "up_proj"): 1.0, (None, "lm_head"): 4.0}
    assert norms == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 0.0, 0.0, 0.0], "rank 2 is likely to learn as much"),
        ([1.0, 1.0, 1.0, 1.0], "rank 8 may learn more"),
        ([1.0, 1.0, 0.0, 0.0], "the rank fits"),
    ],
)
def test_hint_says_what_the_next_rank_may_be(tmp_path: Path, values: list[float], words: str) -> None:
    found = measure_deltas(write(tmp_path, {"model.layers.0.q_proj": factors(values)}))
    assert found is not None
    assert words in found.hint


def test_untouched_delta_has_no_rank_and_other_adapters_no_report(tmp_path: Path) -> None:
    found = measure_deltas(write(tmp_path, {"model.layers.0.q_proj": factors([0.0, 0.0])}))
    assert found is not None
    assert (found.matrices[0].norm, found.matrices[0].effective_rank, found.matrices[0].energy_rank) == (0.0, 0.0, 0)
    assert measure_deltas(write(tmp_path, {"model.layers.0.q_proj": factors([1.0])}, peft_type="BOTTLENECK")) is None
