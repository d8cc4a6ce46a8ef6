"""A probe: a short finetune on fractions of the training rows, and the curve of its score. For decide, off by default.

What prompting can't tell, a little training can: whether the base learns the task at all, and whether more rows would
help. The curve is a line in the logarithm of the number of rows, the form that learning curves have over a range as
short as this one (Hestness et al. 2017, arXiv:1712.00409).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.statistics import Interval, paired_interval, pairs_needed, score_interval

if TYPE_CHECKING:
    from components.data.rows import Row
    from components.evaluation.task import TaskResult

__all__ = ["LearningCurve", "ProbePoint", "probe_rows", "run_probe"]


@dataclass(frozen=True)
class ProbePoint:
    """The score after training on a fraction of the rows."""

    fraction: float
    rows: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """What the probe found.

    Attributes:
        points: One a fraction, smallest first.
        slope: Gain in score with each doubling of the rows, 95 % interval; None with a single fraction.
        gain: The largest fraction's score minus that of the best simple prompt, paired over the dev rows.
        pairs_needed: Dev rows that would decide the sign of the gain where it is undecided.
        against: Name of that prompt.
    """

    points: tuple[ProbePoint, ...]
    slope: Interval | None
    gain: Interval
    pairs_needed: int | None
    against: str

    @property
    def rising(self) -> bool:
        """Whether more rows are shown to help."""
        return self.slope is not None and self.slope.low > 0

    def most_gained(self, train_rows: int) -> float | None:
        """Return the gain that training on all rows can be hoped to reach, at the upper bounds of gain and slope.

        Args:
            train_rows: All training rows; what the largest fraction lacks of them are the doublings that remain.

        Returns:
            The gain over the best simple prompt as a share; None with a single fraction, which has no curve.
        """
        if self.slope is None:
            return None
        doublings = max(0.0, math.log2(train_rows / self.points[-1].rows))
        return self.gain.high + max(0.0, self.slope.high) * doublings

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "rising": self.rising}


def probe_rows(rows: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """Return a fraction of the rows, at least one; smaller fractions are parts of larger ones.

    Args:
        rows: Training rows.
        fraction: Above 0, at most 1.
        seed: Seed of the order in which rows are taken.
    """
    order = list(range(len(rows)))
    random.Random(f"probe/{seed}").shuffle(order)
    return [rows[place] for place in sorted(order[: max(1, round(fraction * len(rows)))])]


def run_probe(
    fractions: Sequence[float],
    train_rows: Sequence[Row],
    train_and_measure: Callable[[Sequence[Row]], TaskResult],
    *,
    simple_name: str,
    simple_scores: Sequence[float],
    seed: int,
) -> LearningCurve:
    """Train on each fraction and measure on the dev rows.

    Args:
        fractions: Fractions of the training rows.
        train_rows: All training rows.
        train_and_measure: Trains on some rows, answers the dev rows with the plain prompt.
        simple_name: Name of the best simple prompt.
        simple_scores: Its score on each dev row.
        seed: Seed of the fractions and of the bootstrap.

    Returns:
        The curve.

    Raises:
        InputError: No fraction, or one that isn't above 0 and at most 1.
    """
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise InputError(f"probe fractions {list(fractions)}", allowed="fractions above 0, at most 1")
    points, scores = [], []
    for fraction in sorted(set(fractions)):
        chosen = probe_rows(train_rows, fraction, seed)
        found = train_and_measure(chosen)
        points.append(ProbePoint(fraction, len(chosen), found.score, found.low, found.high))
        scores.append(found.scores)
    gain = paired_interval(simple_scores, scores[-1], seed)
    differing = sum(a != b for a, b in zip(simple_scores, scores[-1], strict=True)) / len(simple_scores)
    undecided = gain.low <= 0 <= gain.high
    needed = pairs_needed(differing, gain.delta) if undecided else None
    return LearningCurve(tuple(points), _slope(points, scores, seed), gain, needed, simple_name)


def _slope(points: Sequence[ProbePoint], scores: Sequence[Sequence[float]], seed: int) -> Interval | None:
    """Fit each dev row's line over log2(rows) and average: the mean of the lines' slopes is the slope of the means."""
    places = [math.log2(point.rows) for point in points]
    mean = sum(places) / len(places)
    spread = sum((place - mean) ** 2 for place in places)
    if spread == 0:
        return None
    slopes = [
        sum((place - mean) * score for place, score in zip(places, of_row, strict=True)) / spread
        for of_row in zip(*scores, strict=True)
    ]
    if len(points) == 2:
        # a difference of two shares has an interval of its own, which is never empty
        both = paired_interval(scores[0], scores[1], seed)
        step = places[1] - places[0]
        return Interval(both.delta / step, both.low / step, both.high / step)
    return score_interval([*slopes], seed) if len(set(slopes)) > 1 else Interval(slopes[0], slopes[0], slopes[0])
