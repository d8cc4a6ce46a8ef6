"""How much a run will put through the model: the sequences of every step in their order. Between the data and the time
that the plan predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MicroBatch", "Workload", "uniform_workload"]


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass takes in.

    Attributes:
        sequences: Rows of the batch.
        tokens: Length of its longest sequence, to which the others are padded.
        labelled: Tokens that go through the output layer.
    """

    sequences: int
    tokens: int
    labelled: int


@dataclass(frozen=True)
class Workload:
    """The sequences of a run.

    Attributes:
        lengths: Tokens of each sequence, in the order of training.
        labelled: Tokens of each that carry loss.
        dev_lengths: Tokens of each sequence behind a dev loss.
        dev_passes: How often the dev loss is to be measured.
        positions: Positions that the longest row takes, which in a packed sequence are fewer than its tokens; 0 where
            it isn't known.
    """

    lengths: tuple[int, ...]
    labelled: tuple[int, ...]
    dev_lengths: tuple[int, ...] = ()
    dev_passes: int = 0
    positions: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the run, without padding."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    def steps(self, sequences_per_step: int) -> int:
        """Return the number of optimizer steps."""
        return -(-len(self.lengths) // sequences_per_step)

    def dev_measurements(self, sequences_per_step: int) -> int:
        """Return how often the dev loss is measured: no more often than there are steps."""
        return min(self.dev_passes, self.steps(sequences_per_step))

    def micro_batches(self, size: int, sequences_per_step: int) -> Iterator[MicroBatch]:
        """Cut the run into micro-batches as the trainer does: none reaches over the end of a step.

        Args:
            size: Sequences at once.
            sequences_per_step: Sequences behind an optimizer step.

        Yields:
            The micro-batches in their order.
        """
        for start in range(0, len(self.lengths), sequences_per_step):
            end = min(start + sequences_per_step, len(self.lengths))
            for first in range(start, end, size):
                part = slice(first, min(first + size, end))
                lengths = self.lengths[part]
                yield MicroBatch(len(lengths), max(lengths), sum(self.labelled[part]))


def uniform_workload(sequences: int, sequence_tokens: int) -> Workload:
    """Return the workload of sequences that are all as long as the longest and labelled throughout: an upper bound.

    Args:
        sequences: How many.
        sequence_tokens: Tokens of each.
    """
    return Workload((sequence_tokens,) * sequences, (sequence_tokens,) * sequences)
