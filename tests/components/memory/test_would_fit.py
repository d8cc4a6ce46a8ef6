"""What would fit: devices that a step can be shared by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from components.memory.hardware import Budget
from components.memory.search import Candidate
from components.memory.would_fit import remedies

NEAREST = Candidate("lora", "float32", "adamw", "none", 1, 1, True, 2_000, 1.0, False)


def sharded(devices: int) -> Any:
    # fits from four devices on
    return SimpleNamespace(smallest=lambda _variant, _tokens: 4_000 // devices)


@pytest.mark.parametrize(("sequences", "number"), [(4, 4), (24, 4), (3, None), (6, None), (2, None)])
def test_devices_that_would_fit_divide_the_sequences_of_a_step(sequences: int, number: int | None) -> None:
    found = remedies(
        sharded,
        NEAREST,
        methods=("lora", "qlora"),
        sequence_tokens=64,
        sequences=sequences,
        budget=Budget(1_100, "test", "cuda"),
        devices=1,
    )
    assert [remedy.value for remedy in found if remedy.change == "devices"] == ([] if number is None else [number])
