"""From tensors to a process: what the frameworks hold before the first tensor, and what the allocator adds to them.

On a CPU the C library's heap keeps holes between tensors, so resident memory exceeds the live tensors by a factor.
The constants were fitted to measured peaks of real LoRA steps (SmolLM2-135M whole and cut to 4 blocks, micro-batches of
1 to 4, 256 to 1,024 tokens, with and without checkpointing; glibc 2.36 with the thresholds that `components.runtime`
sets) so that none of them is exceeded. On CUDA the allocator's peak is the tensors, rounded up; its context is apart.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from components.errors import TunewrightError

__all__ = ["BaselineProbe", "ProcessOverhead", "overhead"]

# tensors up to this size live in the heap, greater ones in mappings of their own, which are given back at once
HEAP_HOLES_FRACTION = 0.95
HEAP_BYTES = 170_000_000
CHECKPOINT_BYTES = 340_000_000
CHECKPOINT_BLOCKS = 1.7
CUDA_CONTEXT_BYTES = 600_000_000
CUDA_ROUNDING_FRACTION = 0.05

# what a training process has loaded before its first tensor
_IMPORTS = """
import sys
from components.runtime import prepare_process
prepare_process(1)
import torch, transformers, peft, accelerate, bitsandbytes
from transformers import Trainer, AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama import modeling_llama
import psutil
print(psutil.Process().memory_info().rss)
"""


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


class BaselineProbe:
    """Measure in a process of its own what the frameworks take, while this one goes on."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _IMPORTS],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result_bytes(self, timeout_seconds: float = 180.0) -> int:
        """Wait for the measurement.

        Returns:
            Resident bytes of a process that has everything imported.

        Raises:
            TunewrightError: The probe failed.
        """
        try:
            output, errors = self._process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise TunewrightError(f"importing the frameworks took over {timeout_seconds:.0f} s") from error
        if self._process.returncode != 0:
            last_line = (errors.strip().splitlines() or ["no message"])[-1]
            raise TunewrightError(
                f"the frameworks can't be imported: {last_line}",
                next_step="set the environment up again with `make setup`",
            )
        return int(output.split()[-1])


def overhead(
    *,
    device: str,
    baseline_bytes: int,
    weights_bytes: int,
    tensor_bytes: int,
    large_bytes: int,
    block_bytes: int,
    checkpointing: bool,
    mapped_bytes: int,
) -> ProcessOverhead:
    """Estimate what a training process takes beyond its live tensors at the peak.

    Args:
        device: "cpu" or "cuda".
        baseline_bytes: As `BaselineProbe` measures it.
        weights_bytes: The part of the tensors that is the base's weights: loaded once, without holes between them.
        tensor_bytes: Live tensors at the peak.
        large_bytes: The part of them in tensors too large for the heap (a chunk of logits).
        block_bytes: Activations of one block without checkpointing.
        checkpointing: Whether blocks are computed again in the backward pass.
        mapped_bytes: Pages of the weight file that stay mapped beside the tensors.

    Returns:
        The parts.
    """
    if device == "cuda":
        return ProcessOverhead(CUDA_CONTEXT_BYTES, round(tensor_bytes * CUDA_ROUNDING_FRACTION), 0)
    heap = max(0, tensor_bytes - weights_bytes - large_bytes)
    holes = HEAP_BYTES + heap * HEAP_HOLES_FRACTION
    if checkpointing:
        holes += CHECKPOINT_BYTES + CHECKPOINT_BLOCKS * block_bytes
    return ProcessOverhead(baseline_bytes, round(holes), mapped_bytes)
