"""The rate over the steps: the first step trains, and behind the warm-up it is transformers' own schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from components.finetuning.learning_rate import rate_schedule

STEPS = 12


def rates(make: Any) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = make(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_the_first_step_trains_and_the_rest_is_transformers(name: str, warmup: int) -> None:
    theirs_name = {"constant": "constant_with_warmup"}.get(name, name)
    ours = rates(lambda optimizer: rate_schedule(name, optimizer, warmup_steps=warmup, steps=STEPS))
    theirs = rates(
        lambda optimizer: get_scheduler(theirs_name, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    )
    assert ours[warmup:] == pytest.approx(theirs[warmup:])
    assert ours[:warmup] == pytest.approx([0.5 * (step + 1) / (warmup + 1) for step in range(warmup)])
    assert ours[-1] > 0
