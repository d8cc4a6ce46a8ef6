"""What the rules of the verdict read: everything that was measured, as plain values. Filled by decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.decision.answer_signal import AnswerSignal
    from components.decision.context_signal import ContextSignal
    from components.decision.probe import LearningCurve
    from components.decision.word_order import WordOrder

__all__ = ["Context", "Measured"]


@dataclass(frozen=True)
class Context:
    """The best candidate with passages in its prompt.

    Attributes:
        name: Its name.
        score: Its score.
        low: Lower bound of the score's 95 % interval, which holds at once with those of the other candidates.
        high: Upper bound.
        against: The prompt that differs from it by the passages alone; the best simple one where that wasn't measured.
        gain: Its score minus that of `against`, on the same rows.
        gain_low: Lower bound of the gain's paired interval, which holds at once for all candidates with passages.
        gain_high: Upper bound.
        over_best: Its score minus that of the best simple prompt.
        pure: `against` differs from it by the passages alone.
    """

    name: str
    score: float
    low: float
    high: float
    against: str
    gain: float
    gain_low: float
    gain_high: float
    over_best: float
    pure: bool = True


@dataclass(frozen=True)
class Measured:
    """What the rules read.

    Attributes:
        best: Name of the best simple prompt.
        score: Its score.
        low: Lower bound of the score's 95 % interval, which holds at once with those of the other candidates.
        high: Upper bound.
        n: Number of dev rows.
        form: Its failures of form.
        facts: Its failures for missing facts.
        capability: Its failures of capability.
        target_score: Score at which the task counts as solved.
        train_rows: Number of training rows.
        min_train_rows: Fewest rows that finetuning is tried with.
        rows_to_decide: Dev rows that would tell the best score from the target; None where they are equal.
        retrieved: The best candidate with passages that retrieval found; None without a corpus.
        oracle: The best candidate with the gold passages; None where rows name none.
        mended: Failures of the best simple prompt that the right context mends.
        context_form: Failures of form with the right context.
        context_capability: Other failures with it.
        word_order: Whether the base knows the language of the data; None where it wasn't tested or can't be.
        signal: Whether the base's likelihoods tie answers to questions, with the right context where there is one; None
            where it wasn't tested or can't be, which is no sign of its absence.
        context_signal: Whether passages tie them more than the same prompt does without; None where there are no
            passages, or it wasn't tested.
        probe: The learning curve; None without a probe.
        recall: Share of dev rows whose gold passages retrieval found; None where it can't be told.
        trivial_score: Share of dev rows that one and the same answer gets right.
        compared: Candidates that the best was picked from, whose intervals hold at once.
    """

    best: str
    score: float
    low: float
    high: float
    n: int
    form: int
    facts: int
    capability: int
    target_score: float
    train_rows: int
    min_train_rows: int
    rows_to_decide: int | None
    retrieved: Context | None = None
    oracle: Context | None = None
    mended: int = 0
    context_form: int = 0
    context_capability: int = 0
    word_order: WordOrder | None = None
    signal: AnswerSignal | None = None
    context_signal: ContextSignal | None = None
    probe: LearningCurve | None = None
    recall: float | None = None
    trivial_score: float = 0.0
    compared: int = 1

    @property
    def solved(self) -> bool:
        """Return whether a prompt, or one with passages that retrieval found, reaches the target."""
        return max(self.score, self.retrieved.score if self.retrieved else 0.0) >= self.target_score

    @property
    def best_low(self) -> float:
        """Return the highest lower bound of a score, of what no request can have as well."""
        return max(self.low, *(found.low for found in (self.retrieved, self.oracle) if found), 0.0)

    @property
    def context(self) -> Context | None:
        """Return the candidate with the right context: the gold passages, else those that were found."""
        return self.oracle or self.retrieved

    @property
    def failures(self) -> int:
        """Return the number of rows that the best simple prompt fails."""
        return self.form + self.facts + self.capability
