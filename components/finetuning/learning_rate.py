"""The learning rate over the steps: transformers' schedules, with a first step that trains.

transformers starts its warm-up at a rate of 0, so that the first step of a run moves nothing: of 22 steps, one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["rate_schedule"]

# as a recipe names them, where transformers has another name
NAMES = {"constant": "constant_with_warmup"}


def rate_schedule(name: str, optimizer: Any, *, warmup_steps: int, steps: int) -> Any:
    """Return the schedule of an optimizer's rate.

    Step i of w warm-up steps has the rate (i + 1) / (w + 1) of the peak; from step w on it is what transformers has.

    Args:
        name: cosine, linear or constant.
        optimizer: Its rate is the peak.
        warmup_steps: Steps in which the rate rises.
        steps: Optimizer steps of the run.
    """
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import get_scheduler

    ahead = 1 if warmup_steps else 0
    peaks = [group["lr"] for group in optimizer.param_groups]
    theirs = get_scheduler(
        NAMES.get(name, name), optimizer, num_warmup_steps=warmup_steps + ahead, num_training_steps=steps + ahead
    )
    if not ahead:
        return theirs
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = group["initial_lr"] = peak
    return LambdaLR(optimizer, [_later(part) for part in theirs.lr_lambdas])


def _later(part: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: part(step + 1)
