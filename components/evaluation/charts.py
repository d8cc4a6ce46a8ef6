"""Inline SVG for the report: strips that sit in table cells, a memory bar, and curves over training steps.

Drawn by hand rather than by matplotlib: horizontal positions are percentages, so a chart keeps its text size from
360 px to paper, and every colour is a CSS class, so one drawing serves light, dark and print. Equal input, equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = [
    "Scale",
    "Series",
    "axis",
    "bar_strip",
    "curve",
    "decades_for",
    "difference_strip",
    "range_strip",
    "scale_for",
    "stacked_bar",
]

STRIP_HEIGHT = 26
PLOT_HEIGHT = 180
MOST_POINTS = 400


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` with its ticks, in data units."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, cut to 0..1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def at(self, value: float) -> str:
        """Return a value's place as an SVG percentage."""
        return f"{self.share(value) * 100:.2f}%"


@dataclass(frozen=True)
class Series:
    """One line of a curve: its name, its CSS class, its (step, value) points, and whether points are marked."""

    name: str
    css: str
    points: tuple[tuple[float, float], ...]
    marked: bool = False


def scale_for(values: Sequence[float | None], *, include: Sequence[float] = (), intervals: int = 4) -> Scale:
    """Return an axis with round ticks that holds every value.

    Args:
        values: Data; None is passed over.
        include: Values that must be on the axis too, such as zero or a bound.
        intervals: About how many intervals between ticks.
    """
    known = [value for value in [*values, *include] if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    largest = max(abs(low), abs(high))
    if largest < 1e-9:
        low, high = 0.0, 1.0
    elif high - low <= 1e-9 * largest:
        low, high = low - largest / 2, high + largest / 2
    rough = (high - low) / intervals
    exponent = math.floor(math.log10(rough))
    step = next(m * 10.0**exponent for m in (1, 2, 2.5, 5, 10) if m * 10.0**exponent >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 2 - exponent) for index in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def decades_for(values: Sequence[float | None]) -> Scale:
    """Return an axis over the decimal logarithm of positive values, with a tick at each power of ten.

    Args:
        values: Data; None and what is not above zero are passed over.
    """
    known = [math.log10(value) for value in values if value is not None and 0 < value < math.inf] or [0.0]
    low, high = math.floor(min(known)), math.ceil(max(known))
    high = max(high, low + 1)
    return Scale(low, high, tuple(float(power) for power in range(low, high + 1)))


def _svg(css: str, height: int, description: str, body: str) -> Markup:
    label = escape(description)
    return Markup(
        f'<svg class="{css}" width="100%" height="{height}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{body}</svg>"
    )


def _line(css: str, x1: str, x2: str, y1: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1}" x2="{x2}" y1="{y1:g}" y2="{y2:g}"/>'


def _rect(css: str, left: float, right: float, top: float, height: float) -> str:
    width = max(0.0, right - left) * 100
    return f'<rect class="{css}" x="{left * 100:.2f}%" width="{width:.2f}%" y="{top:g}" height="{height:g}"/>'


def _whisker(scale: Scale, low: float, high: float, middle: float) -> str:
    left, right = scale.at(low), scale.at(high)
    return (
        _line("whisker", left, right, middle, middle)
        + _line("whisker", left, left, middle - 4, middle + 4)
        + _line("whisker", right, right, middle - 4, middle + 4)
    )


def axis(scale: Scale, label: Callable[[float], str], *, description: str) -> Markup:
    """Draw the tick labels of a column of strips, for the column's heading."""
    texts = []
    stride = 2 if len(scale.ticks) > 4 else 1
    # Zero keeps its label where only every second tick has one.
    shown = scale.ticks[(scale.ticks.index(0.0) if 0.0 in scale.ticks else 0) % stride :: stride]
    for tick in shown:
        share = scale.share(tick)
        anchor = "start" if share < 0.02 else "end" if share > 0.98 else "middle"
        texts.append(f'<text x="{scale.at(tick)}" y="11" text-anchor="{anchor}">{escape(label(tick))}</text>')
    return _svg("strip axis", 14, description, "".join(texts))


def _grid(scale: Scale, height: int) -> str:
    return "".join(_line("grid", scale.at(tick), scale.at(tick), 0, height) for tick in scale.ticks)


def bar_strip(
    scale: Scale,
    bars: Sequence[tuple[float | None, str]],
    *,
    description: str,
    whisker: tuple[float | None, float | None] = (None, None),
) -> Markup:
    """Draw one to three bars from zero, with an interval on the last.

    Args:
        scale: The column's axis.
        bars: (value, CSS class) from top to bottom; None draws nothing.
        description: What the strip says, for readers who don't see it.
        whisker: The interval's ends in data units.
    """
    thickness = 12.0 if len(bars) == 1 else 20.0 / len(bars) - 1
    top = (STRIP_HEIGHT - (thickness + 2) * len(bars) + 2) / 2
    body = _grid(scale, STRIP_HEIGHT)
    for value, css in bars:
        if value is not None:
            ends = sorted((scale.share(0.0), scale.share(value)))
            body += _rect(f"bar {css}", ends[0], ends[1], top, thickness)
        top += thickness + 2
    low, high = whisker
    if low is not None and high is not None:
        body += _whisker(scale, low, high, top - 2 - thickness / 2)
    return _svg("strip", STRIP_HEIGHT, description, body)


def difference_strip(
    scale: Scale,
    delta: float | None,
    low: float | None,
    high: float | None,
    *,
    bound: float | None,
    tone: str,
    description: str,
) -> Markup:
    """Draw one row of a forest plot: a difference with its interval, the zero line, and the bound it must stay above.

    Args:
        scale: The column's axis, in fractions; holds zero.
        delta: The difference.
        low: Its interval's lower end.
        high: Its interval's upper end.
        bound: The lowest allowed value, drawn dashed.
        tone: CSS class of the point: good, bad or neutral.
        description: What the strip says, for readers who don't see it.
    """
    middle = STRIP_HEIGHT / 2
    body = _grid(scale, STRIP_HEIGHT) + _line("zero", scale.at(0), scale.at(0), 0, STRIP_HEIGHT)
    if bound is not None:
        body += _line("bound", scale.at(bound), scale.at(bound), 0, STRIP_HEIGHT)
    if low is not None and high is not None:
        body += _whisker(scale, low, high, middle)
    if delta is not None:
        body += f'<circle class="point {tone}" cx="{scale.at(delta)}" cy="{middle:g}" r="4.5"/>'
    return _svg("strip", STRIP_HEIGHT, description, body)


def range_strip(scale: Scale, low: float, high: float, now: float | None, *, description: str) -> Markup:
    """Draw one bar of a tornado chart: the range of an outcome over one input's range, and the outcome as it is.

    Args:
        scale: The column's axis.
        low: The range's lower end, in the axis' units.
        high: Its upper end.
        now: The outcome as it is, drawn dashed.
        description: What the strip says, for readers who don't see it.
    """
    body = _grid(scale, STRIP_HEIGHT) + _rect("bar base", scale.share(low), scale.share(high), 7, STRIP_HEIGHT - 14)
    if now is not None:
        body += _line("bound", scale.at(now), scale.at(now), 0, STRIP_HEIGHT)
    return _svg("strip", STRIP_HEIGHT, description, body)


def stacked_bar(
    parts: Sequence[tuple[float, str]], whole: float, *, limit: float | None = None, height: int = 30, description: str
) -> Markup:
    """Draw amounts end to end on an axis from zero to `whole`.

    Args:
        parts: (amount, CSS class), left to right.
        whole: The amount at the right end.
        limit: An amount to mark, such as a budget.
        height: In CSS pixels.
        description: What the bar says, for readers who don't see it.
    """
    scale = Scale(0.0, whole or 1.0, ())
    body, start = "", 0.0
    for amount, css in parts:
        if amount > 0:
            body += _rect(f"part {css}", scale.share(start), scale.share(start + amount), 3, height - 6)
            start += amount
    if limit is not None:
        body += _line("limit", scale.at(limit), scale.at(limit), 0, height)
    return _svg("strip", height, description, body)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = math.ceil(len(points) / MOST_POINTS)
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def curve(
    series: Sequence[Series], *, label: Callable[[float], str], description: str, height: int = PLOT_HEIGHT
) -> Markup:
    """Draw lines over training steps.

    Args:
        series: What to draw, back to front; a marked series has a dot at each point.
        label: Renders a value of the vertical axis.
        description: What the chart says, for readers who don't see it.
        height: Of the plot, in CSS pixels.

    Returns:
        The drawing; empty when there is no point at all.
    """
    series = [one for one in series if one.points]
    everything = [point for one in series for point in one.points]
    if not everything:
        return Markup("")
    across = scale_for([step for step, _ in everything], intervals=4)
    last_step = max(step for step, _ in everything)
    # The line ends at the plot's edge, not at the next round step.
    across = Scale(across.low, last_step if last_step > across.low else across.high, across.ticks)
    values = [value for _, value in everything]
    intervals = 4 if height >= 150 else 2
    up = scale_for(
        values, intervals=intervals, include=(0.0,) if min(values) >= 0 and min(values) < 0.45 * max(values) else ()
    )

    def vertical(value: float) -> float:
        return (1 - up.share(value)) * height

    body = ""
    for tick in up.ticks:
        body += _line("grid", "0%", "100%", round(vertical(tick), 1), round(vertical(tick), 1))
        body += f'<text x="-9" y="{vertical(tick) + 4:.1f}" text-anchor="end">{escape(label(tick))}</text>'
    for tick in across.ticks:
        if across.share(tick) < 0.85:
            body += f'<text x="{across.at(tick)}" y="{height + 18}" text-anchor="middle">{tick:g}</text>'
    body += f'<text x="100%" y="{height + 18}" text-anchor="end">step {across.high:g}</text>'
    for one in series:
        drawn = _thinned(one.points)
        path = " ".join(f"{across.share(s) * 1000:.1f},{(1 - up.share(v)) * 1000:.1f}" for s, v in drawn)
        body += (
            f'<svg width="100%" height="{height}" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
            f'<polyline class="line {one.css}" points="{path}"/></svg>'
        )
        if one.marked:
            for step, value in drawn:
                body += f'<circle class="dot {one.css}" cx="{across.at(step)}" cy="{vertical(value):.1f}" r="3.5"/>'
    return _svg("curve", height + 24, description, body)
