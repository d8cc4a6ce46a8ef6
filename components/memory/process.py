"""From tensors to a process: what the frameworks hold before the first tensor, and what the allocator adds to them.

On a CPU the C library's heap keeps holes between tensors. The plan's search estimates them by factors; for the winner
its step is run on untouched memory, by a process like that of the training (`training_process`). On CUDA the peak is
the tensors, rounded up, and a context.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TunewrightError
from components.memory.settings import StepSettings, StepShape
from components.memory.storages import Peak

__all__ = [
    "FrameworksProcess",
    "ProcessOverhead",
    "TrainingProcess",
    "cpu_overhead",
    "cuda_overhead",
    "estimated_holes",
    "kept_mapped_bytes",
    "own_bytes",
    "sharded_overhead",
    "start_frameworks",
]

# Code pages and work buffers of matrix products that are first touched in training; measured, 135M model, one thread.
FIRST_USE_BYTES = 45_000_000
# Code and work buffers of 16-bit kernels, beyond those; measured, 135M model, one thread, a processor with AMX.
SIXTEEN_BIT_KERNEL_BYTES = 50_000_000
# Heap against live heap tensors, in the measured steps at most; with checkpointing against those without it.
HEAP_FACTOR, HEAP_BYTES = 1.8, 100_000_000
CHECKPOINT_HEAP_FACTOR, CHECKPOINT_HEAP_BYTES = 0.8, 260_000_000
# What one of several processes has loaded besides, to talk to the others; and what one with a part of a model takes
# beyond its tensors: what is gathered and copied out of, and its heap, which keeps no large tensors. Set by four
# measured peaks of the 135M model in two processes: all weights and LoRA, as copies and in parts.
JOINED_BYTES = 120_000_000
SHARDED_HEAP_FRACTION, SHARDED_HEAP_BYTES = 0.1, 180_000_000
CUDA_CONTEXT_BYTES = 600_000_000
CUDA_ROUNDING_FRACTION = 0.05


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


class FrameworksProcess:
    """The process behind a `TrainingProcess`: it has imported what training imports, and answers questions in turn.

    A question is answered in a copy of it, so that it could serve several plans, one after the other: tests do that.
    """

    def __init__(self) -> None:
        self._framework_bytes: int | None = None
        self._open_questions = 0
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        # a file, since a pipe that nobody reads would stop a process that says much
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "components.memory.training_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_idle(self) -> bool:
        """Whether it is alive and owes no answer."""
        return self._process.poll() is None and not self._open_questions

    def framework_bytes(self) -> int:
        """Wait for the imports and return what they take."""
        if self._framework_bytes is None:
            self._framework_bytes = self._line()
        return self._framework_bytes

    def ask(self, request: Mapping[str, Any]) -> None:
        """Ask how far a step makes a process grow."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._open_questions += 1

    def answer(self) -> int:
        """Wait for what was asked last."""
        self.framework_bytes()
        found = self._line()
        self._open_questions -= 1
        return found

    def end(self) -> None:
        """End it."""
        if not self._said.closed:
            self._process.kill()
            self._process.communicate()
            self._said.close()

    def _line(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip():
            self._process.kill()
            self._process.wait()
            self._said.seek(0)
            last_line = (self._said.read().strip().splitlines() or ["no message"])[-1]
            raise TunewrightError(
                f"a process with the training frameworks ended early: {last_line}",
                next_step="set the environment up again with `make setup`",
            )
        return int(line)


class TrainingProcess:
    """What a process that trains would hold: asked of one like it, which is started at once and answers later.

    Args:
        here: The training will run in this process, so that what it holds by then counts.
    """

    def __init__(self, *, here: bool = True) -> None:
        self._here = here
        self._own_bytes = self._joined_bytes = 0
        self.look_again()
        self._frameworks = start_frameworks()

    def baseline_bytes(self) -> int:
        """Wait for the imports and return what a training process holds before its first tensor.

        That is the frameworks with what they touch at first use; or what this process holds now, where that is more: a
        run that has decided and measured before it trains has touched that already, and holds its own rows and answers.

        Raises:
            TunewrightError: The process failed.
        """
        return max(self._frameworks.framework_bytes() + FIRST_USE_BYTES, self._own_bytes) + self._joined_bytes

    def leave(self) -> None:
        """Take it that the training will run in several processes of its own, whatever was said at first."""
        self._here, self._own_bytes, self._joined_bytes = False, 0, JOINED_BYTES

    def look_again(self) -> None:
        """Count what this process holds by now, where the training will run in it."""
        if self._here:
            self._own_bytes = own_bytes()

    def ask(self, folder: Path, settings: StepSettings, shape: StepShape) -> None:
        """Let the process run a step on untouched memory while this one does something else.

        Args:
            folder: A base; only its config.json is read.
            settings: What is trained and how.
            shape: The micro-batch.
        """
        self._frameworks.ask({"folder": str(folder.absolute()), "settings": vars(settings), "shape": vars(shape)})

    def grown_bytes(self, live_bytes: int, dtype: str) -> int:
        """Wait for what was asked last.

        Args:
            live_bytes: Tensors at the step's peak, without weights that are read from a file's pages: known exactly.
            dtype: dtype of computation.

        Returns:
            Growth of resident memory over the baseline: the tensors, the heap's holes between them, and what 16-bit
            kernels keep.

        Raises:
            TunewrightError: The process failed.
        """
        kernels = 0 if dtype == "float32" else SIXTEEN_BIT_KERNEL_BYTES
        return max(live_bytes, self._frameworks.answer()) + kernels

    def close(self) -> None:
        """End the process."""
        self._frameworks.end()

    def __enter__(self) -> TrainingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_frameworks() -> FrameworksProcess:
    """Start a process that imports what training imports; that takes seconds, and nobody waits for them yet."""
    return FrameworksProcess()


def own_bytes() -> int:
    """Return what this process holds once it has given back what it doesn't use."""
    import psutil

    from components.runtime import release_memory

    release_memory()
    return int(psutil.Process().memory_info().rss)


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


def kept_mapped_bytes(mapped_bytes: int, file_bytes: int) -> int:
    """Return what stays mapped of the weight files beyond the weights read from them: one tensor keeps a file whole.

    Args:
        mapped_bytes: Weights that are read from the files' pages.
        file_bytes: Size of the files.
    """
    return max(0, file_bytes - mapped_bytes) if mapped_bytes else 0


def cpu_overhead(
    process: TrainingProcess, peak: Peak, mapped_bytes: int, file_bytes: int, dtype: str
) -> ProcessOverhead:
    """Return what a CPU process takes beyond tensors, for the step that it was asked for last.

    Args:
        process: A training process.
        peak: The step's.
        mapped_bytes: Weights that are read from the files' pages.
        file_bytes: Size of the files.
        dtype: dtype of computation.

    Returns:
        The overhead. Weights that are converted are there twice while they are loaded, on the file's pages too, which
        may be more than training takes.
    """
    grown = process.grown_bytes(peak.peak_bytes - mapped_bytes, dtype)
    loading = 0 if mapped_bytes else file_bytes + peak.breakdown["weights"]
    beyond = max(grown + mapped_bytes, loading) - peak.peak_bytes
    # the step was simulated by now, and what that imports stays
    process.look_again()
    return ProcessOverhead(process.baseline_bytes(), beyond, kept_mapped_bytes(mapped_bytes, file_bytes))


def sharded_overhead(process: TrainingProcess, tensor_bytes: int, whole_bytes: int, file_bytes: int) -> ProcessOverhead:
    """Return what a CPU process takes beyond tensors that holds a part of a model.

    Args:
        process: A training process.
        tensor_bytes: Its tensors at the step's peak.
        whole_bytes: What of the whole weights isn't read from the files' pages.
        file_bytes: Size of the files.

    Returns:
        The overhead. A process has the whole weights before they are parted, and the first one again at the end, which
        may be more than training takes.
    """
    beyond = round(SHARDED_HEAP_FRACTION * tensor_bytes) + SHARDED_HEAP_BYTES
    return ProcessOverhead(process.baseline_bytes(), max(beyond, file_bytes + whole_bytes - tensor_bytes), 0)


def cuda_overhead(tensor_bytes: int, *, beside_context: bool) -> ProcessOverhead:
    """Return what a CUDA process takes of its budget beyond tensors: a context, and rounding. Not measured here.

    Args:
        tensor_bytes: Tensors at the peak.
        beside_context: The budget was measured beside a context, which doesn't come out of it once more.

    Returns:
        The overhead.
    """
    return ProcessOverhead(0 if beside_context else CUDA_CONTEXT_BYTES, round(tensor_bytes * CUDA_ROUNDING_FRACTION), 0)
