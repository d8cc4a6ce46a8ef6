"""Early stopping and the best weights: what is decided, what is saved, and that a killed run decides the same."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.data.rows import Message, Row
from components.errors import ConflictError
from components.finetuning import checkpoint
from components.finetuning.best import Measurement, best_of, early_stop
from components.finetuning.dev import dev_loss, dev_steps
from components.finetuning.finetune import DevSettings, FinetuneResult, finetune
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

# the rows below are measured after every step: the dev loss is smallest after step 3 of 12, the next two bring nothing
STOPS = DevSettings(passes=12, early_stopping=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stopped(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneResult, Path, list[str]]:
    folder, said = tmp_path_factory.mktemp("stopped"), []
    return run(base, folder, say=said.append), folder, said


def dev_rows() -> list[Row]:
    """Rows whose answers the training rows don't teach."""
    answers = [Message("assistant", f"DROP TABLE {row.line}; SELECT name") for row in rows(4)]
    return [replace(row, messages=(*row.prompt, answer)) for row, answer in zip(rows(4), answers, strict=True)]


def run(base: Path, folder: Path, dev: DevSettings = STOPS, **changes: object) -> FinetuneResult:
    values: dict[str, object] = {"run_folder": folder, "identity": {"data": "d"}, "checkpoint_steps": 1}
    chosen = settings(learning_rate=1e-2, schedule="constant")
    return finetune(base, rows(), dev_rows(), chosen, dev=dev, **(values | changes))  # type: ignore[arg-type]


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoint-*")}


def adapter(result: FinetuneResult) -> dict[str, torch.Tensor]:
    return load_file(result.weights / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def decided(result: FinetuneResult) -> tuple[object, ...]:
    losses = [entry["loss"] for entry in result.losses]
    return losses, result.dev, result.steps, result.ended, result.kept_step, result.kept_reason


@pytest.mark.parametrize(
    ("losses", "patience", "best", "stops"),
    [
        ([3.0, 2.0, 1.0], 1, 3, False),
        ([3.0, 2.0, 2.0], 1, 2, True),
        ([3.0, 2.0, 2.5], 2, 2, False),
        ([3.0, 2.0, 2.5, 2.4], 2, 2, True),
        ([3.0, 2.0, 2.5, 1.9], 2, 4, False),
        ([3.0, math.nan], 1, 1, True),
        ([math.nan, 3.0], 1, 2, False),
        ([1.0, 2.0, 3.0], 0, 1, False),
    ],
)
def test_a_run_stops_when_patience_is_over(losses: list[float], patience: int, best: int, stops: bool) -> None:
    measured = [Measurement(step, loss) for step, loss in enumerate(losses, start=1)]
    found = best_of(measured)
    assert found is not None
    assert found.step == best
    assert (early_stop(measured, DevSettings(9, patience), 9) is not None) == stops
    # behind the last step there is nothing to stop
    assert early_stop(measured, DevSettings(9, patience), len(losses)) is None


def test_a_score_counts_before_the_loss_and_the_loss_among_equal_scores() -> None:
    measured = [
        Measurement(1, 1.0, 0.5),
        Measurement(2, 3.0, 0.75),
        Measurement(3, 2.0, 0.75),
        Measurement(4, 0.5, 0.25),
    ]
    best = best_of(measured)
    assert best is not None
    assert best.step == 3
    assert early_stop(measured, DevSettings(9, 1), 9) is not None
    assert str(best) == "dev loss 2.0000, dev score 0.7500"


@pytest.mark.parametrize(
    ("steps", "passes", "expected"), [(12, 4, {3, 6, 9, 12}), (3, 4, {1, 2, 3}), (5, 1, {5}), (2, 9, {1, 2})]
)
def test_measurements_are_spread_over_the_run_and_end_with_it(steps: int, passes: int, expected: set[int]) -> None:
    assert dev_steps(steps, passes) == expected


def test_a_run_ends_early_and_keeps_the_weights_of_the_smallest_dev_loss(
    base: Path, stopped: tuple[FinetuneResult, Path, list[str]]
) -> None:
    result, folder, said = stopped
    losses = [entry["loss"] for entry in result.dev]
    assert (result.steps, result.planned_steps, len(result.losses)) == (4, 12, 4)
    assert result.kept_step == 1 + losses.index(min(losses)) == 2
    assert result.ended.startswith(
        "stopped early after step 4 of 12: 2 measurements brought nothing better than step 2 with dev"
    )
    assert result.rows == 4 * 4
    # the two newest and the best
    assert checkpoints(folder) == {"checkpoint-2", "checkpoint-3", "checkpoint-4"}
    model, tokenizer = load_model(base, adapter=result.weights), load_tokenizer(base)
    measure = dev_loss(model, tokenizer, dev_rows(), settings())
    assert measure is not None
    assert measure() == pytest.approx(min(losses), rel=1e-6)
    assert sum("the best so far" in line for line in said) == 2
    assert any(line.startswith("  the weights of step 2 of 12 are kept, the best of 4: dev loss 5.9") for line in said)


def test_the_last_weights_are_kept_where_the_recipe_says_so(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path, DevSettings(12, keep_best=False), checkpoint_steps=5)
    assert (result.steps, result.kept_step) == (12, 12)
    assert result.ended == "all 12 steps were done"
    # no other checkpoints than without dev rows
    assert checkpoints(tmp_path) == {"checkpoint-10", "checkpoint-12"}
    whole = run(base, tmp_path / "best", DevSettings(12), checkpoint_steps=5)
    # measuring and saving change nothing in training
    assert [e["loss"] for e in result.losses] == [e["loss"] for e in whole.losses]
    assert not same(adapter(result), adapter(whole))


def test_a_run_killed_after_it_was_stopped_early_trains_no_further(
    base: Path, tmp_path: Path, stopped: tuple[FinetuneResult, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("components.finetuning.saving.save", killed)
        with pytest.raises(KilledError):
            run(base, tmp_path)
    assert not (tmp_path / "adapter").exists()
    result = run(base, tmp_path, progress=lambda _: pytest.fail("a step was trained"))
    assert decided(result) == decided(stopped[0])
    assert result.resumed_from == 4
    assert same(adapter(result), adapter(stopped[0]))


def killed_at(base: Path, folder: Path, step: int) -> None:
    """Train in a process that is killed the hard way after a step; called in a child."""
    run(base, folder, progress=lambda log: os.kill(os.getpid(), signal.SIGKILL) if log["step"] == step else None)


@pytest.mark.parametrize("step", [2, 4])
def test_a_killed_run_stops_at_the_same_step_and_keeps_the_same_weights(
    base: Path, tmp_path: Path, stopped: tuple[FinetuneResult, Path, list[str]], step: int
) -> None:
    script = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[4]);"
        "from tests.components.finetuning.test_best import killed_at as train;"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
    )
    here = str(Path(__file__).parents[3])
    child = subprocess.run([sys.executable, "-c", script, str(base), str(tmp_path), str(step), here], timeout=300)
    assert child.returncode == -signal.SIGKILL
    result = run(base, tmp_path)
    assert result.resumed_from == step - 1
    assert decided(result) == decided(stopped[0])
    assert same(adapter(result), adapter(stopped[0]))


def test_damaged_best_weights_fall_back_to_the_best_that_are_there(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    (tmp_path / "checkpoint-2" / "weights.safetensors").write_bytes(b"")
    said: list[str] = []
    result = run(base, tmp_path, say=said.append)
    losses = {entry["step"]: entry["loss"] for entry in result.dev}
    assert result.kept_step == min((3, 4), key=lambda step: losses[step])
    assert result.steps == 4
    (warning,) = [line for line in said if "warning" in line]
    assert "of step 2, can't be kept: their checkpoint is damaged (weights.safetensors" in warning
    assert "the best of 4 whose weights are there: " in result.kept_reason


def test_other_dev_rows_are_another_run_where_they_decide(base: Path, tmp_path: Path) -> None:
    def with_dev(count: int, folder: Path, keep_best: bool) -> FinetuneResult:
        return finetune(
            base, rows(), rows(count), settings(epochs=1.0), run_folder=folder, identity={},
            dev=DevSettings(2, keep_best=keep_best),
        )  # fmt: skip

    with_dev(4, tmp_path / "best", True)
    with pytest.raises(ConflictError, match="dev: "):
        with_dev(3, tmp_path / "best", True)
    first = with_dev(4, tmp_path / "last", False)
    assert same(adapter(first), adapter(with_dev(3, tmp_path / "last", False)))


def test_the_best_checkpoint_stays_however_old_it_is(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        checkpoint.save(
            tmp_path, step, tensors={"weights": {"w": torch.zeros(1)}}, documents={}, identity={}, keep=2, best=20
        )
    assert checkpoints(tmp_path) == {"checkpoint-20", "checkpoint-40", "checkpoint-50"}
    assert checkpoint.find(tmp_path, 20) is not None
    (tmp_path / "checkpoint-20" / "weights.safetensors").write_bytes(b"")
    assert checkpoint.find(tmp_path, 20) is None
    assert checkpoint.damage(tmp_path, 30) == "it is not there"
