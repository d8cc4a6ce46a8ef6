"""Labels and numbers read off the rows' answers, and what can't be learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from components.data.answers import check_answers, number_in, read_targets
from components.data.rows import Message, Row
from components.errors import InputError

PATH = Path("train.jsonl")


def rows(*answers: str) -> list[Row]:
    return [
        Row((Message("user", f"text {line}"), Message("assistant", answer)), line=line)
        for line, answer in enumerate(answers, start=1)
    ]


def numbers(count: int) -> list[str]:
    return [f"{number / 4:.2f}" for number in range(count)]


def test_labels_are_the_classes_in_order() -> None:
    found = read_targets(rows("yes", "no ", "yes"), "auto", PATH)
    assert (found.task, found.labels) == ("classification", ("no", "yes"))
    assert found.values(rows("yes", "no")) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("answers", "task"),
    [
        (["1", "2", "3", "4", "5"] * 3, "classification"),  # stars
        (numbers(12), "regression"),
        (["low", "high"], "classification"),
    ],
)
def test_auto_takes_numbers_of_many_kinds_for_a_regression(answers: list[str], task: str) -> None:
    assert read_targets(rows(*answers), "auto", PATH).task == task


@pytest.mark.parametrize(
    ("answers", "decimals"),
    [
        (("1", "2.25"), 2),
        (("1", "-2"), 0),
        (("1e-3", "2"), 3),
        (("1e3", "2"), 0),
        (("0.1234567", "2"), 6),
        (("1e-7", "5e-7"), 7),
        (("1.25e-9", "9e-9"), 11),
    ],
)
def test_numbers_are_answered_with_the_digits_of_training(answers: Sequence[str], decimals: int) -> None:
    found = read_targets(rows(*answers), "regression", PATH)
    assert found.decimals == decimals
    assert found.values(rows(*answers)) == [float(answer) for answer in answers]


@pytest.mark.parametrize(
    ("answers", "task", "said"),
    [
        (("yes", "yes"), "auto", "all 2 training rows have the answer 'yes'"),
        (("yes", "no", "Yes", "yes"), "auto", "one label in 2 spellings: 'yes' (2 rows), 'Yes' (1 rows); line 3"),
        (("yes", "no", "no."), "auto", "one label in 2 spellings"),
        (("caf\u00e9", "cafe\u0301", "no"), "classification", "one label in 2 spellings"),
        ([*numbers(19), "n/a"], "auto", "line 20: the answer 'n/a' is no number, and 19 of 20 answers are"),
        (("1", "two"), "regression", "line 2: the answer 'two' is no number"),
        (("1", "nan"), "regression", "line 2: the answer 'nan' is no number"),
        (("2", "2.0"), "regression", "all 2 training rows have the answer 2"),
        ([f"a text of its own {n}" for n in range(30)], "auto", "30 different answers in 30 training rows are texts"),
    ],
)
def test_what_no_head_can_learn_is_told(answers: Sequence[str], task: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_targets(rows(*answers), task, PATH)
    assert said in str(error.value)
    assert error.value.allowed


def test_a_label_that_training_never_saw_is_told_with_the_nearest() -> None:
    targets = read_targets(rows("positive", "negative"), "auto", PATH)
    check_answers(targets, rows("negative", "positive"), Path("dev.jsonl"))
    with pytest.raises(InputError, match=r"dev\.jsonl, line 2: the label 'postive' is in no training row") as error:
        check_answers(targets, rows("negative", "postive"), Path("dev.jsonl"))
    assert error.value.next_step == "did you mean 'positive'?"
    with pytest.raises(InputError, match="line 1: the label 'Positive'"):
        check_answers(targets, rows("Positive"), Path("dev.jsonl"))


def test_a_number_that_is_none_is_told_in_dev() -> None:
    targets = read_targets(rows("1", "2"), "regression", PATH)
    with pytest.raises(InputError, match="line 1: the answer 'high' is no number"):
        check_answers(targets, rows("high"), Path("dev.jsonl"))


@pytest.mark.parametrize("text", ["", "1,5", "inf", "nan", "1_000", "0x1", "1e999", "1 2"])
def test_what_is_no_number(text: str) -> None:
    assert number_in(text) is None
