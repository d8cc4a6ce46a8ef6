"""Which base to start with: several measured on the same dev rows, score against cost.

A middling base is tried first: small enough to be cheap, large enough to show whether the task can be done at all.
The bases are measured by decide.py, each under its own key; here they are only compared.

Which base is the best is read off the same rows. So each base is compared with it by the interval that holds at once
for all candidates of the other bases: multiple comparisons with the best (Hsu 1984, "Constrained Simultaneous
Confidence Intervals for Multiple Comparisons with the Best", Annals of Statistics 12), by Bonferroni. The base that is
truly best is then among those that are not told from the best one with 97.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluation.statistics import Interval, paired_interval, pairs_needed
from components.memory.formula import estimate

__all__ = ["MeasuredBase", "compare_bases", "order_to_measure"]

BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class MeasuredBase:
    """One base with its best prompt on the dev rows.

    Attributes:
        base: Name in the recipe or on the command line.
        parameters: Number of parameters.
        candidate: The prompt that scored best.
        score: Its score.
        low: Lower bound of the score's 95 % interval.
        high: Upper bound.
        scores: One number a row; every base has the same rows.
        candidates: Ways of prompting that this candidate was picked from.
        tokens_per_request: Mean length of prompt and answer.
        seconds_per_request: Mean time of a request on this machine.
    """

    base: str
    parameters: int
    candidate: str
    score: float
    low: float
    high: float
    scores: tuple[float, ...]
    tokens_per_request: float
    seconds_per_request: float
    candidates: int = 1


def order_to_measure(parameters: Mapping[str, int]) -> list[str]:
    """Return the bases with the middling one by size first, then by their distance from it.

    Args:
        parameters: Number of parameters by name.
    """
    by_size = sorted(parameters, key=lambda name: (parameters[name], name))
    middle = parameters[by_size[(len(by_size) - 1) // 2]]
    return sorted(by_size, key=lambda name: abs(math.log(parameters[name] / middle)))


def compare_bases(measured: Sequence[MeasuredBase], memory_bytes: int, seed: int = 0) -> dict[str, Any]:
    """Say which base to start with and why.

    Args:
        measured: At least one base.
        memory_bytes: Memory that a base must fit into, in 16 bits.
        seed: Seed of the intervals of scores other than 0 and 1.

    Returns:
        `start_with`, `middling`, `reasons`, `undecided`, and `bases` from the smallest on [{base, parameters,
        inference_bytes, fits, candidate, score, low, high, n, delta, delta_low, delta_high, simultaneous_low,
        simultaneous_high, tokens_per_request, tokens_per_second}], where delta is the difference from the best one's
        score over the same rows, delta_low and delta_high its interval taken by itself, and the other two the interval
        that holds for all at once.
    """
    by_size = sorted(measured, key=lambda found: (found.parameters, found.base))
    size = {b.base: estimate(b.parameters, BYTES_PER_VALUE, "adam").inference_bytes for b in by_size}
    fitting = [b for b in by_size if size[b.base] <= memory_bytes]
    usable = fitting or by_size[:1]
    # of two with the same score the smaller one
    best = max(usable, key=lambda b: (b.score, -b.parameters))
    # the best one may be any candidate of any base: those of all the others are compared with it
    comparisons = max(1, sum(b.candidates for b in usable if b is not best))
    alone = {b.base: paired_interval(best.scores, b.scores, seed) for b in by_size}
    against = {b.base: paired_interval(best.scores, b.scores, seed, comparisons=comparisons) for b in by_size}
    tied = [b for b in usable if against[b.base].high >= 0]
    middling = usable[(len(usable) - 1) // 2]
    start, why = _start(usable, tied, best, middling)
    return {
        "start_with": start.base,
        "middling": middling.base,
        "reasons": [*_size_reasons(by_size, fitting, size, memory_bytes), why],
        "undecided": [
            said
            for b in tied
            if b is not best
            for said in (_undecided(best, b, against[b.base], comparisons),)
            if said is not None
        ],
        "bases": [
            {
                "base": b.base,
                "parameters": b.parameters,
                "inference_bytes": size[b.base],
                "fits": b in fitting,
                "candidate": b.candidate,
                "score": b.score,
                "low": b.low,
                "high": b.high,
                "n": len(b.scores),
                "delta": alone[b.base].delta,
                "delta_low": alone[b.base].low,
                "delta_high": alone[b.base].high,
                "simultaneous_low": against[b.base].low,
                "simultaneous_high": against[b.base].high,
                "tokens_per_request": b.tokens_per_request,
                "tokens_per_second": b.tokens_per_request / b.seconds_per_request if b.seconds_per_request else None,
            }
            for b in by_size
        ],
    }


def _start(
    usable: Sequence[MeasuredBase], tied: Sequence[MeasuredBase], best: MeasuredBase, middling: MeasuredBase
) -> tuple[MeasuredBase, str]:
    if len(usable) == 1:
        return best, f"start with {best.base}: it is the only one to choose from"
    if len(tied) == len(usable):
        return middling, (
            f"start with {middling.base}, the middling one by size: {len(best.scores)} dev rows tell no base from the "
            "best, and a middling one shows soonest whether the task can be done"
        )
    if len(tied) == 1:
        return best, f"start with {best.base}: every other base that fits scores less, with the interval below zero"
    cheapest = tied[0]
    if cheapest is best:
        return best, f"start with {best.base}: it scores highest, and no smaller base comes near"
    return cheapest, (
        f"start with {cheapest.base}: it is the smallest whose score is not told from that of {best.base}, "
        f"with {cheapest.parameters / best.parameters:.0%} of its parameters"
    )


def _size_reasons(
    by_size: Sequence[MeasuredBase], fitting: Sequence[MeasuredBase], size: Mapping[str, int], memory_bytes: int
) -> list[str]:
    said = [
        f"{b.base} is left out: {size[b.base] / 2**30:.2f} GiB in 16 bits do not fit {memory_bytes / 2**30:.2f} GiB"
        for b in by_size
        if b not in fitting
    ]
    return said if fitting else [*said, "no base fits, so only the smallest is looked at"]


def _undecided(best: MeasuredBase, other: MeasuredBase, difference: Interval, comparisons: int) -> str | None:
    differing = sum(a != b for a, b in zip(best.scores, other.scores, strict=True)) / len(best.scores)
    needed = pairs_needed(differing, difference.delta, comparisons)
    rows = f"{needed} dev rows would decide" if needed else "no difference was seen"
    return (
        f"undecided: whether {best.base} is better than {other.base} ({100 * (0 - difference.delta):+.1f} points, "
        f"n={len(best.scores)}); {rows}"
    )
