from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from components.decision.bases import MeasuredBase, compare_bases, order_to_measure
from components.evaluation.statistics import paired_interval, score_interval

PLENTY = 100 * 2**30


def base(name: str, parameters: int, right: int, n: int = 40, *, first: int = 0, candidates: int = 1) -> MeasuredBase:
    """A base that answers `right` of n rows, beginning with the one numbered `first`."""
    scores = tuple(1.0 if (row - first) % n < right else 0.0 for row in range(n))
    found = score_interval(scores)
    return MeasuredBase(
        name, parameters, "few-shot", found.delta, found.low, found.high, scores, 100.0, 0.5, candidates
    )


def start(*bases: MeasuredBase, memory: int = PLENTY) -> str:
    return str(compare_bases(bases, memory)["start_with"])


def names(rows: Sequence[dict[str, object]]) -> list[object]:
    return [row["base"] for row in rows]


def test_middling_base_is_measured_first() -> None:
    assert order_to_measure({"large": 70, "small": 1, "middle": 7})[0] == "middle"
    # of an even number the smaller of the two in the middle
    assert order_to_measure({"a": 1, "b": 3, "c": 7, "d": 70})[0] == "b"
    assert order_to_measure({"only": 5}) == ["only"]


def test_base_that_is_clearly_better_is_taken_whatever_its_size() -> None:
    assert start(base("s", 10**9, 4), base("m", 2 * 10**9, 5), base("l", 4 * 10**9, 36)) == "l"


def test_smallest_of_those_that_are_not_told_apart_is_taken() -> None:
    found = compare_bases([base("l", 4 * 10**9, 37), base("s", 10**9, 3), base("m", 2 * 10**9, 36)], PLENTY)
    assert found["start_with"] == "m"
    assert names(found["bases"]) == ["s", "m", "l"]
    assert "50%" in found["reasons"][-1]
    (undecided,) = found["undecided"]
    assert "l is better than m" in undecided
    assert "dev rows would decide" in undecided


def test_middling_base_is_taken_where_no_base_is_told_from_another() -> None:
    found = compare_bases([base("s", 10**9, 0), base("l", 4 * 10**9, 0), base("m", 2 * 10**9, 0)], PLENTY)
    assert found["start_with"] == found["middling"] == "m"
    assert len(found["undecided"]) == 2


def test_base_that_does_not_fit_is_shown_and_left_out() -> None:
    found = compare_bases([base("s", 10**9, 4), base("l", 40 * 10**9, 40)], memory_bytes=8 * 2**30)
    assert found["start_with"] == "s"
    assert [row["fits"] for row in found["bases"]] == [True, False]
    assert found["bases"][1]["inference_bytes"] == 40 * 10**9 * 2 * 1.2
    assert "l is left out" in found["reasons"][0]
    nothing = compare_bases([base("s", 10**9, 4), base("l", 40 * 10**9, 40)], memory_bytes=2**20)
    assert nothing["start_with"] == "s"
    assert any("no base fits" in reason for reason in nothing["reasons"])


def test_differences_are_paired_over_the_same_rows() -> None:
    # both answer 20 of 40, on other rows: the interval is that of the pairs, not of the two scores
    one, other = base("a", 10**9, 20), base("b", 2 * 10**9, 20, first=20)
    found = compare_bases([one, other], PLENTY)
    expected = paired_interval(one.scores, other.scores)
    row = found["bases"][1]
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (0.0, expected.low, expected.high)
    assert (row["simultaneous_low"], row["simultaneous_high"]) == (expected.low, expected.high), "one comparison"
    assert row["tokens_per_second"] == 200.0


def test_best_of_many_has_to_be_further_ahead() -> None:
    """Six wins and no loss tell two bases apart, but not the best of three with four prompts each."""
    small, large = base("s", 10**9, 20), base("l", 4 * 10**9, 26)
    assert start(small, large) == "l"
    many = [replace(one, candidates=4) for one in (small, large, base("m", 2 * 10**9, 20))]
    found = compare_bases(many, PLENTY)
    row = next(row for row in found["bases"] if row["base"] == "s")
    assert row["delta_high"] < 0 <= row["simultaneous_high"]
    wide = paired_interval(large.scores, small.scores, comparisons=8)
    assert (row["simultaneous_low"], row["simultaneous_high"]) == (wide.low, wide.high)
    assert found["start_with"] == "m"
    assert any("l is better than s" in said for said in found["undecided"])
    assert start(*(replace(one, candidates=4) for one in (base("s", 10**9, 4), base("l", 4 * 10**9, 36)))) == "l"
