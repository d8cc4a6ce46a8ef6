"""Several tasks in one run: how many tokens of each stand where. Between the tasks' rows and the schedule.

A mixture is a row of stages, each with a budget of tokens for its tasks. All at once is one stage with every task; one
after the other is a stage for each, with a part of it given to those that came before, against forgetting (experience
replay: Rolnick et al. 2019, arXiv:1811.11682). A task's rows are gone through in a new order as often as its budget
asks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.data.chat import Encoded
from components.data.packing import PackedSequence
from components.errors import InputError
from components.finetuning.schedule import Schedule, check_rows, lay_out, pack_epoch

__all__ = ["WAYS", "Mixture", "TaskRows", "build_mixed_schedule", "mixtures"]

# (task, tokens) of each stage
Mixture = tuple[tuple[tuple[str, int], ...], ...]
WAYS = ("mixed", "sequential", "one adapter a task")


@dataclass(frozen=True)
class TaskRows:
    """A task's training rows, as `build_schedule` takes them.

    Attributes:
        encoded: The rows.
        keys: For each what it shares with others.
        lines: For each its line in the task's file.
    """

    encoded: Sequence[Encoded]
    keys: Sequence[str]
    lines: Sequence[int]


def mixtures(weights: Mapping[str, float], tokens: int, replay: float) -> dict[str, dict[str, Mixture]]:
    """Deal one budget of tokens to the tasks in each of the three ways.

    Args:
        weights: Mixing weight of each task, in the order in which they are learned one after the other.
        tokens: Budget of each way, all its runs together.
        replay: Part of a later task's budget that goes to the tasks before it, by their weights.

    Returns:
        Way -> run -> its mixture. A run is named by its task, or by its way where it learns all of them.

    Raises:
        InputError: Fewer than two tasks, a weight that isn't positive, or a budget too small for one of them.
    """
    if len(weights) < 2 or not all(weight > 0 for weight in weights.values()):
        raise InputError(f"tasks with the weights {dict(weights)}", allowed="two tasks or more, with weights above 0")
    whole = sum(weights.values())
    share = {name: round(tokens * weight / whole) for name, weight in weights.items()}
    if min(share.values()) < 1:
        raise InputError(f"{tokens} tokens for {len(weights)} tasks", allowed="a token for each, at least")
    stages = []
    for place, name in enumerate(weights):
        before = list(weights)[:place]
        given = round(share[name] * replay) if before else 0
        earlier = sum(weights[other] for other in before)
        replayed = [(other, round(given * weights[other] / earlier)) for other in before]
        stages.append(tuple((task, count) for task, count in [(name, share[name] - given), *replayed] if count > 0))
    mixed, sequential, apart = WAYS
    return {
        mixed: {mixed: (tuple(share.items()),)},
        sequential: {sequential: tuple(stages)},
        apart: {name: (((name, count),),) for name, count in share.items()},
    }


def build_mixed_schedule(
    tasks: Mapping[str, TaskRows],
    mixture: Mixture,
    *,
    rows_per_sequence: int,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    max_tokens: int,
    seed: int,
) -> Schedule:
    """Lay out every step of a run on several tasks.

    Within a stage the next sequence is always of the task that lags furthest behind its budget, so that the steps have
    the mixture that the whole has.

    Args:
        tasks: Rows by task.
        mixture: The stages.
        rows_per_sequence: Rows behind one prefix.
        micro_batch_size: Packed sequences in one forward pass.
        gradient_accumulation_steps: Micro-batches behind one optimizer step.
        max_tokens: Longest packed sequence.
        seed: Seed of the orders.

    Returns:
        The schedule. A task's tokens go beyond its budget in a stage by less than one sequence.

    Raises:
        InputError: A task without rows, or rows that can't be trained on.
    """
    used = {name for stage in mixture for name, _ in stage}
    for name in sorted(used):
        if name not in tasks:
            raise InputError(f"the task {name!r} has no training rows", allowed=", ".join(tasks))
        check_rows(tasks[name].encoded, tasks[name].lines, f"{name} training", max_tokens)
    streams = {name: _endless(tasks[name], rows_per_sequence, max_tokens, f"{seed} {name}") for name in used}
    sequences: list[tuple[PackedSequence, list[int]]] = []
    for stage in mixture:
        budget, taken = dict(stage), dict.fromkeys(dict(stage), 0)
        while behind := [name for name in budget if taken[name] < budget[name]]:
            name = min(behind, key=lambda task: taken[task] / budget[task])
            packed, lines = next(streams[name])
            taken[name] += len(packed)
            sequences.append((packed, lines))
    return lay_out(sequences, micro_batch_size, gradient_accumulation_steps)


def _endless(
    rows: TaskRows, rows_per_sequence: int, max_tokens: int, seed: str
) -> Iterator[tuple[PackedSequence, list[int]]]:
    rng = random.Random(seed)
    while True:
        for packed, numbers in pack_epoch(rows.encoded, rows.keys, rows_per_sequence, max_tokens, rng):
            yield packed, [rows.lines[number] for number in numbers]
