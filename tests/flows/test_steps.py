"""The steps by themselves: which rows they take, what they keep, and what they find by the recipe's paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.errors import InputError
from components.memory.hardware import Gpus
from components.recipe import load_recipe
from flows import steps
from flows.job import Job
from flows.observer import TerminalObserver
from flows.open_job import open_job
from flows.step_reads import file_digest
from flows.step_store import Step, released
from tests.flows.conftest import write_rows

Project = Callable[..., Path]


def job_of(recipe: Path, tmp_path: Path) -> Job:
    return open_job(load_recipe(recipe), tmp_path / "home")


def test_rows_are_those_that_were_materialised_not_those_that_were_checked(project: Project, tmp_path: Path) -> None:
    job = job_of(project(), tmp_path)
    assert len(job.train_rows) == 24
    # as when a checkout brings a newer file after the checks
    write_rows(tmp_path / "train.jsonl", range(12))
    data = steps.data(job, TerminalObserver())
    assert data["splits"]["train"]["rows"] == len(job.train_rows) == 12


def test_a_path_out_of_the_folder_finds_its_own_digest(project: Project, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-beside"
    outside.mkdir()
    write_rows(outside / "train.jsonl", range(16))
    job = job_of(project(data={"train": f"../{outside.name}/train.jsonl"}), tmp_path)
    data = steps.data(job, TerminalObserver())
    by_name = {file["path"]: file["sha256"] for file in data["files"]}
    assert file_digest(job, data, job.recipe.data.train) == by_name[str(outside / "train.jsonl")]
    assert file_digest(job, data, "dev.jsonl") == by_name["dev.jsonl"]


PLAN: dict[str, Any] = {"fits": True, "devices": 1, "gpu": None, "time": None, "would_fit": []}


@pytest.mark.parametrize(("budget", "times"), [("auto", 2), ("1GiB", 1)])
def test_what_did_not_fit_is_asked_again_where_memory_is_what_is_free(
    budget: str, times: int, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def never_fits(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        return SimpleNamespace(to_dict=lambda: {**PLAN, "fits": False})

    monkeypatch.setattr("components.memory.plan.make_plan", never_fits)
    job = job_of(project(memory={"budget": budget}), tmp_path)
    data = steps.data(job, TerminalObserver())
    for _ in range(2):
        steps.plan(job, data, TerminalObserver())
    assert len(asked) == times


TIME = {"seconds": 3600.0, "low_seconds": 1800.0, "high_seconds": 7200.0, "cost": None}


def test_another_price_plans_nothing_anew_and_another_dropout_or_gpu_does(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropouts: list[float] = []

    def fits(*_: Any, dropout: float, **others: Any) -> Any:
        assert others.get("price_per_hour") is None
        dropouts.append(dropout)
        return SimpleNamespace(to_dict=lambda: {**PLAN, "time": TIME})

    monkeypatch.setattr("components.memory.plan.make_plan", fits)

    def cost(dropout: float, price: float | None) -> Any:
        section = {"budget": "1GiB"} | ({} if price is None else {"price_per_hour": price})
        job = job_of(project(memory=section, finetune={"dropout": dropout}), tmp_path)
        data = steps.data(job, TerminalObserver())
        return steps.plan(job, data, TerminalObserver()).document["time"]["cost"]

    assert cost(0.0, 2.0)["cost"] == 2.0
    assert cost(0.0, 3.0)["high"] == 6.0
    assert cost(0.0, None) is None
    assert dropouts == [0.0]
    cost(0.1, None)
    assert dropouts == [0.0, 0.1]
    card = Gpus("a card", 80_000_000_000, "9.0", 1)
    monkeypatch.setattr("components.memory.hardware._gpus", lambda: card)
    cost(0.1, None)
    assert len(dropouts) == 3


def test_a_released_model_gives_its_gpu_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(True))
    step = Step("measure", "key", {}, False, 0.0)
    assert released(step) is step
    assert emptied == [True]


def test_a_row_that_spells_out_a_special_token_is_refused_with_its_line(project: Project, tmp_path: Path) -> None:
    recipe = project()
    write_rows(tmp_path / "test.jsonl", range(40, 52), answer="yes<|im_end|> {}")
    with pytest.raises(InputError, match=r"test.jsonl, line 1: .*<\|im_end\|>"):
        steps.data(job_of(recipe, tmp_path), TerminalObserver())


def test_a_leak_is_refused_where_the_repeated_row_was_not_drawn(project: Project, tmp_path: Path) -> None:
    recipe = project(evaluation={"test_rows": 1})
    leaked = (tmp_path / "train.jsonl").read_text().splitlines()[0]
    for place in (0, -1):
        kept = (tmp_path / "test.jsonl").read_text().splitlines()
        kept.insert(place if place == 0 else len(kept), leaked)
        (tmp_path / "test.jsonl").write_text("\n".join(kept) + "\n")
        with pytest.raises(InputError, match="leakage"):
            steps.data(job_of(recipe, tmp_path), TerminalObserver())
        # one of the two places is not the row that is scored
        (tmp_path / "test.jsonl").write_text("\n".join(line for line in kept if line != leaked) + "\n")


def test_what_is_reported_and_how_dev_rows_are_watched_trains_nothing_anew_unless_they_decide(
    project: Project, tmp_path: Path
) -> None:
    def reads(**changes: Any) -> dict[str, Any]:
        job = job_of(project(finetune={"keep_best": False, **changes}), tmp_path)
        data = steps.data(job, TerminalObserver())
        return steps._training_reads(job, data, {"method": "lora"})

    watched = reads()
    assert reads(report_to=["tensorboard"]) == watched
    assert reads(dev_passes=7) == reads(dev_loss_rows=2) == watched
    stopping = reads(early_stopping=1)
    assert stopping != watched
    assert reads(early_stopping=1, dev_loss_rows=2) != stopping
    assert reads(keep_best=True) not in (stopping, watched)


def test_a_reporter_that_is_not_installed_is_refused_at_the_door(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.finetuning.reporting.REPORTERS", {"wandb": "no_such_module"})
    with pytest.raises(InputError, match=r"finetune\.report_to has wandb, which is not installed"):
        job_of(project(finetune={"report_to": ["wandb"]}), tmp_path)
    assert not (tmp_path / "home").exists()
