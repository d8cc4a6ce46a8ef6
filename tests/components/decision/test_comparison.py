from __future__ import annotations

import random

import pytest

from components.decision.comparison import (
    CHAMPION,
    best_simple,
    compare,
    compare_to_all,
    describe,
    gather,
    passages_gain,
)
from components.decision.diagnosis import Diagnosis
from components.evaluation.statistics import paired_interval, pairs_needed, score_interval, wilson
from components.evaluation.task import TaskResult

NOTHING_FAILS = Diagnosis(0, 0, 0, 20, "", ())


def result(right: int, n: int = 20, *, first: int = 0) -> TaskResult:
    """A candidate that is right on `right` of n rows, beginning with the one numbered `first`."""
    scores = tuple(1.0 if (row - first) % n < right else 0.0 for row in range(n))
    found = score_interval(scores)
    return TaskResult("exact_match", scores, ("",) * n, found.delta, found.low, found.high, n, 10.0, 12.0, 0.1)


def test_passages_are_compared_with_the_same_prompt_without_them() -> None:
    """Examples cost 30 points and passages give 25: against the plain question that would look like a loss."""
    results = {"zero-shot": result(6), "few-shot": result(0), "rag-few-shot": result(5)}
    gain = passages_gain(results, "rag-few-shot", "zero-shot", 0, written=False)
    assert gain is not None
    assert (gain.against, gain.pure, gain.delta) == ("few-shot", True, 0.25)
    assert gain.low > 0
    measured = gather(
        results, "zero-shot", NOTHING_FAILS, target_score=0.9, train_rows=9, min_train_rows=9, seed=0
    )  # fmt: skip
    assert measured.retrieved is not None
    assert (measured.retrieved.against, measured.retrieved.gain) == ("few-shot", 0.25)
    assert measured.retrieved.over_best == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("name", "written", "against"),
    [
        ("rag", False, "zero-shot"),
        ("rag", True, "prompt"),
        ("oracle", True, "prompt"),
        ("oracle-few-shot", True, "few-shot"),
        ("rag-few-shot", False, "few-shot"),
    ],
)
def test_counterpart_is_the_prompt_that_passages_were_put_into(name: str, written: bool, against: str) -> None:
    results = {simple: result(3) for simple in ("zero-shot", "prompt", "few-shot")} | {name: result(9)}
    gain = passages_gain(results, name, "zero-shot", 0, written=written)
    assert gain is not None
    assert (gain.against, gain.pure) == (against, True)
    assert passages_gain(results, "few-shot", "zero-shot", 0, written=written) is None


def test_where_the_counterpart_was_not_measured_the_best_simple_prompt_stands_for_it_and_that_is_said() -> None:
    results = {"zero-shot": result(3), "rag-few-shot": result(9)}
    gain = passages_gain(results, "rag-few-shot", "zero-shot", 0, written=False)
    assert gain is not None
    assert (gain.against, gain.pure) == ("zero-shot", False)


def test_intervals_that_hold_at_once_stand_beside_the_ones_taken_by_themselves() -> None:
    results = {"zero-shot": result(4), "few-shot": result(9), "rag": result(8), "rag-few-shot": result(15)}
    found = describe("rag-few-shot", results, "few-shot", saved=0, shared=(), seed=0)
    assert (found.low, found.high) == wilson(15, 20)
    assert (found.simultaneous_low, found.simultaneous_high) == wilson(15, 20, 4)
    assert found.passages is not None
    alone, at_once = (
        paired_interval(results["few-shot"].scores, results["rag-few-shot"].scores, comparisons=c) for c in (1, 2)
    )
    assert (found.passages.low, found.passages.high) == (alone.low, alone.high)
    assert (found.passages.simultaneous_low, found.passages.simultaneous_high) == (at_once.low, at_once.high)
    assert at_once.low < alone.low
    assert (found.delta_low, found.delta_high) == (alone.low, alone.high)


def test_best_of_several_is_not_decided_by_an_interval_taken_by_itself() -> None:
    """Five wins and no loss decide between two prompts; of four prompts one may be so lucky."""
    two = {"few-shot": result(11), "zero-shot": result(6)}
    (alone,) = compare_to_all(two, "few-shot", 0)
    assert alone.decided
    four = {**two, "prompt": result(6), "few-shot-retrieved": result(6)}
    lucky = compare_to_all(four, "few-shot", 0)
    assert [(c.low, c.decided) for c in lucky] == [(alone.low, False)] * 3
    assert {c.pairs_needed for c in lucky} == {pairs_needed(0.25, 0.25, 3)}
    clear = compare_to_all({**four, "few-shot": result(20)}, "few-shot", 0)
    assert all(c.decided for c in clear), "what is clear stays so"


def test_champion_is_picked_from_nothing_and_keeps_its_own_interval() -> None:
    results = {"zero-shot": result(6), "few-shot": result(6), CHAMPION: result(12)}
    found = describe(CHAMPION, results, "zero-shot", saved=0, shared=(), seed=0)
    assert (found.simultaneous_low, found.simultaneous_high) == (found.low, found.high)
    against = compare_to_all(results, "zero-shot", 0)[-1]
    assert (against.simultaneous_low, against.simultaneous_high) == (against.low, against.high)


def test_lower_bound_of_the_best_of_five_equal_prompts_is_seldom_above_the_truth() -> None:
    """The bound that decides whether a prompt solves the task: 2.5 % are allowed, and by itself it takes far more."""
    pick = random.Random(3)
    alone = at_once = 0
    for _ in range(600):
        results = {}
        for name in ("zero-shot", "prompt", "few-shot", "few-shot-retrieved", "rag"):
            right = sum(pick.random() < 0.5 for _ in range(50))
            results[name] = result(right, 50)
        best = max(results, key=lambda name: results[name].score)
        found = describe(best, results, best, saved=0, shared=(), seed=0)
        alone += found.low > 0.5
        at_once += found.simultaneous_low > 0.5
    assert at_once / 600 < 0.04 < 0.08 < alone / 600


def test_a_comparison_alone_is_the_paired_interval() -> None:
    results = {"zero-shot": result(6), "few-shot": result(9)}
    found = compare(results, "few-shot", "zero-shot", 0)
    expected = paired_interval(results["zero-shot"].scores, results["few-shot"].scores)
    assert (found.delta, found.low, found.high) == (expected.delta, expected.low, expected.high)
    assert best_simple({**results, "rag": result(20)}, lambda _: 0) == "few-shot"
