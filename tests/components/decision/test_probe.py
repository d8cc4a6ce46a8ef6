from __future__ import annotations

from collections.abc import Sequence

import pytest

from components.data.rows import Message, Row
from components.decision.probe import LearningCurve, probe_rows, run_probe
from components.errors import InputError
from components.evaluation.statistics import paired_interval, score_interval
from components.evaluation.task import TaskResult

ROWS = [Row((Message("user", f"q{n}"), Message("assistant", f"a{n}"))) for n in range(40)]
DEV = 40


def result(right: int) -> TaskResult:
    scores = tuple(float(n < right) for n in range(DEV))
    interval = score_interval(scores)
    return TaskResult("exact_match", scores, ("",) * DEV, interval.delta, interval.low, interval.high, DEV, 1, 1, 0.1)


def probe(right_by_rows: dict[int, int], fractions: Sequence[float], simple: int = 4) -> LearningCurve:
    return run_probe(
        fractions, ROWS, lambda rows: result(right_by_rows[len(rows)]), simple_name="few-shot",
        simple_scores=result(simple).scores, seed=1,
    )  # fmt: skip


def test_smaller_fractions_are_parts_of_larger_ones() -> None:
    small, large = probe_rows(ROWS, 0.25, 3), probe_rows(ROWS, 0.5, 3)
    assert len(small) == 10
    assert {row.answer for row in small} < {row.answer for row in large}
    assert probe_rows(ROWS, 1.0, 3) == ROWS
    assert len(probe_rows(ROWS, 0.001, 3)) == 1


def test_slope_is_the_gain_of_a_doubling() -> None:
    curve = probe({10: 8, 20: 16, 40: 24}, (1.0, 0.25, 0.5))
    assert [point.rows for point in curve.points] == [10, 20, 40]
    assert curve.slope is not None
    assert curve.slope.delta == pytest.approx(8 / DEV)
    assert curve.rising
    two = probe({20: 16, 40: 24}, (0.5, 1.0))
    assert two.slope is not None
    assert two.slope.delta == pytest.approx(8 / DEV)
    expected = paired_interval(result(16).scores, result(24).scores)
    assert (two.slope.low, two.slope.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_flat_curve_does_not_rise_and_one_fraction_has_no_slope() -> None:
    flat = probe({10: 0, 40: 0}, (0.25, 1.0))
    assert flat.slope is not None
    assert flat.slope.low < 0 < flat.slope.high
    assert not flat.rising
    assert probe({40: 30}, (1.0,)).slope is None
    assert not probe({40: 30}, (1.0,)).rising


def test_gain_is_that_of_the_largest_fraction_against_the_best_prompt() -> None:
    curve = probe({20: 2, 40: 30}, (0.5, 1.0), simple=4)
    assert curve.gain.delta == pytest.approx(26 / DEV)
    assert curve.gain.low > 0
    assert curve.pairs_needed is None
    undecided = probe({40: 6}, (1.0,), simple=4)
    assert undecided.pairs_needed is not None
    assert undecided.pairs_needed > DEV


def test_fractions_that_are_none_are_refused() -> None:
    for fractions in ((), (0.0,), (1.5,)):
        with pytest.raises(InputError, match="probe fractions"):
            probe({}, fractions)
