"""What would fit: devices that a step can be shared by."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from components.memory.hardware import Budget
from components.memory.prices import priced
from components.memory.search import Candidate, Variant
from components.memory.would_fit import remedies
from flows.plan_text import remedy_line

NEAREST = Candidate("lora", "float32", "adamw", "none", 1, 1, True, 2_000, 1.0, False)


def sharded(devices: int) -> Any:
    # fits from four devices on
    def estimated(*_: Any) -> Candidate:
        return replace(NEAREST, peak_bytes=4_000 // devices, relative_seconds=6.0 / devices)

    return SimpleNamespace(estimated=estimated)


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


def test_each_change_says_its_time_and_a_larger_gpu_its_own() -> None:
    def search(devices: int) -> Any:
        def estimated(variant: Variant, tokens: int, size: int = 1, checkpointing: bool = True) -> Candidate:
            smaller = variant.method == "qlora" or tokens < 512 or devices > 1
            # half the tokens take a little more than half the time
            seconds = (0.5 + tokens) * (1.3 if variant.method == "qlora" else 1.0) / devices
            return replace(NEAREST, peak_bytes=900 if smaller else 4_000, relative_seconds=seconds)

        return SimpleNamespace(estimated=estimated)

    found = remedies(
        search,
        NEAREST,
        methods=("lora",),
        sequence_tokens=512,
        sequences=4,
        budget=Budget(1_100, "test", "cuda"),
        devices=1,
        seconds=3600.0,
        seconds_on=lambda gpu: 1800.0 if gpu.name == "t4-16" else 900.0,
    )
    changes = {remedy.change: remedy for remedy in found}
    assert set(changes) == {"method", "sequence_tokens", "devices", "gpu"}
    assert changes["method"].relative_seconds == pytest.approx(1.3)
    assert changes["method"].seconds == pytest.approx(1.3 * 3600)
    shorter = changes["sequence_tokens"].relative_seconds
    assert shorter is not None
    assert 1.0 < shorter < 1.01
    assert changes["devices"].relative_seconds == pytest.approx(0.5)
    assert (changes["gpu"].seconds, changes["gpu"].relative_seconds) == (1800.0, 0.5)

    plan = {"gpu": None, "devices": 1, "time": None, "would_fit": [remedy.to_dict() for remedy in found]}
    unknown = {r["change"]: r for r in priced(plan, 2.0, {})["would_fit"]}
    # two devices for half the time cost what one costs
    assert (unknown["devices"]["cost"], unknown["method"]["cost"]) == (2.0, 2.6)
    assert unknown["gpu"]["cost"] is None
    assert "no price is known for t4-16 (--gpu-price t4-16=PRICE)" in remedy_line(unknown["gpu"])
    assert "1.30 x the time" in remedy_line(unknown["method"])
    assert "cost 2.00 at 2 x 2 an hour" in remedy_line(unknown["devices"])
    known = {r["change"]: r for r in priced(plan, None, {"t4-16": 0.5})["would_fit"]}
    assert known["gpu"]["cost"] == 0.25
    assert "cost 0.25 at 0.5 an hour" in remedy_line(known["gpu"])
    assert known["method"]["cost"] is None
    assert "an hour" not in remedy_line(known["method"])
