"""The decision as a document: candidates, comparisons, failures, verdict. What `decide RECIPE --json` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.decision.answer_signal import AnswerSignal
    from components.decision.context_signal import ContextSignal
    from components.decision.cost import RequestTokens
    from components.decision.diagnosis import Diagnosis
    from components.decision.probe import LearningCurve
    from components.decision.verdict import Verdict
    from components.decision.word_order import WordOrder

__all__ = ["CandidateResult", "Comparison", "Decision", "PassagesGain"]


@dataclass(frozen=True)
class PassagesGain:
    """What passages give: the score of a candidate with passages minus that of its counterpart, on the same rows.

    Attributes:
        against: The prompt that differs by the passages alone; the best simple one where that wasn't measured.
        pure: It does differ by the passages alone.
        delta: The difference.
        low: Lower bound of its paired 95 % interval.
        high: Upper bound.
        simultaneous_low: Lower bound of the interval that holds at once with those of all candidates with passages.
        simultaneous_high: Upper bound.
    """

    against: str
    pure: bool
    delta: float
    low: float
    high: float
    simultaneous_low: float
    simultaneous_high: float


@dataclass(frozen=True)
class CandidateResult:
    """What one candidate scored on the dev rows, what a request costs, and how it stands to the best simple prompt.

    Attributes:
        name: Its name.
        kind: simple (a prompt alone), retrieval, oracle (gold passages: no request has them), champion, or probe.
        score: Mean score.
        low: Lower bound of its 95 % interval, taken by itself.
        high: Upper bound.
        simultaneous_low: Lower bound of the interval that holds at once with those of all candidates. A champion and a
            probe are not picked from several, and keep their own.
        simultaneous_high: Upper bound.
        n: Number of dev rows.
        tokens_per_request: Prompt and answer.
        seconds_per_request: Wall time divided by the number of rows, generation only.
        tokens_saved_by_finetuning: Beyond what a request to a finetuned model carries; where passages are retrieved,
            beyond one that carries them too.
        prompt_tokens_per_request: The prompt alone.
        shared_prefix_tokens: For each row, how many of its prompt's first tokens another prompt begins with as well.
        scores: One number a row.
        delta: Score minus that of the best simple prompt on the same rows; None for that prompt itself.
        delta_low: Lower bound of the paired interval, taken by itself.
        delta_high: Upper bound.
        passages: What its passages give; None where it has none.
    """

    name: str
    kind: str
    score: float
    low: float
    high: float
    simultaneous_low: float
    simultaneous_high: float
    n: int
    tokens_per_request: float
    seconds_per_request: float
    tokens_saved_by_finetuning: float
    prompt_tokens_per_request: float
    shared_prefix_tokens: tuple[int, ...]
    scores: tuple[float, ...]
    delta: float | None
    delta_low: float | None
    delta_high: float | None
    passages: PassagesGain | None = None


@dataclass(frozen=True)
class Comparison:
    """The best simple prompt against another candidate, paired over the rows; `pairs_needed` where it is undecided.

    `low` and `high` are of the interval taken by itself. Whether it is decided is read off the one that holds at once
    with the comparisons to all other candidates, for the best was picked by these scores.
    """

    best: str
    other: str
    delta: float
    low: float
    high: float
    simultaneous_low: float
    simultaneous_high: float
    decided: bool
    pairs_needed: int | None


@dataclass(frozen=True)
class Decision:
    """The verdict and everything it rests on.

    Attributes:
        verdict: The verdict with its rules.
        best_candidate: Highest score, then fewest tokens a request, among those that a request can have.
        best_simple: The same among prompts without retrieval; its failures are what was diagnosed.
        candidates: One result a candidate, in the order tried.
        comparisons: The best simple prompt against each other candidate.
        diagnosis: Failures of the best simple prompt.
        finetuned: What requests to a finetuned model would carry.
        n: Number of dev rows.
        subsets: The subsets that these rows name, sorted; empty where they name none.
        seed: Seed of the examples.
        examples: Examples a few-shot prompt carries, k.
        notes: What had to be done differently from what was asked.
        recall: Share of dev rows whose gold passages retrieval found; None where it can't be told.
        word_order: Test of the base's language; None where the verdict did not need it, or no question has an order.
        signal: Test of the base's likelihoods, with context where there is one; None where the verdict did not need it,
            or the answers differ too little to be told apart.
        context_signal: Test of what passages add to it; None where there are none, or the verdict did not need it.
        probe: The learning curve; None where none was asked for, or the verdict did not need it.
        finetuned_with_passages: The same as `finetuned` with the passages that retrieval finds; None without a corpus.
    """

    verdict: Verdict
    best_candidate: str
    best_simple: str
    candidates: tuple[CandidateResult, ...]
    comparisons: tuple[Comparison, ...]
    diagnosis: Diagnosis
    finetuned: RequestTokens
    n: int
    subsets: tuple[str, ...]
    seed: int
    examples: int
    notes: tuple[str, ...]
    recall: float | None = None
    word_order: WordOrder | None = None
    signal: AnswerSignal | None = None
    context_signal: ContextSignal | None = None
    probe: LearningCurve | None = None
    finetuned_with_passages: RequestTokens | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the `decision` part of the run document, which is also what `decide RECIPE --json` prints."""
        undecided = [
            f"undecided: whether {c.best} is better than {c.other} ({100 * c.delta:+.1f} points, "
            f"{100 * c.simultaneous_low:+.1f} to {100 * c.simultaneous_high:+.1f}, n={self.n}); "
            + (f"{c.pairs_needed} dev rows would decide" if c.pairs_needed else "no difference was seen")
            for c in self.comparisons
            if not c.decided
        ]
        failures = self.diagnosis
        return {
            "verdict": self.verdict.verdict,
            "reasons": [*self.verdict.reasons, *undecided, *self.notes],
            "best_candidate": self.best_candidate,
            "best_simple": self.best_simple,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "failures": {"form": failures.form, "facts": failures.facts, "capability": failures.capability},
            "failures_with_context": {
                "mended": failures.mended,
                "form": failures.context_form,
                "capability": failures.context_capability,
            },
            "failure_examples": list(failures.examples),
            "rules": [rule.to_dict() for rule in self.verdict.rules],
            "undecided": [*self.verdict.undecided, *undecided],
            "retrieval_recall": self.recall,
            "word_order": self.word_order.to_dict() if self.word_order else None,
            "answer_signal": self.signal.to_dict() if self.signal else None,
            "context_signal": self.context_signal.to_dict() if self.context_signal else None,
            "learning_curve": self.probe.to_dict() if self.probe else None,
            "finetuned_tokens_per_request": self.finetuned.tokens_per_request,
            "finetuned_request": asdict(self.finetuned),
            "finetuned_request_with_passages": (
                asdict(self.finetuned_with_passages) if self.finetuned_with_passages else None
            ),
            "n": self.n,
            "subsets": list(self.subsets),
            "seed": self.seed,
            "few_shot": self.examples,
            "override_reason": None,
        }
