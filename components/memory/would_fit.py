"""What would fit when nothing does: for each thing that could be changed, the smallest change that is enough.

Estimates, not verified plans: planning again with the change gives the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.memory.gpus import GPUS
from components.memory.hardware import Budget
from components.memory.process import CUDA_CONTEXT_BYTES
from components.memory.search import HEADROOM_FRACTION, Candidate, Search, Variant

__all__ = ["Remedy", "remedies"]

GIB = 2**30
SHORTEST_TOKENS = 64
TOKENS_STEP = 64
MOST_DEVICES = 8


@dataclass(frozen=True)
class Remedy:
    """One change that makes the run fit.

    Attributes:
        change: What changes: method, sequence_tokens, devices or gpu.
        value: What to set it to.
        peak_bytes: Estimated peak, of each device.
        memory_bytes: Memory that is then paid for, over all devices.
        words: The change in words.
    """

    change: str
    value: str | int
    peak_bytes: int
    memory_bytes: int
    words: str

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of a plan's `would_fit`."""
        return dict(vars(self))


def remedies(
    search: Callable[[int], Search],
    nearest: Candidate,
    *,
    methods: tuple[str, ...],
    sequence_tokens: int,
    sequences: int,
    budget: Budget,
    devices: int,
) -> list[Remedy]:
    """List changes that make a run fit, the least costly first.

    Args:
        search: Makes a search for a number of devices.
        nearest: The candidate that came nearest.
        methods: Methods that were allowed.
        sequence_tokens: Longest sequence.
        sequences: Packed sequences behind an optimizer step, over all devices.
        budget: The budget that nothing fits.
        devices: Devices that were allowed.

    Returns:
        For each kind of change at most one; none when no single change is enough.
    """
    limit = budget.budget_bytes * (1 - HEADROOM_FRACTION)
    here = search(devices)
    variant = nearest.variant
    found: list[Remedy] = []
    if "qlora" not in methods:
        packed = Variant("qlora", variant.optimizer, variant.sharding)
        peak = here.smallest(packed, sequence_tokens)
        if peak <= limit:
            words = f"qlora instead of {variant.method}: the base in 4 bits, at some cost in quality and time"
            found.append(Remedy("method", "qlora", peak, budget.budget_bytes * devices, words))
    shorter = _shorter(here, variant, sequence_tokens, limit)
    if shorter is not None:
        tokens, peak = shorter
        words = (
            f"sequences of at most {tokens:,} tokens instead of {sequence_tokens:,} ({variant.method}, micro-batch 1, "
            "gradient checkpointing)"
        )
        found.append(Remedy("sequence_tokens", tokens, peak, budget.budget_bytes * devices, words))
    if budget.device == "cuda":
        # a step is shared out in whole sequences
        doubled = (devices * 2**power for power in range(1, MOST_DEVICES))
        numbers = [number for number in doubled if number <= MOST_DEVICES and sequences % number == 0]
        found += _more_devices(search, variant, sequence_tokens, limit, budget, numbers)
    found += _larger(here.smallest(variant, sequence_tokens), variant, budget, devices)
    return found


def _shorter(search: Search, variant: Variant, sequence_tokens: int, limit: float) -> tuple[int, int] | None:
    """Return the longest sequences that fit, in steps, and their peak."""
    low = search.smallest(variant, SHORTEST_TOKENS) if sequence_tokens > SHORTEST_TOKENS else None
    if low is None or low > limit:
        return None
    high = search.smallest(variant, sequence_tokens)
    # a straight line between the two ends lies over the peak, which bends upwards: what it says fits does fit
    part = (limit - low) / max(high - low, 1)
    tokens = SHORTEST_TOKENS + int((sequence_tokens - SHORTEST_TOKENS) * min(part, 1.0))
    tokens = max(SHORTEST_TOKENS, tokens // TOKENS_STEP * TOKENS_STEP)
    peak = search.smallest(variant, tokens)
    while peak > limit and tokens > SHORTEST_TOKENS:
        tokens = max(SHORTEST_TOKENS, tokens // 2)
        peak = search.smallest(variant, tokens)
    return (tokens, peak) if peak <= limit and tokens < sequence_tokens else None


def _more_devices(
    search: Callable[[int], Search],
    variant: Variant,
    sequence_tokens: int,
    limit: float,
    budget: Budget,
    numbers: list[int],
) -> Iterator[Remedy]:
    sharded = Variant(variant.method, variant.optimizer, "fsdp")
    for number in numbers:
        peak = search(number).smallest(sharded, sequence_tokens)
        if peak <= limit:
            words = f"{number} devices that each hold a part of the weights (FSDP)"
            yield Remedy("devices", number, peak, budget.budget_bytes * number, words)
            return


def _larger(peak: int, variant: Variant, budget: Budget, devices: int) -> Iterator[Remedy]:
    # of another card the whole is planned for, a context with it
    needed = (peak + (CUDA_CONTEXT_BYTES if budget.beside_context else 0)) / (1 - HEADROOM_FRACTION)
    if budget.device == "cpu":
        gib = -(-round(needed) // GIB)
        yield Remedy("budget", f"{gib}GiB", peak, gib * GIB, f"{gib} GiB of memory ({variant.method})")
        return
    larger = [gpu for gpu in GPUS.values() if gpu.memory_bytes >= needed and gpu.memory_bytes > budget.budget_bytes]
    if larger:
        gpu = min(larger, key=lambda one: one.memory_bytes)
        words = f"a GPU with more memory, such as {gpu.name} ({gpu.memory_bytes / GIB:.1f} GiB; {variant.method})"
        yield Remedy("gpu", gpu.name, peak, gpu.memory_bytes * devices, words)
