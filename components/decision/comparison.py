"""How candidates stand to each other on the same dev rows: the best of a kind, paired gains. Read by decide.

The best is picked by the scores that it is then judged by. So the rules read intervals that hold for all candidates at
once (Bonferroni over the score intervals of statistics.py), which docs/decision.md holds against others. What passages
give is the difference to the same prompt without them: against another prompt it would be that of the examples as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from components.decision.baselines import (
    CANDIDATES,
    ORACLE_CANDIDATES,
    RETRIEVAL_CANDIDATES,
    SIMPLE_CANDIDATES,
    counterpart,
)
from components.decision.document import CandidateResult, Comparison, PassagesGain
from components.decision.evidence import Context, Measured
from components.evaluation.statistics import Interval, paired_interval, pairs_needed, rows_needed, score_interval

if TYPE_CHECKING:
    from components.decision.diagnosis import Diagnosis
    from components.evaluation.task import TaskResult

__all__ = [
    "CHAMPION",
    "PROBE",
    "best_deployable",
    "best_simple",
    "compare",
    "compare_to_all",
    "describe",
    "gather",
    "passages_gain",
    "right_context",
]

CHAMPION, PROBE = "champion", "probe"
KINDS = {
    **dict.fromkeys(RETRIEVAL_CANDIDATES, "retrieval"),
    **dict.fromkeys(ORACLE_CANDIDATES, "oracle"),
    CHAMPION: "champion",
    PROBE: "probe",
}

Results = Mapping[str, "TaskResult"]


def best_simple(results: Results, malformed: Callable[[str], int]) -> str:
    """Return the prompt without passages that scores highest; of equals the best formed one, then the cheapest.

    What a prompt can mend of the form is no reason to finetune: the failures that count are those that remain.

    Args:
        results: What each candidate scored.
        malformed: Gives the number of a candidate's malformed answers.
    """
    names = [name for name in results if name in SIMPLE_CANDIDATES]
    top = max(results[name].score for name in names)
    equals = [name for name in names if results[name].score == top]
    if len(equals) == 1:
        return equals[0]
    return min(equals, key=lambda name: (malformed(name), results[name].tokens_per_request))


def best_deployable(results: Results) -> str:
    """Return the way of prompting that scores highest among those that a request can have, the cheapest of equals."""
    return _best(results, (*SIMPLE_CANDIDATES, *RETRIEVAL_CANDIDATES))


def right_context(results: Results) -> str | None:
    """Return the best candidate with the gold passages, else with those found; None where there is neither."""
    for names in (ORACLE_CANDIDATES, RETRIEVAL_CANDIDATES):
        if any(name in names for name in results):
            return _best(results, names)
    return None


def _best(results: Results, names: Sequence[str]) -> str:
    return min(
        (name for name in results if name in names),
        key=lambda name: (-results[name].score, results[name].tokens_per_request),
    )


def compare(results: Results, one: str, other: str, seed: int, comparisons: int = 1) -> Comparison:
    """Return the score of one candidate minus that of another on the same rows.

    Args:
        results: What each candidate scored.
        one: Its name.
        other: The name of the other.
        seed: Seed of the bootstrap for scores other than 0 and 1.
        comparisons: Comparisons that are to hold at once.
    """
    alone, at_once = (
        paired_interval(results[other].scores, results[one].scores, seed, comparisons=count)
        for count in (1, comparisons)
    )
    decided = at_once.low > 0 or at_once.high < 0
    pairs = list(zip(results[one].scores, results[other].scores, strict=True))
    differing = sum(a != b for a, b in pairs) / len(pairs)
    needed = None if decided else pairs_needed(differing, alone.delta, comparisons)
    return Comparison(one, other, alone.delta, alone.low, alone.high, at_once.low, at_once.high, decided, needed)


def compare_to_all(results: Results, simple: str, seed: int) -> tuple[Comparison, ...]:
    """Compare the best simple prompt with each other candidate, all ways of prompting at once.

    Args:
        results: What each candidate scored.
        simple: The best simple prompt.
        seed: Seed of the bootstrap.
    """
    others = [name for name in results if name != simple]
    ways = max(1, len(_ways(results)) - 1)
    return tuple(compare(results, simple, name, seed, ways if name in CANDIDATES else 1) for name in others)


def passages_gain(results: Results, name: str, simple: str, seed: int, *, written: bool) -> PassagesGain | None:
    """Return what the passages of a candidate give; None where it has none.

    Args:
        results: What each candidate scored.
        name: The candidate.
        simple: The best simple prompt, compared with where the counterpart wasn't measured.
        seed: Seed of the bootstrap.
        written: A prompt was written for the task.
    """
    other = counterpart(name, written=written) if name in CANDIDATES else None
    if other is None:
        return None
    pure = other in results
    against = other if pure else simple
    count = sum(found not in SIMPLE_CANDIDATES for found in _ways(results))
    found = compare(results, name, against, seed, count)
    return PassagesGain(
        against, pure, found.delta, found.low, found.high, found.simultaneous_low, found.simultaneous_high
    )


def describe(
    name: str,
    results: Results,
    simple: str,
    *,
    saved: float,
    shared: Sequence[int],
    seed: int,
    written: bool = False,
) -> CandidateResult:
    """Return a candidate's line in the decision.

    Args:
        name: The candidate.
        results: What each candidate scored.
        simple: The best simple prompt, which the others are compared with.
        saved: Tokens a request that finetuning would save.
        shared: For each row, how many of its prompt's first tokens another prompt begins with as well.
        seed: Seed of the bootstrap.
        written: A prompt was written for the task.
    """
    found = results[name]
    gain = None if name == simple else compare(results, name, simple, seed)
    at_once = _at_once(results, name, seed)
    return CandidateResult(
        name=name,
        kind=KINDS.get(name, "simple"),
        score=found.score,
        low=found.low,
        high=found.high,
        simultaneous_low=at_once.low,
        simultaneous_high=at_once.high,
        n=found.n,
        tokens_per_request=found.tokens_per_request,
        seconds_per_request=found.seconds_per_request,
        tokens_saved_by_finetuning=saved,
        prompt_tokens_per_request=found.prompt_tokens_per_request,
        shared_prefix_tokens=tuple(shared),
        scores=found.scores,
        delta=gain.delta if gain else None,
        delta_low=gain.low if gain else None,
        delta_high=gain.high if gain else None,
        passages=passages_gain(results, name, simple, seed, written=written),
    )


def gather(
    results: Results,
    simple: str,
    diagnosis: Diagnosis,
    *,
    target_score: float,
    train_rows: int,
    min_train_rows: int,
    seed: int,
    recall: float | None = None,
    trivial_score: float = 0.0,
    written: bool = False,
) -> Measured:
    """Bring what the candidates scored into the shape that the rules read.

    Args:
        results: What each candidate scored.
        simple: The best simple prompt.
        diagnosis: Its failures.
        target_score: Score at which the task counts as solved.
        train_rows: Number of training rows.
        min_train_rows: Fewest rows that finetuning is tried with.
        seed: Seed of the bootstrap.
        recall: Share of dev rows whose gold passages retrieval found; None where it can't be told.
        trivial_score: Share of dev rows that one and the same answer gets right.
        written: A prompt was written for the task.
    """
    chosen, at_once = results[simple], _at_once(results, simple, seed)
    compared = len(_ways(results))

    def context(names: Sequence[str]) -> Context | None:
        if not any(name in names for name in results):
            return None
        name = _best(results, names)
        gain, bounds = passages_gain(results, name, simple, seed, written=written), _at_once(results, name, seed)
        assert gain is not None, "only candidates with passages come here"
        return Context(
            name=name,
            score=results[name].score,
            low=bounds.low,
            high=bounds.high,
            against=gain.against,
            gain=gain.delta,
            gain_low=gain.simultaneous_low,
            gain_high=gain.simultaneous_high,
            over_best=results[name].score - chosen.score,
            pure=gain.pure,
        )

    return Measured(
        simple,
        chosen.score,
        at_once.low,
        at_once.high,
        chosen.n,
        diagnosis.form,
        diagnosis.facts,
        diagnosis.capability,
        target_score,
        train_rows,
        min_train_rows,
        rows_needed(chosen.score, target_score, compared),
        retrieved=context(RETRIEVAL_CANDIDATES),
        oracle=context(ORACLE_CANDIDATES),
        mended=diagnosis.mended,
        context_form=diagnosis.context_form,
        context_capability=diagnosis.context_capability,
        recall=recall,
        trivial_score=trivial_score,
        compared=compared,
    )


def _ways(results: Results) -> list[str]:
    """Return the ways of prompting among the results: what the best is picked from."""
    return [name for name in results if name in CANDIDATES]


def _at_once(results: Results, name: str, seed: int) -> Interval:
    """Return a score with the interval that holds at once with those of all other ways of prompting."""
    count = len(_ways(results)) if name in CANDIDATES else 1
    return score_interval(results[name].scores, seed, comparisons=count)
