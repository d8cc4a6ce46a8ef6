"""Do passages tell the base which answer is right? A permutation test on the difference of two tables. Read by decide.

A signal that is significant with passages and not without them shows no difference between the two (Gelman & Stern
2006, "The Difference Between Significant and Not Significant Is Not Itself Statistically Significant"). So the
difference itself is tested, on the same rows: the advantage of the rows' own answers with passages minus that without,
against the same with answers dealt out anew, alike in both tables. What makes all answers likelier, or all of a
question's or of an answer's, is taken out of the tables before (answer_signal.py). What only makes the base surer of
what it prefers anyway is taken out here: the table without passages counts as often as the slope says with which the
answers of other rows follow it in the table with passages, and once at least. Both tables are measured with noise, so
that the slope is the ratio of their deviations (reduced major axis; Smith 2009, American Journal of Physical
Anthropology 140): an ordinary one is too flat, and leaves a part of the old preferences in the gain. It is right where
both tables have the same share of noise. With a smaller share without passages it is too steep, and the test asks for
more than it should; with a larger one it is too flat again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.decision.answer_signal import (
    CLEAR,
    LEVEL,
    AnswerLikelihoods,
    AnswerSignal,
    pairings,
    permutation_p,
    tied,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from components.data.rows import Message

__all__ = ["ContextSignal", "context_signal", "gained"]


@dataclass(frozen=True)
class ContextSignal:
    """How much more the base ties answers to questions with passages than without, on the same rows.

    Attributes:
        nats: Advantage of the own answers with passages, minus `scale` times that without.
        scale: How much surer the passages make the base of what it prefers anyway, 1 at least.
        p_value: Share of random pairings that gain at least as much, one-sided.
        opened: The test with passages.
        closed: The test of the same prompts without them.
    """

    nats: float
    scale: float
    p_value: float
    opened: AnswerSignal
    closed: AnswerSignal

    @property
    def present(self) -> bool:
        """Whether passages tie answers to questions, and more so than the prompt without them, beyond chance at 5 %."""
        return self.opened.present and self.nats > 0 and self.p_value < LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"nats": self.nats, "scale": self.scale, "p_value": self.p_value, "n": self.opened.n,
                "present": self.present, "with": self.opened.to_dict(), "without": self.closed.to_dict()}  # fmt: skip


def context_signal(
    likelihoods: AnswerLikelihoods,
    *,
    opened: tuple[str, Sequence[Sequence[Message]]],
    closed: tuple[str, Sequence[Sequence[Message]]],
) -> ContextSignal | None:
    """Test whether passages add to what the base ties to the questions.

    Args:
        likelihoods: The base's, for the rows' answers.
        opened: Name and prompts of the candidate with passages.
        closed: Name and prompts of the one that differs from it by the passages alone.

    Returns:
        What was found; None where the answers differ too little to be told apart.
    """
    found = None
    for look, rows in enumerate(likelihoods.looks):
        found = gained(
            likelihoods.table(*opened, rows),
            likelihoods.table(*closed, rows),
            names=(opened[0], closed[0]),
            seed=likelihoods.seed,
            looked_before=look > 0,
        )
        if max(found.p_value, found.opened.p_value) < CLEAR:
            break
    return found


def gained(
    opened: NDArray[Any], closed: NDArray[Any], *, names: tuple[str, str], seed: int, looked_before: bool = False
) -> ContextSignal:
    """Test two tables: is their difference larger on the diagonal than in pairings at random?

    Args:
        opened: The table with passages, [n, n], lines and columns with a mean of zero.
        closed: The table without.
        names: The candidates of both, for the record.
        seed: Seed of the permutations.
        looked_before: A first look has been taken, and was not clear.
    """
    import numpy

    n = len(opened)
    dealt = numpy.vstack([numpy.arange(n), pairings(n, seed)])
    with_passages, without = opened[range(n), dealt], closed[range(n), dealt]
    # the slope over the answers that a pairing does not give: what they have in common with the rest of both tables
    with_spread, spread = ((table**2).sum() - (dealt_out**2).sum(axis=1)
                           for table, dealt_out in ((opened, with_passages), (closed, without)))  # fmt: skip
    follows = (opened * closed).sum() - (with_passages * without).sum(axis=1) > 0
    ratios = numpy.divide(with_spread, spread, out=numpy.ones(len(dealt)), where=follows & (spread > 0))
    slopes = numpy.sqrt(ratios.clip(0))
    scales = numpy.maximum(1.0, slopes)
    gains = with_passages.mean(axis=1) - scales * without.mean(axis=1)
    return ContextSignal(
        float(gains[0]),
        float(scales[0]),
        permutation_p(float(gains[0]), gains[1:], looked_before=looked_before),
        tied(opened, names[0], seed, looked_before=looked_before),
        tied(closed, names[1], seed, looked_before=looked_before),
    )
