"""The alignment tax: what a finetuned model lost on the general suites, as paired intervals. Read by the gate.

Non-inferiority: a suite passes when the whole interval of the change stays above minus the drop that is allowed, so a
sample too small to tell does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.errors import InputError
from components.evaluation.statistics import mcnemar_p, paired_interval
from components.evaluation.suites import SuiteResult

__all__ = ["compare", "untouched"]


def compare(base: Sequence[SuiteResult], tuned: Sequence[SuiteResult], *, max_drop: float) -> list[dict[str, Any]]:
    """Compare two models on the same samples of suites.

    Args:
        base: Results before, one for each suite.
        tuned: Results after, in the same order.
        max_drop: Largest loss that is allowed, as a fraction (0.05 is five points).

    Returns:
        For each suite `suite`, `digest`, `n`, `metric`, `base`, `tuned`, `delta`, `low`, `high`, `p_value`,
        `max_drop`, `passed` (low >= -max_drop).

    Raises:
        InputError: The two sides answered different suites or samples, or the drop is negative.
    """
    if max_drop < 0:
        raise InputError(f"max_drop is {max_drop}", allowed="0 or more, as a fraction")
    if [one.digest for one in base] != [other.digest for other in tuned]:
        raise InputError(
            f"suites {[one.suite for one in base]} and {[other.suite for other in tuned]} are not the same samples",
            allowed="results of the same suites with the same rows, seed and prompt format, in the same order",
            next_step="evaluate both models anew with one recipe",
        )
    rows = []
    for before, after in zip(base, tuned, strict=True):
        was, now = [float(x) for x in before.correct], [float(x) for x in after.correct]
        change = paired_interval(was, now)
        rows.append(
            {
                "suite": before.suite,
                "digest": before.digest,
                "n": before.n,
                "metric": before.metric,
                "base": before.score,
                "tuned": after.score,
                "delta": change.delta,
                "low": change.low,
                "high": change.high,
                "p_value": mcnemar_p(was, now),
                "max_drop": max_drop,
                "passed": change.low >= -max_drop,
            }
        )
    return rows


def untouched(base: Sequence[SuiteResult], *, max_drop: float) -> list[dict[str, Any]]:
    """Return the tax of what leaves the base's weights as they are: zero by construction, measured once.

    Args:
        base: Results of the base.
        max_drop: Largest loss that is allowed, as a fraction.

    Returns:
        As `compare`, with `by_construction`: the difference and both ends of its interval are zero, since the same
        weights would answer the same.
    """
    return [
        {
            "suite": found.suite,
            "digest": found.digest,
            "n": found.n,
            "metric": found.metric,
            "base": found.score,
            "tuned": found.score,
            "delta": 0.0,
            "low": 0.0,
            "high": 0.0,
            "p_value": 1.0,
            "max_drop": max_drop,
            "passed": True,
            "by_construction": True,
        }
        for found in base
    ]
