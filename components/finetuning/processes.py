"""Several processes that train one model: which sequences of a step each of them takes. Between schedule and trainer.

Either a copy of the model in each process, gradients averaged over them (torch's DistributedDataParallel), or a part of
everything in each (FSDP2, `shards.py`). The schedule is one for all, whatever their number and the way, so that a
checkpoint of two processes can be resumed by one or by four.
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

__all__ = [
    "ALONE",
    "PARALLEL",
    "Processes",
    "current_processes",
    "share_of",
    "step_weights",
    "with_averaged_gradients",
    "work_as_forward",
]

PARALLEL = ("ddp", "fsdp")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0; the first one writes.
        count: How many there are.
        parallel: "ddp", each has all of the model; "fsdp", each has a part of it.
    """

    rank: int = 0
    count: int = 1
    parallel: str = "ddp"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether weights, gradients and optimizer states are parted among the processes."""
        return self.count > 1 and self.parallel == "fsdp"

    def take_device(self) -> None:
        """Take this process's own GPU, before anything is put on one; on CPUs there is nothing to take.

        Raises:
            InputError: More processes on this machine than GPUs.
        """
        import torch

        if self.count == 1 or not torch.cuda.is_available():
            return
        local, there = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if local >= there:
            raise InputError(
                f"{local + 1} or more processes on a machine with {there} GPUs",
                allowed="a process for each GPU",
                next_step=f"set finetune.processes to {there} at most",
            )
        torch.cuda.set_device(local)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all have to ask."""
        if self.count == 1:
            return flag
        import torch

        found = torch.tensor(int(flag), device=_sending_device())
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return bool(found)

    def sum(self, value: float) -> float:
        """Return the sum of a value over all processes, the same in each of them; all have to ask."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor(value, dtype=torch.float64, device=_sending_device())
        torch.distributed.all_reduce(found)
        return float(found)

    def first_value(self, value: float) -> float:
        """Return the first process's value in all of them; all have to ask."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor(value, dtype=torch.float64, device=_sending_device())
        torch.distributed.broadcast(found, src=0)
        return float(found)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            import torch

            torch.distributed.barrier()


ALONE = Processes()


def _sending_device() -> str:
    """Return where a tensor has to be that processes send each other."""
    import torch

    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def current_processes(parallel: str = "ddp") -> Processes:
    """Return the place that a launcher gave this process (`launch.py`, torchrun, accelerate); the only one without one.

    Args:
        parallel: One of `PARALLEL`.

    Raises:
        InputError: Another way, or a launcher's variables that don't fit each other.
    """
    if parallel not in PARALLEL:
        raise InputError(f"processes that work in parallel by {parallel!r}", allowed=", ".join(PARALLEL))
    found = {name: os.environ.get(name, "0" if name == "RANK" else "1") for name in ("RANK", "WORLD_SIZE")}
    try:
        processes = Processes(int(found["RANK"]), int(found["WORLD_SIZE"]), parallel)
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
def work_as_forward(model: Any, processes: Processes) -> Iterator[None]:
    """Let calling a model do some work with it, while the block runs: `model(work, *arguments)`.

    Gradients are averaged for what is called, and parted weights are gathered for it: the loss goes past the model's
    own forward, and wants both.

    Args:
        model: The model, before it is wrapped.
        processes: One process needs none of this, and gets none; neither does a block within such a block.
    """
    if processes.count == 1 or "forward" in vars(model):
        yield
        return

    def forward(*arguments: Any, **named: Any) -> Any:
        if arguments and callable(arguments[0]):
            work, *rest = arguments
            return work(model, *rest)
        # transformers' own generation calls the model as a model
        return type(model).forward(model, *arguments, **named)

    model.forward = forward
    try:
        yield
    finally:
        del model.forward


def with_averaged_gradients(model: Any) -> Any:
    """Put torch's DistributedDataParallel round a model of which each process has a copy.

    Args:
        model: The model, on this process's device. What is trained begins as the first process has it.

    Returns:
        The wrapped model.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    device = next(model.parameters()).device
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.distributed.broadcast(parameter, src=0)
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        # else the frozen weights would be sent as well, a quarter of a gigabyte at a time beside them
        init_sync=False,
        # else gradients would be there twice
        gradient_as_bucket_view=True,
    )


def step_weights(schedule: Schedule) -> Sequence[float]:
    """Return the sum of loss weights behind every optimizer step, over all processes."""
    return [sum(sum(s.weights) for micro_batch in step for s in micro_batch) for step in schedule.steps]
