"""Which dtype the device at hand is fast in: a linear layer, forward and backward, timed. The plan asks here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["TIMED_SHAPES", "DtypeSpeed", "least_seconds", "measure_dtype"]


class TimedShape(NamedTuple):
    """Width of the timed layer, rows of its input, and passes between two waits for the device."""

    features: int
    tokens: int
    passes: int


# A GPU does the CPU's layer in less time than its kernels take to launch: both dtypes would look the same.
TIMED_SHAPES = {"cpu": TimedShape(512, 256, 1), "cuda": TimedShape(4096, 4096, 8)}


@dataclass(frozen=True)
class DtypeSpeed:
    """A linear layer, forward and backward, in two dtypes.

    Attributes:
        dtype: The faster one; float32 unless bfloat16 is clearly faster.
        seconds_float32: Time of one pass in float32.
        seconds_bfloat16: Time of one pass in bfloat16.
        device: Where it was measured.
    """

    dtype: str
    seconds_float32: float
    seconds_bfloat16: float
    device: str

    @property
    def bfloat16_speedup(self) -> float:
        """How many times as fast bfloat16 is."""
        return self.seconds_float32 / self.seconds_bfloat16

    def relative_seconds(self, dtype: str) -> float:
        """Time of a dtype against float32; float16 is taken as bfloat16."""
        return 1.0 if dtype == "float32" else self.seconds_bfloat16 / self.seconds_float32


def measure_dtype(features: int | None = None, tokens: int | None = None, seconds: float = 0.3) -> DtypeSpeed:
    """Time a linear layer in float32 and bfloat16 on the device at hand.

    bfloat16 must be a fifth faster to be chosen: it costs precision, and casts that a bare layer doesn't show.

    Args:
        features: Width of the layer; by default large enough for the arithmetic, not the launches, to take the time.
        tokens: Rows of its input.
        seconds: About how long the measurement may take.

    Returns:
        Both times, and the dtype to use.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = TIMED_SHAPES[device]
    features, tokens = features or shape.features, tokens or shape.tokens
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Linear(features, features, bias=False, device=device, dtype=dtype)
        states = torch.randn(tokens, features, device=device, dtype=dtype, requires_grad=True)
        found[dtype] = least_seconds(
            lambda layer=layer, states=states: layer(states).sum().backward(),  # type: ignore[misc]
            passes=shape.passes,
            synchronise=torch.cuda.synchronize if device == "cuda" else None,
            seconds=seconds / 2,
        )
    single, half = found[torch.float32], found[torch.bfloat16]
    return DtypeSpeed("bfloat16" if half * 1.2 < single else "float32", single, half, device)


def least_seconds(
    run: Callable[[], object], *, passes: int, synchronise: Callable[[], object] | None, seconds: float
) -> float:
    """Time a pass: the least of several rounds, which is the least disturbed by neighbours.

    Args:
        run: The pass.
        passes: How many make a round; where passes are only queued, waiting for each one would be timed too.
        synchronise: Waits for what is queued, at the end of a round; None where a pass is done when it returns.
        seconds: About how long all of it may take.

    Returns:
        Seconds of one pass.
    """
    best, spent, rounds = float("inf"), 0.0, 0
    # the first round pays for set-up
    while rounds < 2 or (spent < seconds and rounds < 50):
        started = time.perf_counter()
        for _ in range(passes):
            run()
        if synchronise is not None:
            synchronise()
        taken = time.perf_counter() - started
        rounds, spent = rounds + 1, spent + taken
        if rounds > 1:
            best = min(best, taken / passes)
    return best
