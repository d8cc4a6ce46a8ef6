"""Splitting by database: seeded, complete, and without a database in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.rows import read_rows
from components.data.text2sql.split import assign_databases, split, split_rows
from components.errors import InputError

PARAMETERS = {"seed": 3, "test_databases": ["music_1"], "dev_databases": 2, "dev_minimum_single_table_rows": 8}


@given(seed=st.integers(0, 10_000), minimum=st.integers(1, 12))
def test_dev_holds_enough_questions_and_nothing_is_in_two_splits(seed: int, minimum: int) -> None:
    single = {f"d{i}": i for i in range(9)}
    assignment = assign_databases(single, ["d8", "d0"], 2, minimum, seed)
    assert set(assignment) == set(single)
    assert {d for d, s in assignment.items() if s == "test"} == {"d8", "d0"}
    dev = [d for d, s in assignment.items() if s == "dev"]
    assert len(dev) == 2
    assert sum(single[d] for d in dev) >= minimum


def test_the_seed_decides_which_databases_are_for_development() -> None:
    single = {f"d{i}": 20 for i in range(12)}
    drawn = {tuple(sorted(assign_databases(single, ["d0"], 3, 40, seed).items())) for seed in range(8)}
    assert len(drawn) > 1
    assert assign_databases(single, ["d0"], 3, 40, 5) == assign_databases(single, ["d0"], 3, 40, 5)


def test_every_row_is_in_exactly_one_split_and_the_bytes_are_reproduced(prepared: Path, tmp_path: Path) -> None:
    questions = prepared / "questions.jsonl"
    split(questions, tmp_path / "a", PARAMETERS)
    split(questions, tmp_path / "b", PARAMETERS)
    ids: list[str] = []
    for name in ("train", "dev", "test"):
        rows = read_rows(tmp_path / "a" / f"{name}.jsonl")
        ids += [r.metadata["id"] for r in rows]
        assert (tmp_path / "a" / f"{name}.jsonl").read_bytes() == (tmp_path / "b" / f"{name}.jsonl").read_bytes()
    assert sorted(ids) == sorted(r.metadata["id"] for r in read_rows(questions))
    assert {r.metadata["database"] for r in read_rows(tmp_path / "a/test.jsonl")} == {"music_1"}


@pytest.mark.parametrize(
    ("test", "dev", "minimum", "problem"),
    [
        (["nowhere"], 1, 1, "unknown test databases: nowhere"),
        (["a"], 2, 1, "cannot draw"),
        (["a"], 0, 0, "cannot draw"),
        (["a"], 1, 100, "cannot draw"),
    ],
)
def test_impossible_parameters_are_refused(test: list[str], dev: int, minimum: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        assign_databases({"a": 5, "b": 5, "c": 5}, test, dev, minimum, 0)


def test_an_empty_split_is_refused(prepared: Path) -> None:
    rows = read_rows(prepared / "questions.jsonl")
    with pytest.raises(InputError, match="empty split: dev, test"):
        split_rows(rows, {f"music_{i}": "train" for i in range(6)})
