"""What would fit when nothing does: for each thing that could be changed, the smallest change that is enough, with what
it costs in time; `prices` turns that into money.

Estimates, not verified plans: planning again with the change gives the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from components.memory.gpus import GPUS, Gpu
from components.memory.hardware import Budget
from components.memory.process import CUDA_CONTEXT_BYTES
from components.memory.search import HEADROOM_FRACTION, Candidate, Search, Variant

__all__ = ["Remedy", "remedies"]

# What takes less memory, the best quality first.
CHEAPER_METHODS = {
    "lora": "factors beside the weights are trained, which learn less where there is much to learn",
    "qlora": "the base in 4 bits, at some cost in quality",
}

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
        devices: Devices that are then paid for.
        relative_seconds: Time against the nearest way to train, had that fitted, at the same number of tokens; None
            where the two can't be compared.
        seconds: Time of the run; None where the device's speed isn't known.
    """

    change: str
    value: str | int
    peak_bytes: int
    memory_bytes: int
    words: str
    devices: int = 1
    relative_seconds: float | None = None
    seconds: float | None = None

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
    seconds: float | None = None,
    seconds_on: Callable[[Gpu], float] | None = None,
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
        seconds: Time of the run by the nearest candidate, had it fitted; None where it isn't known.
        seconds_on: Time of that run on another GPU.

    Returns:
        For each kind of change at most one; none when no single change is enough.
    """
    limit = budget.budget_bytes * (1 - HEADROOM_FRACTION)
    here = search(devices)
    variant = nearest.variant
    least = here.estimated(variant, sequence_tokens)
    as_nearest = here.estimated(
        variant, sequence_tokens, nearest.micro_batch_size, nearest.gradient_checkpointing
    ).relative_seconds
    paid = budget.budget_bytes * devices

    def timed(remedy: Remedy, candidate: Candidate, tokens: int = sequence_tokens) -> Remedy:
        ratio = candidate.relative_seconds / tokens * sequence_tokens / as_nearest
        return replace(remedy, relative_seconds=ratio, seconds=None if seconds is None else seconds * ratio)

    found: list[Remedy] = []
    for method, cost in CHEAPER_METHODS.items():
        if method in methods:
            continue
        cheaper = here.estimated(Variant(method, variant.optimizer, variant.sharding), sequence_tokens)
        if cheaper.peak_bytes <= limit:
            words = f"{method} instead of {variant.method}: {cost}"
            found.append(timed(Remedy("method", method, cheaper.peak_bytes, paid, words, devices), cheaper))
            break
    shorter = _shorter(here, variant, sequence_tokens, limit)
    if shorter is not None:
        tokens, candidate = shorter
        words = (
            f"sequences of at most {tokens:,} tokens instead of {sequence_tokens:,} ({variant.method}, micro-batch 1, "
            "gradient checkpointing)"
        )
        remedy = Remedy("sequence_tokens", tokens, candidate.peak_bytes, paid, words, devices)
        found.append(timed(remedy, candidate, tokens))
    if budget.device == "cuda":
        # a step is shared out in whole sequences
        doubled = (devices * 2**power for power in range(1, MOST_DEVICES))
        numbers = [number for number in doubled if number <= MOST_DEVICES and sequences % number == 0]
        sharded = Variant(variant.method, variant.optimizer, "fsdp")
        more = ((number, search(number).estimated(sharded, sequence_tokens)) for number in numbers)
        for number, candidate in more:
            if candidate.peak_bytes <= limit:
                words = f"{number} devices that each hold a part of the weights (FSDP)"
                remedy = Remedy("devices", number, candidate.peak_bytes, budget.budget_bytes * number, words, number)
                found.append(timed(remedy, candidate))
                break
    # of another card the whole is planned for, a context with it
    needed = (least.peak_bytes + (CUDA_CONTEXT_BYTES if budget.beside_context else 0)) / (1 - HEADROOM_FRACTION)
    if budget.device == "cpu":
        gib = -(-round(needed) // GIB)
        words = f"{gib} GiB of memory ({variant.method})"
        found.append(timed(Remedy("budget", f"{gib}GiB", least.peak_bytes, gib * GIB, words, devices), least))
    else:
        found += _larger(least.peak_bytes, needed, variant, budget, devices, seconds, seconds_on)
    return found


def _shorter(search: Search, variant: Variant, sequence_tokens: int, limit: float) -> tuple[int, Candidate] | None:
    """Return the longest sequences that fit, in steps, and the candidate."""
    if sequence_tokens <= SHORTEST_TOKENS:
        return None
    low = search.estimated(variant, SHORTEST_TOKENS).peak_bytes
    if low > limit:
        return None
    high = search.estimated(variant, sequence_tokens).peak_bytes
    # a straight line between the two ends lies over the peak, which bends upwards: what it says fits does fit
    part = (limit - low) / max(high - low, 1)
    tokens = SHORTEST_TOKENS + int((sequence_tokens - SHORTEST_TOKENS) * min(part, 1.0))
    tokens = max(SHORTEST_TOKENS, tokens // TOKENS_STEP * TOKENS_STEP)
    candidate = search.estimated(variant, tokens)
    while candidate.peak_bytes > limit and tokens > SHORTEST_TOKENS:
        tokens = max(SHORTEST_TOKENS, tokens // 2)
        candidate = search.estimated(variant, tokens)
    return (tokens, candidate) if candidate.peak_bytes <= limit and tokens < sequence_tokens else None


def _larger(
    peak: int,
    needed: float,
    variant: Variant,
    budget: Budget,
    devices: int,
    seconds: float | None,
    seconds_on: Callable[[Gpu], float] | None,
) -> Iterator[Remedy]:
    larger = [gpu for gpu in GPUS.values() if gpu.memory_bytes >= needed and gpu.memory_bytes > budget.budget_bytes]
    if not larger:
        return
    gpu = min(larger, key=lambda one: one.memory_bytes)
    words = f"a GPU with more memory, such as {gpu.name} ({gpu.memory_bytes / GIB:.1f} GiB; {variant.method})"
    there = seconds_on(gpu) if seconds_on else None
    yield Remedy(
        "gpu",
        gpu.name,
        peak,
        gpu.memory_bytes * devices,
        words,
        devices,
        there / seconds if there is not None and seconds else None,
        there,
    )
