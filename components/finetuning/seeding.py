"""The seed of what a method attaches: drawn apart, so that the run's own generators are where they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed while the block runs, and put its generator back behind it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
