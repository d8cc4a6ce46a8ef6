from __future__ import annotations

import pytest

from components.errors import InputError
from components.evaluation.statistics import paired_interval
from components.evaluation.suites import SuiteResult
from components.evaluation.tax import compare, untouched


def result(correct: list[bool], suite: str = "piqa", digest: str = "d1") -> SuiteResult:
    share = sum(correct) / len(correct)
    return SuiteResult(suite, digest, "accuracy", tuple(correct), share, share, share, 1.0)


def test_unchanged_answers_on_a_large_sample_pass() -> None:
    answers = [True, False] * 100
    (row,) = compare([result(answers)], [result(answers)], max_drop=0.03)
    assert (row["delta"], row["passed"]) == (0.0, True)
    assert -0.03 < row["low"] < 0 < row["high"]
    assert set(row) >= {"suite", "digest", "n", "metric", "base", "tuned", "delta", "low", "high", "passed"}


def test_sample_too_small_to_tell_does_not_pass() -> None:
    answers = [True, False] * 10
    (row,) = compare([result(answers)], [result(answers)], max_drop=0.03)
    assert row["delta"] == 0.0
    assert not row["passed"]


def test_loss_within_the_allowed_drop_still_fails_when_its_interval_reaches_beyond() -> None:
    before = [True] * 150 + [False] * 50
    after = [True] * 143 + [False] * 57
    (row,) = compare([result(before)], [result(after)], max_drop=0.05)
    expected = paired_interval([float(x) for x in before], [float(x) for x in after])
    assert (row["base"], row["tuned"]) == (0.75, 0.715)
    assert (row["low"], row["high"]) == (expected.low, expected.high)
    assert row["delta"] > -0.05 > row["low"]
    assert not row["passed"]
    (wider,) = compare([result(before)], [result(after)], max_drop=0.08)
    assert wider["passed"]


def test_different_samples_are_not_compared() -> None:
    with pytest.raises(InputError, match="not the same samples"):
        compare([result([True])], [result([True], digest="d2")], max_drop=0.1)
    with pytest.raises(InputError, match="not the same samples"):
        compare([result([True])], [], max_drop=0.1)
    with pytest.raises(InputError, match=r"max_drop is -0\.1"):
        compare([], [], max_drop=-0.1)


def test_untouched_weights_have_no_tax_and_say_why() -> None:
    (row,) = untouched([result([True, False] * 10)], max_drop=0.03)
    assert (row["delta"], row["low"], row["high"], row["passed"]) == (0.0, 0.0, 0.0, True)
    assert row["base"] == row["tuned"] == 0.5
    assert row["by_construction"] is True
    assert set(row) >= set(compare([result([True])], [result([True])], max_drop=0.1)[0])
