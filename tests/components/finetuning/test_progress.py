"""What is told of every step, and that a loss that stands still in the first steps is told too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from components.finetuning.finetune import DevSettings, FinetuneResult, StoppedError, finetune
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
    assert sum("the loss has not fallen by 2% in the first 12 steps" in line for line in said) == told


def test_every_step_tells_its_figures_and_they_outlive_a_stop(tmp_path: Path) -> None:
    base, told = make_tiny(tmp_path / "tiny"), list[Mapping[str, float]]()

    def train(stop_at: int) -> FinetuneResult:
        return finetune(
            base, rows(), rows(4), settings(), run_folder=tmp_path / "run", identity={}, dev=DevSettings(passes=6),
            progress=told.append, stop=lambda: len(told) == stop_at,
        )  # fmt: skip

    with pytest.raises(StoppedError):
        train(5)
    result = train(99)
    assert [log["step"] for log in told] == list(range(1, 13))
    assert [log["peak_bytes"] for log in told[:6]] == sorted(log["peak_bytes"] for log in told[:6])
    kept = ("step", "loss", "learning_rate", "gradient_norm", "peak_bytes")
    assert [[entry[key] for key in kept] for entry in result.losses] == [[log[key] for key in kept] for log in told]
    assert min(min(log["gradient_norm"], log["tokens_per_second"], log["seconds_left"] + 1) for log in told) > 0
    # a process's peak is its own: the stopped one, which has told of the step it was stopped in, may have used more
    resumed = result.resumed_from
    assert resumed == 6
    assert max(log["peak_bytes"] for log in told[resumed:]) <= result.peak_bytes < 2**34
    # a dev loss is told with the steps behind it, and after a resume too
    measured = {entry["step"]: entry["loss"] for entry in result.dev}
    assert list(measured) == [2, 4, 6, 8, 10, 12]
    assert [log.get("dev_loss") for log in told] == [measured.get((step - 1) // 2 * 2) for step in range(1, 13)]
