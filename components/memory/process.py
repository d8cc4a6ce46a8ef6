"""From tensors to a process: what the frameworks hold before the first tensor, and what the allocator adds to them.

On a CPU the C library's heap keeps holes between tensors. The plan's search estimates them by factors; for the winner
the allocations of its simulated step are replayed on this machine's own allocator (`training_process`). On CUDA the
peak is the tensors, rounded up, and a context.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from components.errors import TunewrightError
from components.memory.training_process import idle_heap_bytes

__all__ = ["Allocations", "ProcessOverhead", "TrainingProcess", "cuda_overhead", "estimated_holes"]

# Code pages and work buffers of matrix products that are first touched in training; measured, 135M model, one thread.
FIRST_USE_BYTES = 150_000_000
# Two replays of one step differ by up to a tenth. With this margin no measured peak was exceeded: real LoRA and QLoRA
# steps of SmolLM2-135M, micro-batches of 1 to 4, 256 to 1,024 tokens, with and without checkpointing.
REPLAY_MARGIN_FRACTION = 0.25
# Heap against live heap tensors, in the measured steps at most; with checkpointing against those without it.
HEAP_FACTOR, HEAP_BYTES = 1.8, 100_000_000
CHECKPOINT_HEAP_FACTOR, CHECKPOINT_HEAP_BYTES = 0.8, 260_000_000
CUDA_CONTEXT_BYTES = 600_000_000
CUDA_ROUNDING_FRACTION = 0.05


@dataclass(frozen=True)
class Allocations:
    """What a step asks of the allocator.

    Attributes:
        resident: Sizes of blocks that stay for the whole run and aren't read from a mapped file.
        changes: (serial number, bytes) as tensors come, negative bytes as they go.
    """

    resident: list[int]
    changes: list[tuple[int, int]]


@dataclass(frozen=True)
class ProcessOverhead:
    """Bytes beyond the live tensors.

    Attributes:
        baseline_bytes: Interpreter and frameworks.
        allocator_bytes: Holes in the heap, or the device's rounding.
        mapped_bytes: Pages of the weight file that stay mapped although no tensor needs them.
    """

    baseline_bytes: int
    allocator_bytes: int
    mapped_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.baseline_bytes + self.allocator_bytes + self.mapped_bytes


class TrainingProcess:
    """A process that has imported what training imports, started at once and asked later."""

    def __init__(self) -> None:
        self._baseline_bytes: int | None = None
        self._own_bytes = own_bytes()
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "components.memory.training_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )

    def baseline_bytes(self) -> int:
        """Wait for the imports and return what the process holds, or what this one does, where that is more.

        A run that has decided and measured before it trains holds more than the frameworks; heap that stands idle in
        it is left out, since training takes that up again.

        Raises:
            TunewrightError: The process failed.
        """
        if self._baseline_bytes is None:
            self._baseline_bytes = FIRST_USE_BYTES + max(self._answer(), self._own_bytes)
        return self._baseline_bytes

    def replay_bytes(self, allocations: Allocations) -> int:
        """Replay a step's allocations.

        Returns:
            Growth of resident memory over the baseline, with a margin for what the replay doesn't see.

        Raises:
            TunewrightError: The process failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(vars(allocations)) + "\n")
        self._process.stdin.flush()
        return round(self._answer() * (1 + REPLAY_MARGIN_FRACTION))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip():
            _, errors = self._process.communicate()
            last_line = (errors.strip().splitlines() or ["no message"])[-1]
            raise TunewrightError(
                f"a process with the training frameworks ended early: {last_line}",
                next_step="set the environment up again with `make setup`",
            )
        return int(line)


def own_bytes() -> int:
    """Return what this process holds, without heap that stands idle in it."""
    import psutil

    return int(psutil.Process().memory_info().rss) - idle_heap_bytes()[0]


def estimated_holes(live_bytes: int, live_bytes_without_checkpointing: int, checkpointing: bool) -> int:
    """Estimate the heap's holes in a CPU process, for the search.

    Args:
        live_bytes: Tensors in the heap at the peak.
        live_bytes_without_checkpointing: The same, had blocks not been computed again.
        checkpointing: Whether they are.

    Returns:
        Bytes beyond the live ones.
    """
    if checkpointing:
        heap = round(live_bytes_without_checkpointing * CHECKPOINT_HEAP_FACTOR) + CHECKPOINT_HEAP_BYTES
    else:
        heap = round(live_bytes * HEAP_FACTOR) + HEAP_BYTES
    return max(0, heap - live_bytes)


def cuda_overhead(tensor_bytes: int, *, beside_context: bool) -> ProcessOverhead:
    """Return what a CUDA process takes of its budget beyond tensors: a context, and rounding. Not measured here.

    Args:
        tensor_bytes: Tensors at the peak.
        beside_context: The budget was measured beside a context, which doesn't come out of it once more.

    Returns:
        The overhead.
    """
    return ProcessOverhead(0 if beside_context else CUDA_CONTEXT_BYTES, round(tensor_bytes * CUDA_ROUNDING_FRACTION), 0)
