"""FSDP shards: what a device keeps, what it gathers, and that one device is as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import Simulation, simulate
from components.models.load import load_model
from components.models.tiny import make_tiny

BLOCKS = 6
SHAPE = StepShape(1, 64, gradient_checkpointing=True, accumulating=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=BLOCKS)


def sharded(base: Path, devices: int, **settings: object) -> Simulation:
    return simulate(base, StepSettings("full", world_size=devices, **settings), SHAPE)  # type: ignore[arg-type]


def test_states_are_divided_and_two_blocks_are_gathered(base: Path) -> None:
    model = load_model(base)
    whole = sum(parameter.numel() * 4 for parameter in model.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    block = sum(parameter.numel() * 4 for parameter in model.get_decoder().layers[0].parameters())
    found = sharded(base, 4).peak
    outside = whole - BLOCKS * block
    assert found.phase == "backward"
    assert found.breakdown["weights"] == pytest.approx(whole / 4 + outside + 2 * block, abs=buffers)
    assert found.breakdown["optimizer"] == pytest.approx(2 * whole / 4, rel=0.01)
    # shards of earlier gradients, and in full those of the block at work
    assert whole / 4 + block <= found.breakdown["gradients"] <= whole / 4 + block + outside


def test_more_devices_take_less_each_and_one_takes_all(base: Path) -> None:
    peaks = [sharded(base, devices).peak for devices in (1, 2, 4, 64)]
    kept = [peak.breakdown["optimizer"] for peak in peaks]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == pytest.approx(64 * kept[3], rel=0.01)
    # with so many devices what is left is activations and what is gathered
    assert peaks[3].breakdown["activations"] == peaks[2].breakdown["activations"]


def test_mixed_precision_gathers_16_bits_and_keeps_32(base: Path) -> None:
    single, mixed = (sharded(base, 4, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert mixed.peak.breakdown["optimizer"] == pytest.approx(single.peak.breakdown["optimizer"], rel=0.01)
    assert mixed.peak.breakdown["weights"] < single.peak.breakdown["weights"]
    assert mixed.trainable_parameters == single.trainable_parameters


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw"])
def test_states_of_bitsandbytes_are_divided_by_the_devices_alone(base: Path, optimizer: str) -> None:
    whole, found = (sharded(base, devices, dtype="bfloat16", optimizer=optimizer) for devices in (1, 4))
    assert found.peak.breakdown["optimizer"] == pytest.approx(whole.peak.breakdown["optimizer"] / 4, rel=0.01)
    assert found.pageable_bytes == pytest.approx(whole.pageable_bytes / 4, abs=1)


def test_an_offloaded_optimizer_of_shards_is_divided_too(base: Path) -> None:
    found = sharded(base, 4, offload_optimizer=True)
    assert found.peak.breakdown["optimizer"] == 0
    assert found.host_bytes == pytest.approx(16 * found.trainable_parameters / 4, rel=0.01)
