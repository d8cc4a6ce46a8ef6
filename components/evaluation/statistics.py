"""Intervals and tests for scores of rows: how sure a score, a difference or a tie is. Used by task, tax and decision.

All intervals are 95 %. A share: Wilson 1927. A difference of paired binary outcomes: the score interval of Tango
1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
Statistics in Medicine 17, which keeps its coverage at small samples and has a width even where nothing differs. A
mean of other numbers: the BCa bootstrap (Efron 1987), seeded.

Where the best of several was picked by the scores that it is then judged by, its own interval is too good. With
`comparisons` an interval is one of so many that hold all at once at 95 % (Bonferroni's inequality; Dunn 1961, "Multiple
Comparisons among Means", JASA 56).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from components.errors import InputError

__all__ = ["Interval", "mcnemar_p", "paired_interval", "pairs_needed", "rows_needed", "score_interval", "wilson"]

ALPHA = 0.05
Z95 = 1.959963984540054
Z80 = 0.8416212335729143
BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval: a difference `delta`, or a mean where nothing is subtracted."""

    delta: float
    low: float
    high: float


def wilson(successes: float, n: int, comparisons: int = 1) -> tuple[float, float]:
    """Return the 95 % score interval of a share.

    Args:
        successes: Number of successes out of n.
        n: Number of trials; with none the interval is everything, (0, 1).
        comparisons: Intervals that are to hold at once.
    """
    z = _quantile(comparisons)
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # rounding would leave the bound of 0 of n (or n of n) beside 0 (or 1)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def score_interval(scores: Sequence[float], seed: int = 0, *, comparisons: int = 1) -> Interval:
    """Return the mean of per-row scores with its interval.

    Args:
        scores: One number a row.
        seed: Seed of the bootstrap; without effect on scores that are 0 or 1.
        comparisons: Intervals that are to hold at once.

    Returns:
        Wilson's interval for scores that are all 0 or 1, else the bootstrap's.
    """
    if not scores:
        return Interval(0.0, 0.0, 1.0)
    mean = sum(scores) / len(scores)
    if _is_binary(scores):
        return Interval(mean, *wilson(sum(scores), len(scores), comparisons))
    return _bootstrap(scores, seed, comparisons)


def paired_interval(base: Sequence[float], tuned: Sequence[float], seed: int = 0, *, comparisons: int = 1) -> Interval:
    """Return the mean difference tuned - base over the same rows with its interval.

    Args:
        base: Score of each row before.
        tuned: Score of the same rows, in the same order, after.
        seed: Seed of the bootstrap; without effect on scores that are 0 or 1.
        comparisons: Intervals that are to hold at once.

    Returns:
        Tango's score interval for scores that are all 0 or 1, else the bootstrap's.

    Raises:
        InputError: The two differ in length, or there are no rows.
    """
    if len(base) != len(tuned) or not base:
        raise InputError(f"{len(base)} scores can't be paired with {len(tuned)}", allowed="the same rows, at least one")
    differences = [after - before for before, after in zip(base, tuned, strict=True)]
    if not _is_binary([*base, *tuned]):
        return _bootstrap(differences, seed, comparisons)
    won, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return _tango(won, lost, len(differences), _quantile(comparisons))


def mcnemar_p(base: Sequence[float], tuned: Sequence[float]) -> float:
    """Return the two-sided p-value of the exact McNemar test: are wins and losses equally likely?"""
    won = sum(after > before for before, after in zip(base, tuned, strict=True))
    lost = sum(after < before for before, after in zip(base, tuned, strict=True))
    differing = won + lost
    tail: int = sum(math.comb(differing, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**differing)


def pairs_needed(differing_share: float, difference: float, comparisons: int = 1) -> int | None:
    """Return how many paired rows would decide a difference at 95 % with a power of 80 %.

    Args:
        differing_share: Share of rows on which the two sides differ.
        difference: The difference to be told from zero; its size counts, not its sign.
        comparisons: Differences that are to be told at once.

    Returns:
        The number by Connor 1987, Biometrics 43; None for a difference of zero, which no sample tells from zero.
    """
    size = abs(difference)
    if size == 0:
        return None
    share = max(differing_share, size)
    z = _quantile(comparisons)
    return math.ceil((z * math.sqrt(share) + Z80 * math.sqrt(share - size**2)) ** 2 / size**2)


def rows_needed(share: float, bound: float, comparisons: int = 1) -> int | None:
    """Return how many rows would tell a share from a bound at 95 % with a power of 80 %; None where they are equal.

    Args:
        share: The share.
        bound: The bound.
        comparisons: Shares that are to be told at once.
    """
    if share == bound:
        return None
    null, other = math.sqrt(bound * (1 - bound)), math.sqrt(share * (1 - share))
    return max(1, math.ceil(((_quantile(comparisons) * null + Z80 * other) / (share - bound)) ** 2))


def _quantile(comparisons: int) -> float:
    """Return the normal quantile of one of so many two-sided intervals that hold at once at 95 %."""
    return Z95 if comparisons == 1 else NormalDist().inv_cdf(1 - ALPHA / (2 * comparisons))


def _is_binary(scores: Sequence[float]) -> bool:
    return all(score in (0, 1) for score in scores)


def _tango(won: int, lost: int, n: int, z: float) -> Interval:
    def statistic(delta: float) -> float:
        # q is the likeliest share of losses if the difference were delta
        b = -won - lost + (2 * n - won + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        gap = won - lost - n * delta
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    def crossing(target: float, low: float, high: float) -> float:
        # the statistic falls as delta grows
        for _ in range(60):
            middle = (low + high) / 2
            if statistic(middle) > target:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    delta = (won - lost) / n
    low = -1.0 if lost == n else crossing(z, -1.0, delta)
    high = 1.0 if won == n else crossing(-z, delta, 1.0)
    return Interval(delta, low, high)


def _bootstrap(values: Sequence[float], seed: int, comparisons: int) -> Interval:
    import numpy
    from scipy.stats import bootstrap

    mean = sum(values) / len(values)
    if len(set(values)) == 1:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (numpy.asarray(values, dtype=float),),
        numpy.mean,
        # the tails of a narrower level need as many samples in them
        n_resamples=BOOTSTRAP_SAMPLES * comparisons,
        confidence_level=1 - ALPHA / comparisons,
        method="BCa",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
