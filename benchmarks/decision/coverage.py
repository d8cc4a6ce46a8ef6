"""How often do the intervals of several differences hold at once? Run with `python -m benchmarks.decision.coverage`.

Candidates answer the same rows, more or less hard for all of them; each is compared with the first one. Three ways:
every interval by itself, Bonferroni over Tango's intervals (what the decision uses), and a bootstrap of the largest
studentised difference (Romano & Wolf 2005, "Exact and Approximate Stepdown Methods for Multiple Hypothesis Testing").
95 % are wanted. Takes a minute or two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy
from numpy.typing import NDArray

from components.evaluation.statistics import paired_interval

SKILLS = {
    "all 10 %": (0.1,) * 5,
    "all 50 %": (0.5,) * 5,
    "all 90 %": (0.9,) * 5,
    "10 to 40 %": (0.1, 0.15, 0.2, 0.3, 0.4),
    "all 3 %": (0.03,) * 5,
}
ROWS = (20, 50, 100)
# how much of whether a row is answered is the row's, and not the candidate's
SHARED = (0.5, 0.9)
RESAMPLES = 500

Bounds = tuple[NDArray[Any], NDArray[Any]]


@cache
def _tango(won: int, lost: int, n: int, comparisons: int) -> tuple[float, float]:
    before = [0.0] * won + [1.0] * (n - won)
    after = [1.0] * won + [0.0] * lost + [1.0] * (n - won - lost)
    found = paired_interval(before, after, comparisons=comparisons)
    return found.low, found.high


def _score_intervals(differences: NDArray[Any], comparisons: int) -> Bounds:
    n = len(differences)
    counts = zip((differences > 0).sum(axis=0).tolist(), (differences < 0).sum(axis=0).tolist(), strict=True)
    bounds = numpy.array([_tango(won, lost, n, comparisons) for won, lost in counts])
    return bounds[:, 0], bounds[:, 1]


def _bootstrap_of_the_largest(differences: NDArray[Any], generator: numpy.random.Generator) -> Bounds:
    n = len(differences)
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / n**0.5
    drawn = differences[generator.integers(0, n, (RESAMPLES, n))]
    errors = drawn.std(axis=1, ddof=1) / n**0.5
    distance = abs(drawn.mean(axis=1) - mean)
    # a resample in which no row differs has no width to divide by
    largest = numpy.divide(distance, errors, out=numpy.zeros_like(distance), where=errors > 0).max(axis=1)
    half = float(numpy.quantile(largest, 0.95)) * error
    return mean - half, mean + half


def _ways(generator: numpy.random.Generator) -> dict[str, Callable[[NDArray[Any]], Bounds]]:
    return {
        "by itself": lambda found: _score_intervals(found, 1),
        "Bonferroni": lambda found: _score_intervals(found, found.shape[1]),
        "bootstrap": lambda found: _bootstrap_of_the_largest(found, generator),
    }


def main() -> None:
    """Print for each pattern of skills the share of samples in which all intervals hold the truth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = numpy.random.default_rng(arguments.seed)
    ways = _ways(generator)
    print(f"{'scores':<12}{'rows':>5}{'shared':>8}" + "".join(f"{name:>12}" for name in ways))
    lowest = dict.fromkeys(ways, 1.0)
    for name, skills in SKILLS.items():
        bars = numpy.array([NormalDist().inv_cdf(skill) for skill in skills])
        truth = numpy.array(skills[1:]) - skills[0]
        for rows in ROWS:
            for shared in SHARED:
                held = dict.fromkeys(ways, 0)
                for _ in range(arguments.samples):
                    hardness = generator.normal(size=(rows, 1)) * shared**0.5
                    luck = generator.normal(size=(rows, len(skills))) * (1 - shared) ** 0.5
                    right = (hardness + luck < bars).astype(float)
                    differences = right[:, 1:] - right[:, :1]
                    for way, bounds in ways.items():
                        low, high = bounds(differences)
                        held[way] += bool(((low <= truth + 1e-9) & (truth - 1e-9 <= high)).all())
                shares = {way: count / arguments.samples for way, count in held.items()}
                lowest = {way: min(lowest[way], share) for way, share in shares.items()}
                print(f"{name:<12}{rows:>5}{shared:>8}" + "".join(f"{100 * s:>10.1f} %" for s in shares.values()))
    print(f"{'lowest':<25}" + "".join(f"{100 * share:>10.1f} %" for share in lowest.values()))


if __name__ == "__main__":
    main()
