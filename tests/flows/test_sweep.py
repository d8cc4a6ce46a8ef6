"""A trial's record in the registry: written once, and the same one where a sweep that ended comes to it again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.finetuning.study import COMPLETE, PRUNED
from flows.sweep import _Trial
from registry.errors import RunTaken
from registry.store import Registry


@pytest.fixture
def trial(tmp_path: Path) -> _Trial:
    """The first trial of a sweep, with as much of its job as the record is made of."""
    recipe = SimpleNamespace(name="tiny", sweep=SimpleNamespace(objective="loss"))
    job: Any = SimpleNamespace(recipe=recipe, home=tmp_path, binding=SimpleNamespace(base="ab" * 32))
    chosen: Any = SimpleNamespace(number=1, values={"finetune.rank": 4})
    none: Any = None
    return _Trial({"base": job}, {"files": []}, "c0ffee", chosen, none, none)


def row(rank: int, seconds: float) -> dict[str, Any]:
    return {"values": {"finetune.rank": rank}, "state": PRUNED, "reason": "worse than the median", "value": None,
            "wall_seconds": seconds}  # fmt: skip


def test_a_sweep_that_ended_between_the_registry_and_its_study_goes_on(trial: _Trial, tmp_path: Path) -> None:
    trial._register(row(4, 10.0))
    trial._register(row(4, 11.0))  # trained again, or from its checkpoint: only its time is another
    with Registry.open_to_read(tmp_path / "registry") as registry:
        assert [run.document["wall_seconds"] for run in registry.runs()] == [10.0]


def test_another_trial_under_its_number_is_refused(trial: _Trial) -> None:
    trial._register(row(4, 10.0))
    with pytest.raises(RunTaken, match="trial 1 is recorded already"):
        trial._register(row(8, 10.0))


def test_the_same_trial_that_came_to_something_else_is_refused(trial: _Trial) -> None:
    complete = {"state": COMPLETE, "reason": None, "value": 0.5}
    trial.training_key = "ab" * 32
    trial._register(row(4, 10.0) | complete)
    trial._register(row(4, 11.0) | complete)
    for other in (row(4, 10.0), row(4, 10.0) | complete | {"value": 0.25}):
        with pytest.raises(RunTaken, match="trial 1 is recorded already"):
            trial._register(other)
