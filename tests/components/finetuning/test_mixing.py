from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.data.rows import Row
from components.errors import InputError
from components.finetuning.mixing import WAYS, mixtures
from components.finetuning.run_schedule import training_schedule
from components.finetuning.schedule import Schedule
from tests.components.finetuning.conftest import rows, settings

MIXED, SEQUENTIAL, APART = WAYS


def test_each_way_has_the_same_budget_and_each_task_its_share() -> None:
    found = mixtures({"a": 1.0, "b": 3.0}, 4000, 0.1)
    assert found[MIXED] == {MIXED: ((("a", 1000), ("b", 3000)),)}
    assert found[SEQUENTIAL] == {SEQUENTIAL: ((("a", 1000),), (("b", 2700), ("a", 300)))}
    assert found[APART] == {"a": ((("a", 1000),),), "b": ((("b", 3000),),)}
    for runs in found.values():
        assert sum(count for mixture in runs.values() for stage in mixture for _, count in stage) == 4000
    assert mixtures({"a": 1.0, "b": 1.0}, 10, 0.0)[SEQUENTIAL][SEQUENTIAL] == ((("a", 5),), (("b", 5),))
    third = mixtures({"a": 1.0, "b": 2.0, "c": 3.0}, 600, 0.2)[SEQUENTIAL][SEQUENTIAL][2]
    assert third == (("c", 240), ("a", 20), ("b", 40))


@pytest.mark.parametrize(("weights", "tokens"), [({"a": 1.0}, 100), ({"a": 1.0, "b": 0.0}, 100), ({"a": 1, "b": 1}, 0)])
def test_what_cannot_be_mixed_is_refused(weights: dict[str, float], tokens: int) -> None:
    with pytest.raises(InputError):
        mixtures(weights, tokens, 0.1)


def two_tasks() -> list[Row]:
    return [replace(row, metadata={"task": "ab"[number % 2]}) for number, row in enumerate(rows(16))]


def tasks_of(schedule: Schedule) -> list[list[str]]:
    # rows of task a are on odd lines, which are counted from 1
    return [["ba"[line % 2] for line in lines] for lines in schedule.lines]


def test_a_mixed_schedule_keeps_to_budgets_in_every_step(tiny_tokenizer: Any) -> None:
    found = mixtures({"a": 1.0, "b": 3.0}, 6000, 0.25)
    mixed, _ = training_schedule(tiny_tokenizer, two_tasks(), settings(mixture=found[MIXED][MIXED]))
    assert 6000 <= mixed.tokens < 6000 + 2 * 200
    share = [sum(task == "a" for task in step) / len(step) for step in tasks_of(mixed)]
    halves = [sum(part) / len(part) for part in (share[: len(share) // 2], share[len(share) // 2 :])]
    assert halves == pytest.approx([0.25, 0.25], abs=0.08)
    again, _ = training_schedule(tiny_tokenizer, two_tasks(), settings(mixture=found[MIXED][MIXED]))
    assert again == mixed


def test_tasks_in_turn_come_in_their_order_with_replay(tiny_tokenizer: Any) -> None:
    (mixture,) = mixtures({"a": 1.0, "b": 1.0}, 6000, 0.25)[SEQUENTIAL].values()
    found, _ = training_schedule(tiny_tokenizer, two_tasks(), settings(mixture=mixture))
    steps = tasks_of(found)
    middle = next(number for number, step in enumerate(steps) if "b" in step)
    assert middle == pytest.approx(len(steps) / 2, abs=1.5)
    later = [task for step in steps[middle + 1 :] for task in step]
    assert later.count("a") / len(later) == pytest.approx(0.25, abs=0.08)
    assert found.tokens == pytest.approx(6000, abs=600)


def test_a_task_without_rows_is_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="'c' has no training rows"):
        training_schedule(tiny_tokenizer, two_tasks(), settings(mixture=((("a", 10), ("c", 10)),)))
