"""Decide by measurement whether finetuning is the right answer. After the data in the flow, before the memory plan.

Every way of prompting answers the same dev rows; the best one's failures are told apart; the rules of verdict.py read
the result. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from components.decision.baselines import CANDIDATES, build_prompts
from components.decision.cost import RequestTokens, finetuned_request, shared_prefix_tokens, tokens_saved
from components.decision.diagnosis import Diagnosis, diagnose
from components.decision.verdict import Measured, Verdict, reach_verdict
from components.errors import InputError
from components.evaluation.statistics import paired_interval, pairs_needed, rows_needed
from components.evaluation.task import TaskResult, evaluate_task
from components.models.forward import causal_model

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["CandidateResult", "Comparison", "Decision", "decide"]

UNLIMITED_POSITIONS = 1 << 30


@dataclass(frozen=True)
class CandidateResult:
    """What one way of prompting scored on the dev rows, and what a request costs."""

    name: str
    score: float
    low: float
    high: float
    n: int
    tokens_per_request: float
    seconds_per_request: float
    tokens_saved_by_finetuning: float
    prompt_tokens_per_request: float
    shared_prefix_tokens: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """The best candidate against another one, paired over the rows; `pairs_needed` where it is undecided."""

    best: str
    other: str
    delta: float
    low: float
    high: float
    decided: bool
    pairs_needed: int | None


@dataclass(frozen=True)
class Decision:
    """The verdict and everything it rests on.

    Attributes:
        verdict: The verdict with its rules.
        best_candidate: Highest score, then fewest tokens a request.
        candidates: One result a candidate, in the order tried.
        comparisons: The best candidate against each other one.
        diagnosis: Failures of the best candidate.
        finetuned: What requests to a finetuned model would carry.
        n: Number of dev rows.
        subsets: The subsets that these rows name, sorted; empty where they name none.
        seed: Seed of the examples.
        examples: Examples a few-shot prompt carries, k.
        notes: What had to be done differently from what was asked.
    """

    verdict: Verdict
    best_candidate: str
    candidates: tuple[CandidateResult, ...]
    comparisons: tuple[Comparison, ...]
    diagnosis: Diagnosis
    finetuned: RequestTokens
    n: int
    subsets: tuple[str, ...]
    seed: int
    examples: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the `decision` part of the run document, which is also what `decide RECIPE --json` prints."""
        undecided = [
            f"undecided: whether {c.best} is better than {c.other} ({100 * c.delta:+.1f} points, "
            f"{100 * c.low:+.1f} to {100 * c.high:+.1f}, n={self.n}); "
            + (f"{c.pairs_needed} dev rows would decide" if c.pairs_needed else "no difference was seen")
            for c in self.comparisons
            if not c.decided
        ]
        return {
            "verdict": self.verdict.verdict,
            "reasons": [*self.verdict.reasons, *undecided, *self.notes],
            "best_candidate": self.best_candidate,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "failures": {
                "form": self.diagnosis.form,
                "facts": self.diagnosis.facts,
                "capability": self.diagnosis.capability,
            },
            "failure_examples": list(self.diagnosis.examples),
            "rules": [rule.to_dict() for rule in self.verdict.rules],
            "undecided": [*self.verdict.undecided, *undecided],
            "finetuned_tokens_per_request": self.finetuned.tokens_per_request,
            "finetuned_request": asdict(self.finetuned),
            "n": self.n,
            "subsets": list(self.subsets),
            "seed": self.seed,
            "few_shot": self.examples,
            "override_reason": None,
        }


def decide(
    model: Any,
    tokenizer: Any,
    *,
    dev_rows: Sequence[Row],
    train_rows: Sequence[Row],
    metric: str,
    metric_options: Mapping[str, Any],
    max_new_tokens: int,
    candidates: Sequence[str] = CANDIDATES,
    few_shot: int = 3,
    target_score: float = 0.9,
    min_train_rows: int = 50,
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[str, int, int], None] | None = None,
) -> Decision:
    """Measure every way of prompting on the dev rows and reach a verdict.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        dev_rows: The sample that is measured on, at least one row.
        train_rows: What could be trained on; examples are taken from here.
        metric: Name of the task's metric.
        metric_options: Options of the metric.
        max_new_tokens: Most tokens an answer may have.
        candidates: Names out of CANDIDATES.
        few_shot: Examples a few-shot prompt carries.
        target_score: Score at which the task counts as solved, 0 to 1.
        min_train_rows: Fewest rows that finetuning is tried with.
        seed: Seed of the examples.
        batch_size: Prompts decoded at once.
        progress: Called with (candidate, finished, all) after each answer.

    Returns:
        The decision.

    Raises:
        InputError: No dev rows, no or unknown candidates, an unknown metric, or a prompt that is too long.
    """
    _check(candidates, dev_rows, few_shot, target_score)
    positions = getattr(causal_model(model).config, "max_position_embeddings", None) or UNLIMITED_POSITIONS
    results: dict[str, TaskResult] = {}
    shared: dict[str, list[int]] = {}
    notes: list[str] = []
    for name in candidates:
        built = build_prompts(
            name,
            dev_rows,
            train_rows,
            tokenizer=tokenizer,
            positions=positions,
            max_new_tokens=max_new_tokens,
            examples=few_shot,
            seed=seed,
        )
        notes += [built.note] if built.note else []
        if name != "zero-shot" and len(train_rows) < few_shot:
            notes.append(f"{name}: only {len(train_rows)} training rows to take {few_shot} examples from")
        shared[name] = shared_prefix_tokens(tokenizer, built.prompts)
        results[name] = evaluate_task(
            model,
            tokenizer,
            dev_rows,
            metric=metric,
            options=metric_options,
            max_new_tokens=max_new_tokens,
            prompts=built.prompts,
            batch_size=batch_size,
            progress=_named(progress, name),
        )
    # the cheaper of two with the same score
    best = min(results, key=lambda name: (-results[name].score, results[name].tokens_per_request))
    chosen = results[best]
    diagnosis = diagnose(metric, metric_options, dev_rows, chosen.predictions, chosen.scores)
    finetuned = finetuned_request(tokenizer, dev_rows)
    tokens = {name: found.tokens_per_request for name, found in results.items()}
    saved = tokens_saved(tokens, finetuned.tokens_per_request)
    verdict = reach_verdict(
        Measured(
            best,
            chosen.score,
            chosen.low,
            chosen.high,
            chosen.n,
            diagnosis.form,
            diagnosis.facts,
            diagnosis.capability,
            target_score,
            len(train_rows),
            min_train_rows,
            rows_needed(chosen.score, target_score),
        )
    )
    return Decision(
        verdict,
        best,
        tuple(_candidate(name, found, saved[name], shared[name]) for name, found in results.items()),
        tuple(_compare(best, chosen, name, found, seed) for name, found in results.items() if name != best),
        diagnosis,
        finetuned,
        len(dev_rows),
        tuple(sorted({str(row.metadata["subset"]) for row in dev_rows if "subset" in row.metadata})),
        seed,
        few_shot,
        (*notes, diagnosis.note),
    )


def _check(candidates: Sequence[str], dev_rows: Sequence[Row], few_shot: int, target_score: float) -> None:
    unknown = [name for name in candidates if name not in CANDIDATES]
    if unknown or not candidates or len(set(candidates)) < len(candidates):
        problem = f"unknown candidate {unknown[0]!r}" if unknown else f"candidates {list(candidates)}"
        raise InputError(problem, allowed=f"one or more of {', '.join(CANDIDATES)}, each once")
    if not dev_rows:
        raise InputError("there are no dev rows to decide on", next_step="name a dev split in the recipe")
    # zero-shot carries no examples, so that a recipe which names nothing else may say 0
    if few_shot < 1 and any(name != "zero-shot" for name in candidates):
        raise InputError(f"few_shot is {few_shot}", allowed="1 or more examples")
    if not 0 < target_score <= 1:
        raise InputError(f"target_score is {target_score}", allowed="a fraction above 0, at most 1")


def _named(progress: Callable[[str, int, int], None] | None, name: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(name, done, total)) if progress else None


def _candidate(name: str, found: TaskResult, saved: float, shared: Sequence[int]) -> CandidateResult:
    return CandidateResult(
        name, found.score, found.low, found.high, found.n, found.tokens_per_request, found.seconds_per_request, saved,
        found.prompt_tokens_per_request, tuple(shared), found.scores,
    )  # fmt: skip


def _compare(best: str, chosen: TaskResult, other: str, found: TaskResult, seed: int) -> Comparison:
    interval = paired_interval(found.scores, chosen.scores, seed)
    decided = interval.low > 0
    differing = sum(a != b for a, b in zip(chosen.scores, found.scores, strict=True)) / chosen.n
    needed = None if decided else pairs_needed(differing, interval.delta)
    return Comparison(best, other, interval.delta, interval.low, interval.high, decided, needed)
