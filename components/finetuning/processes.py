"""Several processes that train one model: which sequences of a step each of them takes. Between schedule and trainer.

A copy of the model in each process, gradients averaged over them (torch's DistributedDataParallel). The schedule is one
for all, whatever their number, so that a checkpoint of two processes can be resumed by one or by four.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from components.data.packing import PackedSequence
from components.errors import InputError
from components.finetuning.schedule import Schedule

__all__ = ["Processes", "current_processes", "loss_as_forward", "share_of", "step_weights"]


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0; the first one writes.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all have to ask."""
        if self.count == 1:
            return flag
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        found = torch.tensor(int(flag), device=device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return bool(found)

    def first_value(self, value: float) -> float:
        """Return the first process's value in all of them; all have to ask."""
        if self.count == 1:
            return value
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        found = torch.tensor(value, dtype=torch.float64, device=device)
        torch.distributed.broadcast(found, src=0)
        return float(found)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            import torch

            torch.distributed.barrier()


def current_processes() -> Processes:
    """Return the place that a launcher (torchrun, accelerate) gave this process; the only one without a launcher.

    Raises:
        InputError: A launcher's variables that don't fit each other.
    """
    found = {name: os.environ.get(name, "0" if name == "RANK" else "1") for name in ("RANK", "WORLD_SIZE")}
    try:
        processes = Processes(int(found["RANK"]), int(found["WORLD_SIZE"]))
    except ValueError:
        processes = Processes(-1, 0)
    if not 0 <= processes.rank < processes.count:
        raise InputError(
            f"RANK {found['RANK']} of WORLD_SIZE {found['WORLD_SIZE']}",
            allowed="numbers, RANK from 0 up to, but not including, WORLD_SIZE",
            next_step="start training with torchrun, or unset both",
        )
    return processes


def share_of(schedule: Schedule, processes: Processes, micro_batch_size: int) -> list[list[list[PackedSequence]]]:
    """Return the micro-batches of every step that a process takes.

    Args:
        schedule: The whole order.
        processes: Which process.
        micro_batch_size: Sequences in one of its forward passes.

    Returns:
        For each step this process's micro-batches, as many as every other process has: where sequences don't go round,
        the last ones hold a sequence of the step without weight, which adds nothing to the loss.
    """
    if processes.count == 1:
        return schedule.steps
    steps = []
    for step in schedule.steps:
        sequences = [sequence for micro_batch in step for sequence in micro_batch]
        most = -(-len(sequences) // processes.count)
        own = sequences[processes.rank :: processes.count]
        shortest = min(sequences, key=len)
        own += [_weightless(shortest)] * (most - len(own))
        steps.append([own[start : start + micro_batch_size] for start in range(0, most, micro_batch_size)])
    return steps


def _weightless(sequence: PackedSequence) -> PackedSequence:
    return replace(sequence, weights=[0.0] * len(sequence))


@contextmanager
def loss_as_forward(model: Any, loss: Any, processes: Processes) -> Iterator[None]:
    """Let calling a model compute the loss, while the block runs: gradients are averaged for what is called.

    Args:
        model: The model, before it is wrapped.
        loss: (model, batch, normaliser) -> loss.
        processes: One process needs none of this, and gets none.
    """
    if processes.count == 1:
        yield
        return
    model.forward = lambda batch, normaliser: loss(model, batch, normaliser)
    try:
        yield
    finally:
        del model.forward


def step_weights(schedule: Schedule) -> Sequence[float]:
    """Return the sum of loss weights behind every optimizer step, over all processes."""
    return [sum(sum(s.weights) for micro_batch in step for s in micro_batch) for step in schedule.steps]
