"""A loss that stands still in the first steps is told, one that falls isn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.finetuning.finetune import finetune
from components.finetuning.progress import stands_still
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([2.0] * 12, True),
        ([2.0 + 0.1 * (step % 2) for step in range(12)], True),
        ([2.0 + 0.1 * step for step in range(12)], True),
        ([2.0 - 0.05 * step for step in range(12)], False),
        ([2.0] * 11, False),
        ([2.0 - 0.05 * step for step in range(12)] + [9.0] * 20, False),
    ],
)
def test_the_first_and_last_of_the_first_steps_are_compared(losses: list[float], told: bool) -> None:
    assert (stands_still(losses) is not None) == told


@pytest.mark.parametrize(("rate", "told"), [(1e-7, True), (5e-3, False)])
def test_a_run_says_so_once(tmp_path: Path, rate: float, told: bool) -> None:
    said: list[str] = []
    finetune(
        make_tiny(tmp_path / "tiny"), rows(), [], settings(learning_rate=rate), run_folder=tmp_path / "run",
        identity={}, say=said.append,
    )  # fmt: skip
    assert sum("the loss has not fallen in the first 12 steps" in line for line in said) == told
