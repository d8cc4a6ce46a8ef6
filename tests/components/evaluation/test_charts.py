"""The report's drawings: axes hold their data, marks lie where their values are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.charts import (
    Series,
    axis,
    bar_strip,
    curve,
    difference_strip,
    scale_for,
    stacked_bar,
)


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=20))
def test_axis_holds_its_values_and_has_few_round_ticks(values: list[float]) -> None:
    scale = scale_for(values, include=(0.0,))
    slack = (scale.high - scale.low) * 1e-6
    assert scale.low - slack <= min(*values, 0.0)
    assert max(*values, 0.0) <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 7
    assert any(abs(tick) <= slack for tick in scale.ticks)


def test_axis_without_values_still_stands() -> None:
    assert scale_for([None, float("nan")]).ticks == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert scale_for([3.0, 3.0]).low < 3.0 < scale_for([3.0, 3.0]).high


def test_axis_labels_zero() -> None:
    scale = scale_for([-0.05, 0.04], include=(0.0,))
    assert ">0<" in axis(scale, lambda tick: f"{tick * 100:g}", description="points")


def test_bar_and_interval_lie_at_their_values() -> None:
    scale = scale_for([0.0, 0.4])
    strip = bar_strip(scale, [(0.1, "base"), (0.3, "tuned")], description="d", whisker=(0.2, 0.4))
    assert 'class="bar base" x="0.00%" width="25.00%"' in strip
    assert 'class="bar tuned" x="0.00%" width="75.00%"' in strip
    assert 'class="whisker" x1="50.00%" x2="100.00%"' in strip


def test_forest_row_marks_zero_and_bound() -> None:
    scale = scale_for([-0.05, 0.05], include=(0.0,), intervals=2)
    strip = difference_strip(scale, 0.025, 0.0, 0.05, bound=-0.05, tone="good", description="d")
    assert re.search(r'class="zero" x1="50.00%" x2="50.00%"', strip)
    assert re.search(r'class="bound" x1="0.00%" x2="0.00%"', strip)
    assert 'class="point good" cx="75.00%"' in strip


def test_missing_marks_are_not_drawn() -> None:
    strip = difference_strip(scale_for([]), None, None, None, bound=None, tone="neutral", description="d")
    assert "<circle" not in strip
    assert "whisker" not in strip
    assert "bound" not in strip


def test_parts_follow_one_another() -> None:
    drawn = stacked_bar([(1, "weights"), (0, "gradients"), (3, "activations")], 8, limit=6, description="d")
    assert 'class="part weights" x="0.00%" width="12.50%"' in drawn
    assert 'class="part activations" x="12.50%" width="37.50%"' in drawn
    assert "gradients" not in drawn
    assert 'class="limit" x1="75.00%"' in drawn


def test_curve_runs_from_the_first_step_to_the_last() -> None:
    series = Series("loss", "tuned", tuple((float(step), 2.0 - step / 100) for step in range(1, 97)), marked=False)
    drawn = curve([series], label=lambda tick: f"{tick:g}", description="loss")
    points = re.findall(r"([\d.]+),([\d.]+)", re.search(r'points="([^"]+)"', drawn).group(1))  # type: ignore[union-attr]
    assert float(points[0][0]) < 20
    assert float(points[-1][0]) == pytest.approx(1000)
    assert [float(y) for _, y in points] == sorted(float(y) for _, y in points), "a falling loss goes down the page"
    assert "step 96" in drawn


def test_long_curve_is_thinned_and_keeps_its_end() -> None:
    points = tuple((float(step), float(step)) for step in range(10_001))
    drawn = curve([Series("loss", "raw", points)], label=str, description="loss")
    assert drawn.count(",") < 500
    assert "1000.0,0.0" in drawn


def test_curve_without_points_is_nothing() -> None:
    assert curve([Series("loss", "raw", ())], label=str, description="loss") == ""


def test_descriptions_are_escaped() -> None:
    assert "<b>" not in bar_strip(scale_for([1]), [(1, "base")], description="<b>\"'")
