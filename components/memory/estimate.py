"""Peaks of many shapes from few small simulations: the same step on the first one and two blocks of the model.

Live memory is affine in the number of blocks and in the micro-batch, once both are large enough for the moment of the
peak to stay the same; so four small simulations give the plan's search its numbers. What the search chooses is
simulated whole before it is returned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.memory.simulate import StepModel, StepSettings, StepShape

__all__ = ["PeakEstimate", "PeakEstimator"]

# `weighted_token_loss` computes so many rows of logits at once, and holds so many tensors of that size at its peak.
LOGITS_CHUNK_TOKENS = 256
LOGITS_CHUNK_TENSORS = 3
# The teacher's logits, both distributions, and the distance between them.
TEACHER_CHUNK_TENSORS = 4
# What `components.runtime` tells the C library to keep in its heap.
HEAP_LIMIT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class PeakEstimate:
    """What a shape is expected to take.

    Attributes:
        tensor_bytes: Live tensors at the peak.
        least_bytes: The same once a paged optimizer's states are moved to the host's memory.
        flops: Floating-point operations of forward and backward.
    """

    tensor_bytes: int
    least_bytes: int
    flops: int


class PeakEstimator:
    """Estimate the peaks of one method and dtype.

    Args:
        config: The base's config.
        settings: Method, rank, targets, dtype, optimizer.
        sequence_tokens: Length of the longest packed sequence.
    """

    def __init__(self, config: Any, settings: StepSettings, sequence_tokens: int) -> None:
        self.settings = settings
        self.sequence_tokens = sequence_tokens
        self._chunks = LOGITS_CHUNK_TENSORS + (TEACHER_CHUNK_TENSORS if settings.teacher is not None else 0)
        self.blocks = int(getattr(config, "num_hidden_layers", 0))
        self._exact = self.blocks <= 2
        depths = (self.blocks,) if self._exact else (1, 2)
        self._models = {depth: StepModel(_cut(config, depth), settings) for depth in depths}
        self._vocabulary = int(config.vocab_size)
        self._seen: dict[tuple[int, int, bool], PeakEstimate] = {}

    def estimate(self, micro_batch_size: int, checkpointing: bool) -> PeakEstimate:
        """Estimate peak and operations of a micro-batch while gradients of an earlier one are there.

        Args:
            micro_batch_size: Sequences.
            checkpointing: Whether blocks are computed again.

        Returns:
            The estimate.
        """
        if micro_batch_size <= 2:
            return self._at(micro_batch_size, checkpointing)
        return _line(self._at(1, checkpointing), self._at(2, checkpointing), micro_batch_size)

    def mapped_bytes(self, file_dtype: Any) -> int:
        """Return the bytes of weights that are read from the file's pages."""
        return self._of_all_blocks(lambda model: model.mapped_bytes(file_dtype))

    def unmapped_bytes(self, file_dtype: Any) -> int:
        """Return the bytes of the whole weights that a process has of its own when it has loaded them."""
        return self._of_all_blocks(lambda model: model.unmapped_bytes(file_dtype))

    def _of_all_blocks(self, size: Callable[[StepModel], int]) -> int:
        sizes = [size(model) for model in self._models.values()]
        return sizes[0] if self._exact else sizes[0] + (sizes[1] - sizes[0]) * (self.blocks - 1)

    def large_bytes(self, micro_batch_size: int) -> int:
        """Return the bytes of the loss's logits chunks, where a chunk is too large for the heap."""
        tokens = min(LOGITS_CHUNK_TOKENS, micro_batch_size * self.sequence_tokens)
        chunk = tokens * self._vocabulary * 4
        return chunk * self._chunks if chunk >= HEAP_LIMIT_BYTES else 0

    def _at(self, micro_batch_size: int, checkpointing: bool) -> PeakEstimate:
        if self._exact:
            return self._simulated(self.blocks, micro_batch_size, checkpointing)
        one, two = (self._simulated(depth, micro_batch_size, checkpointing) for depth in (1, 2))
        return _line(one, two, self.blocks)

    def _simulated(self, depth: int, micro_batch_size: int, checkpointing: bool) -> PeakEstimate:
        key = (depth, micro_batch_size, checkpointing)
        if key not in self._seen:
            found = self._models[depth].run(
                StepShape(micro_batch_size, self.sequence_tokens, checkpointing, accumulating=True)
            )
            self._seen[key] = PeakEstimate(found.peak.peak_bytes, found.least_bytes, found.flops)
        return self._seen[key]


def _line(one: PeakEstimate, two: PeakEstimate, at: int) -> PeakEstimate:
    return PeakEstimate(
        one.tensor_bytes + (two.tensor_bytes - one.tensor_bytes) * (at - 1),
        one.least_bytes + (two.least_bytes - one.least_bytes) * (at - 1),
        one.flops + (two.flops - one.flops) * (at - 1),
    )


def _cut(config: Any, depth: int) -> Any:
    """Return the config of a model with fewer blocks; lists with an entry a block are cut too."""
    smaller = copy.deepcopy(config)
    blocks = config.num_hidden_layers
    for name, value in list(vars(smaller).items()):
        if isinstance(value, list) and len(value) == blocks and blocks > 2:
            setattr(smaller, name, value[:depth])
    smaller.num_hidden_layers = depth
    return smaller
