"""Which rows stand in which step: the whole order, fixed by the seed before training. Between packing and trainer.

The order is a pure function of rows and settings, so that a resumed run needs only its step number to go on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from components.data.chat import Encoded
from components.data.packing import PackedSequence, pack_rows
from components.errors import InputError

__all__ = ["Schedule", "build_schedule", "check_rows", "group_rows", "lay_out", "pack_epoch"]


@dataclass(frozen=True)
class Schedule:
    """The run's order.

    Attributes:
        steps: For each optimizer step its micro-batches, each a list of packed sequences.
        rows: Rows seen over the run, repeats counted.
        tokens: Tokens that go through the model, padding not counted.
        lines: For each step the lines of its rows in the data file, to name them in an error.
    """

    steps: list[list[list[PackedSequence]]]
    rows: int
    tokens: int
    lines: list[list[int]]

    @property
    def positions(self) -> int:
        """Positions that the longest row takes, which in a packed sequence are fewer than its tokens."""
        return max(place for step in self.steps for b in step for s in b for place in s.position_ids) + 1


def group_rows(keys: Sequence[str], rows_per_sequence: int, rng: random.Random) -> list[list[int]]:
    """Deal shuffled rows into groups of one key (the text that their prefix comes from).

    Args:
        keys: For each row what it shares with others, such as its system message.
        rows_per_sequence: Largest group.
        rng: Source of the order.

    Returns:
        Groups of row numbers, in random order; each row is in exactly one.
    """
    order = list(range(len(keys)))
    rng.shuffle(order)
    by_key: dict[str, list[int]] = defaultdict(list)
    for number in order:
        by_key[keys[number]].append(number)
    groups = [
        members[start : start + rows_per_sequence]
        for members in by_key.values()
        for start in range(0, len(members), rows_per_sequence)
    ]
    rng.shuffle(groups)
    return groups


def build_schedule(
    encoded: Sequence[Encoded],
    keys: Sequence[str],
    lines: Sequence[int],
    *,
    split: str = "training",
    epochs: float,
    rows_per_sequence: int,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    max_tokens: int,
    seed: int,
) -> Schedule:
    """Lay out every step of the run.

    Args:
        encoded: The training rows.
        keys: For each row what it shares with others (same key, same prefix).
        lines: For each row its line in the data file, which is not its place here: subsets may have been chosen.
        split: What the rows are, for errors: "training" or "dev".
        epochs: Passes over the rows; a part of one takes that part of its sequences.
        rows_per_sequence: Rows behind one prefix.
        micro_batch_size: Packed sequences in one forward pass.
        gradient_accumulation_steps: Micro-batches behind one optimizer step.
        max_tokens: Longest packed sequence; a longer group is halved until it fits.
        seed: Seed of the order.

    Returns:
        The schedule; only its last step may have fewer micro-batches.

    Raises:
        InputError: No rows, a row without any trained token, or a row longer than `max_tokens`.
    """
    check_rows(encoded, lines, split, max_tokens)
    rng = random.Random(seed)
    sequences: list[tuple[PackedSequence, list[int]]] = []
    remaining = epochs
    while remaining > 0:
        epoch = pack_epoch(encoded, keys, rows_per_sequence, max_tokens, rng)
        sequences += epoch[: max(1, round(len(epoch) * min(1.0, remaining)))]
        remaining -= 1
    return lay_out(
        [(packed, [lines[number] for number in numbers]) for packed, numbers in sequences],
        micro_batch_size,
        gradient_accumulation_steps,
    )


def check_rows(encoded: Sequence[Encoded], lines: Sequence[int], split: str, max_tokens: int) -> None:
    """Refuse rows that can't be trained on.

    Raises:
        InputError: No rows, a row without any trained token, or a row longer than `max_tokens`.
    """
    if not encoded:
        raise InputError(f"there are no {split} rows", next_step="check data.train and data.train_subsets")
    for line, row in zip(lines, encoded, strict=True):
        if not any(weight > 0 for weight in row.weights):
            raise InputError(
                f"the {split} row of line {line} has no token that is trained",
                allowed="rows with an assistant's answer",
                next_step=f"look at it with `tunewright data show FILE --line {line}`",
            )
        if len(row.input_ids) > max_tokens:
            raise InputError(
                f"the {split} row of line {line} has {len(row.input_ids)} tokens",
                allowed=f"at most finetune.max_tokens = {max_tokens}",
                next_step="raise finetune.max_tokens, or shorten or drop the row",
            )


def pack_epoch(
    encoded: Sequence[Encoded], keys: Sequence[str], rows_per_sequence: int, max_tokens: int, rng: random.Random
) -> list[tuple[PackedSequence, list[int]]]:
    """Pack all rows once, in an order that `rng` draws.

    Returns:
        Each sequence with the numbers of its rows.
    """
    return [
        part
        for group in group_rows(keys, rows_per_sequence, rng)
        for part in _fitting([encoded[number] for number in group], group, max_tokens)
    ]


def lay_out(
    sequences: Sequence[tuple[PackedSequence, list[int]]], micro_batch_size: int, gradient_accumulation_steps: int
) -> Schedule:
    """Cut a run's sequences into steps and micro-batches.

    Args:
        sequences: Packed sequences in their order, each with the lines of its rows.
        micro_batch_size: Packed sequences in one forward pass.
        gradient_accumulation_steps: Micro-batches behind one optimizer step.

    Returns:
        The schedule; only its last step may have fewer micro-batches.
    """
    steps, lines_of_steps = [], []
    per_step = micro_batch_size * gradient_accumulation_steps
    for start in range(0, len(sequences), per_step):
        chosen = sequences[start : start + per_step]
        packed = [sequence for sequence, _ in chosen]
        steps.append([packed[i : i + micro_batch_size] for i in range(0, len(packed), micro_batch_size)])
        lines_of_steps.append([line for _, lines in chosen for line in lines])
    return Schedule(
        steps=steps,
        rows=sum(sequence.rows for sequence, _ in sequences),
        tokens=sum(len(sequence) for sequence, _ in sequences),
        lines=lines_of_steps,
    )


def _fitting(rows: Sequence[Encoded], numbers: list[int], max_tokens: int) -> list[tuple[PackedSequence, list[int]]]:
    packed = pack_rows(rows)
    if len(packed) <= max_tokens or len(rows) == 1:
        return [(packed, numbers)]
    half = len(rows) // 2
    return _fitting(rows[:half], numbers[:half], max_tokens) + _fitting(rows[half:], numbers[half:], max_tokens)
