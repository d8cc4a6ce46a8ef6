"""`tunewright multitask`: three ways on equal budgets, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import SPLITS, call_command, write_rows

Project = Callable[..., Path]


def tasks_recipe(project: Project, folder: Path, **tasks: object) -> Path:
    recipe = project(finetune={"rank": 2, "dev_loss_rows": 2}, evaluation={"suites": []})
    document = yaml.safe_load(recipe.read_text())
    files: dict[str, dict[str, object]] = {}
    for place, (name, answer) in enumerate((("count", "SELECT count(*) FROM t{}"), ("name", "SELECT name FROM t{}"))):
        files[name] = {"weight": 1 + place}
        for split, numbers in SPLITS.items():
            path = folder / f"{name}-{split}.jsonl"
            start = numbers.start + 100 * place
            write_rows(path, range(start, start + len(numbers)), answer)
            files[name][split] = path.name
    document["data"] = {"tasks": {**files, **tasks}, "replay": 0.2}
    recipe.write_text(yaml.safe_dump(document))
    return recipe


@pytest.mark.integration
def test_three_ways_are_measured_on_every_task_and_kept(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tasks_recipe(project, tmp_path)
    status, out, _ = call_command(monkeypatch, capsys, "multitask", str(recipe), "--json")
    assert status == 0
    found = json.loads(out)
    assert [way["way"] for way in found["ways"]] == ["mixed", "sequential", "one adapter a task"]
    assert [way["runs"] for way in found["ways"]] == [1, 1, 2]
    budget = found["budget_tokens"]
    for way in found["ways"]:
        # beyond it by less than a sequence for each task and stage
        assert budget <= way["tokens"] < budget + 4 * 250
        assert [row["task"] for row in way["tasks"]] == ["count", "name"]
        assert sum(row["tokens"] for row in way["tasks"]) == budget
    for way in (found["ways"][0], found["ways"][2]):
        assert way["tasks"][1]["tokens"] == pytest.approx(2 * way["tasks"][0]["tokens"], abs=2)
    mixed, _, apart = found["ways"]
    assert apart["bytes"] == pytest.approx(2 * mixed["bytes"], rel=0.1)
    assert not (tmp_path / "home" / "registry").exists()

    # everything is kept: the second time nothing is trained
    monkeypatch.setattr("components.finetuning.finetune.finetune", None)
    status, out, _ = call_command(monkeypatch, capsys, "multitask", str(recipe))
    assert status == 0
    assert "one adapter a task" in out
    assert f"{budget:,} tokens a way" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "data.train=train.jsonl"), "can't stand beside data.tasks"),
        (("--set", "data.tasks={one: {train: a, dev: b, test: c}}"), "name two or more"),
        (("--set", "data.tasks={'No!': {train: a, dev: b, test: c}, x: {train: a, dev: b, test: c}}"), "'No!'"),
        (("--set", "data.replay=1"), "data.replay"),
        (("--set", "finetune.early_stopping=1"), "compared on equal tokens"),
        # one key of one task: the others stay
        (("--set", "data.tasks.count.train=none.jsonl"), "no data file"),
        (("--set", "gate.subset=even"), "gate.subset can't stand"),
        (
            ("--set", "data.tasks={a: {train: none.jsonl, dev: b, test: c}, b: {train: a, dev: b, test: c}}"),
            "no data file",
        ),
    ],
)
def test_tasks_that_cannot_be_used_are_told_before_time_is_spent(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    recipe = tasks_recipe(project, tmp_path)
    status, _, err = call_command(monkeypatch, capsys, "multitask", str(recipe), *arguments)
    assert status == 2
    assert said in err


def test_rows_of_one_task_that_another_asks_are_a_leak(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tasks_recipe(project, tmp_path)
    (tmp_path / "name-train.jsonl").write_text((tmp_path / "count-test.jsonl").read_text())
    status, _, err = call_command(monkeypatch, capsys, "multitask", str(recipe))
    assert status == 2
    assert "leakage" in err


def test_a_recipe_with_tasks_is_for_this_command_and_one_without_is_not(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call_command(monkeypatch, capsys, "multitask", str(project()))
    assert (status, "has no data.tasks" in err) == (2, True)
    status, _, err = call_command(monkeypatch, capsys, "finetune", str(tasks_recipe(project, tmp_path)))
    assert (status, "tunewright multitask" in err) == (2, True)
