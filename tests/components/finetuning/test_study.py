"""The trials of a sweep: drawn by seed, gone on with after a kill, given up by the median of those before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.finetuning import study as module
from components.finetuning.search_space import Swept
from components.finetuning.study import COMPLETE, FAILED, PRUNED, Study

pytest.importorskip("optuna")

SPACE = (
    Swept("finetune.method", {"lora": "lora", "full": "full"}),
    Swept("finetune.learning_rate", {}, 1e-4, 1e-2, log=True),
    Swept("finetune.rank", {}, 2, 16, whole=True),
)


def opened(file: Path, **changes: Any) -> Study:
    settings = {"sampler": "tpe", "pruner": "median", "maximize": False, "seed": 3, **changes}
    return Study(file, SPACE, **settings)


def loss(values: dict[str, Any]) -> float:
    return abs(values["finetune.learning_rate"] - 2e-3) * 100 + (values["finetune.method"] == "full")


def values_of(study: Study, trials: int) -> list[dict[str, Any]]:
    drawn = []
    while len(drawn) < trials:
        trial = study.next("lora")
        drawn.append(trial.values)
        study.end(trial, COMPLETE, loss(trial.values), {"values": trial.values})
    return drawn


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sweep_that_was_killed_draws_what_it_would_have_drawn(tmp_path: Path, sampler: str) -> None:
    whole = values_of(opened(tmp_path / "whole.db", sampler=sampler), 14)
    cut = values_of(opened(tmp_path / "cut.db", sampler=sampler), 6)
    under_way = opened(tmp_path / "cut.db", sampler=sampler).next("lora")  # and killed before it ended
    assert under_way.number == 7
    cut += values_of(opened(tmp_path / "cut.db", sampler=sampler), 8)
    assert cut == whole
    assert values_of(opened(tmp_path / "other.db", sampler=sampler, seed=4), 3) != whole[:3]


def test_a_key_is_drawn_only_for_the_methods_that_read_it(tmp_path: Path) -> None:
    drawn = values_of(opened(tmp_path / "study.db"), 12)
    assert {"full", "lora"} == {values["finetune.method"] for values in drawn}
    assert all(("finetune.rank" in values) == (values["finetune.method"] == "lora") for values in drawn)
    assert all(isinstance(values.get("finetune.rank", 2), int) for values in drawn)


def test_a_trial_worse_than_the_median_is_given_up_after_its_second_measurement(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db")
    for _ in range(module.STARTUP_TRIALS):
        trial = study.next("lora")
        assert not any(trial.report(place, 1.0) for place in (1, 2, 3))
        study.end(trial, COMPLETE, 1.0, {})
    worse = study.next("lora")
    assert [worse.report(1, 2.0), worse.report(2, 2.0)] == [False, True]
    # killed before that was noted: the next process is told the same measurements, and comes to the same
    again = opened(tmp_path / "study.db").next("lora")
    assert again.number == worse.number
    assert any([again.report(1, 2.0), again.report(2, 2.0)])
    study.end(again, PRUNED, None, {})
    better = study.next("lora")
    assert not any(better.report(place, 0.5) for place in (1, 2))
    kept = opened(tmp_path / "other.db", pruner="none")
    assert not any(kept.next("lora").report(place, 9.0) for place in (1, 2))


def test_ended_trials_are_told_with_what_was_written_down(tmp_path: Path) -> None:
    file = tmp_path / "a {folder} of 100 %" / "study.db"
    file.parent.mkdir()
    study = opened(file, maximize=True)
    for state, value in ((COMPLETE, 0.5), (FAILED, None), (PRUNED, None)):
        study.end(study.next("lora"), state, value, {"state": state})
    found = opened(file, maximize=True).ended()
    assert [(one.number, one.state, one.value) for one in found] == [
        (1, COMPLETE, 0.5),
        (2, FAILED, None),
        (3, PRUNED, None),
    ]
    assert [one.document["state"] for one in found] == [COMPLETE, FAILED, PRUNED]


def test_importance_is_told_once_there_are_enough_complete_trials(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db", sampler="random")
    values_of(study, module.LEAST_FOR_IMPORTANCE - 1)
    assert study.importance() is None
    values_of(study, 12)
    found = study.importance()
    assert found is not None
    assert set(found) <= {swept.key for swept in SPACE}
    assert sum(found.values()) == pytest.approx(1.0)


def test_without_optuna_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.errors import InputError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --constraint constraints.txt --editable '.\[sweep\]'"):
        module.check_optuna()
