"""How candidates stand to each other on the same dev rows: the best of a kind, paired gains. Read by decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from components.decision.baselines import ORACLE_CANDIDATES, RETRIEVAL_CANDIDATES, SIMPLE_CANDIDATES
from components.decision.document import CandidateResult, Comparison
from components.decision.evidence import Context, Measured
from components.evaluation.statistics import paired_interval, pairs_needed, rows_needed

if TYPE_CHECKING:
    from components.decision.diagnosis import Diagnosis
    from components.evaluation.task import TaskResult

__all__ = ["CHAMPION", "PROBE", "best_deployable", "best_simple", "compare", "describe", "gather", "right_context"]

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


def compare(results: Results, one: str, other: str, seed: int) -> Comparison:
    """Return the score of one candidate minus that of another on the same rows.

    Args:
        results: What each candidate scored.
        one: Its name.
        other: The name of the other.
        seed: Seed of the bootstrap for scores other than 0 and 1.
    """
    interval = paired_interval(results[other].scores, results[one].scores, seed)
    decided = interval.low > 0 or interval.high < 0
    pairs = list(zip(results[one].scores, results[other].scores, strict=True))
    differing = sum(a != b for a, b in pairs) / len(pairs)
    needed = None if decided else pairs_needed(differing, interval.delta)
    return Comparison(one, other, interval.delta, interval.low, interval.high, decided, needed)


def describe(
    name: str, results: Results, simple: str, *, saved: float, shared: Sequence[int], seed: int
) -> CandidateResult:
    """Return a candidate's line in the decision.

    Args:
        name: The candidate.
        results: What each candidate scored.
        simple: The best simple prompt, which the others are compared with.
        saved: Tokens a request that finetuning would save.
        shared: For each row, how many of its prompt's first tokens another prompt begins with as well.
        seed: Seed of the bootstrap.
    """
    found = results[name]
    gain = None if name == simple else compare(results, name, simple, seed)
    return CandidateResult(
        name,
        KINDS.get(name, "simple"),
        found.score,
        found.low,
        found.high,
        found.n,
        found.tokens_per_request,
        found.seconds_per_request,
        saved,
        found.prompt_tokens_per_request,
        tuple(shared),
        found.scores,
        gain.delta if gain else None,
        gain.low if gain else None,
        gain.high if gain else None,
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
    """
    chosen = results[simple]

    def context(names: Sequence[str]) -> Context | None:
        if not any(name in names for name in results):
            return None
        name = _best(results, names)
        gain, found = compare(results, name, simple, seed), results[name]
        return Context(name, found.score, found.low, found.high, gain.delta, gain.low, gain.high)

    return Measured(
        simple,
        chosen.score,
        chosen.low,
        chosen.high,
        chosen.n,
        diagnosis.form,
        diagnosis.facts,
        diagnosis.capability,
        target_score,
        train_rows,
        min_train_rows,
        rows_needed(chosen.score, target_score),
        retrieved=context(RETRIEVAL_CANDIDATES),
        oracle=context(ORACLE_CANDIDATES),
        mended=diagnosis.mended,
        context_form=diagnosis.context_form,
        context_capability=diagnosis.context_capability,
        recall=recall,
        trivial_score=trivial_score,
    )
