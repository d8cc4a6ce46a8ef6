"""The predicted time: parts of a step measured on real blocks and scaled; assumed for a GPU that isn't here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.memory.block_probe import BlockRate, StepSpeed, measure_step_speed
from components.memory.duration import ASSUMED_UTILISATION, BESIDE_BLOCKS, assumed_duration, measured_duration
from components.memory.gpus import find_gpu
from components.memory.prices import with_price
from components.memory.simulate import StepSettings, StepShape, simulate
from components.memory.workload import Workload, uniform_workload
from components.models.base_config import read_config
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


def speed(*rates: BlockRate) -> StepSpeed:
    return StepSpeed("cpu", "float32", rates, output_seconds=0.5, optimizer_seconds=0.01, product_flops_per_second=50.0,
                     seconds=0.0)  # fmt: skip


def predicted(work: Workload, rates: tuple[BlockRate, ...], **changes: Any) -> Any:
    settings = {"blocks": 4, "trainable_parameters": 100, "micro_batch_size": 1, "sequences_per_step": 2}
    return measured_duration(work, speed(*rates), **(settings | changes))


def test_what_was_measured_adds_up_at_the_measured_length() -> None:
    rate = BlockRate(1, 10, seconds=2.0, forward_seconds=1.0, flops=200, spread=0.1)
    found = predicted(Workload((10, 10, 10), (1, 2, 3), (10,), 2), (rate,))
    assert found.parts == pytest.approx(
        {
            "blocks": 4 * 3 * 2.0,
            "beside the blocks": BESIDE_BLOCKS * 4 * 3 * 2.0,
            "output layer and loss": 6 * 0.5,
            "optimizer": 100 * 0.01 * 2,
            "dev loss": 2 * 4 * 1.0,
        }
    )
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert (found.steps, found.tokens, found.flops) == (2, 30, 4 * 3 * 200)
    document = found.to_dict()
    assert document["low_seconds"] < document["seconds"] < document["high_seconds"]
    assert document["tokens_per_second"] == pytest.approx(30 / found.seconds, rel=1e-3)


def test_a_teachers_passes_are_a_part_of_their_own() -> None:
    rate = BlockRate(1, 10, seconds=2.0, forward_seconds=1.0, flops=200, spread=0.1)
    work = Workload((10, 10, 10), (1, 2, 3), (10,), 2)
    smaller = BlockRate(1, 10, seconds=0.9, forward_seconds=0.3, flops=60, spread=0.1)
    alone, taught = predicted(work, (rate,)), predicted(work, (rate,), teacher=(speed(smaller), 2))
    # two blocks, forward alone, for each of three sequences; a third of the output layer's time for six places
    assert taught.parts == {**alone.parts, "teacher": pytest.approx(2 * 3 * 0.3 + 6 * 0.5 / 3)}
    assert taught.seconds - alone.seconds == pytest.approx(taught.parts["teacher"])


def test_length_counts_once_in_layers_and_twice_in_attention() -> None:
    # a block of 10 x tokens + tokens squared operations, at 10 operations a second
    rates = tuple(BlockRate(1, t, (10 * t + t * t) / 10, 0.0, 10 * t + t * t, 0.0) for t in (10, 30))
    found = predicted(Workload((20, 40), (0, 0)), rates)
    assert found.flops == 4 * (10 * 20 + 20**2 + 10 * 40 + 40**2)
    assert found.parts["blocks"] == pytest.approx(found.flops / 10)


def test_a_noisy_measurement_widens_the_interval() -> None:
    wide = predicted(uniform_workload(2, 10), (BlockRate(1, 10, 1.0, 0.5, 100, spread=0.6),))
    assert wide.uncertainty_fraction == 0.6


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_measured_block_does_the_operations_of_the_simulation(
    base: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a slow moment of this machine would have shorter lengths measured
    monkeypatch.setattr("components.memory.block_probe._product_rate", lambda *_: 1e12)
    settings = StepSettings(method=method, rank=4)
    config = read_config(base)
    deep = read_config(base)
    deep.num_hidden_layers = config.num_hidden_layers + 1
    for checkpointing in (False, True):
        found = measure_step_speed(
            config, settings, sequences=2, lengths=(24, 48), labelled=20, gradient_checkpointing=checkpointing
        )
        assert found is not None
        assert [(rate.sequences, rate.tokens) for rate in found.rates] == [(2, 24), (2, 48)]
        assert min(found.output_seconds, found.optimizer_seconds, found.rates[0].seconds) > 0
        shape = StepShape(2, 48, checkpointing)
        one_more = simulate(deep, settings, shape).flops - simulate(config, settings, shape).flops
        assert found.rates[1].flops == pytest.approx(one_more, rel=0.02)


def test_a_named_gpu_is_assumed_to_reach_a_part_of_its_peak() -> None:
    gpu = find_gpu("a100-80")
    one = assumed_duration(
        uniform_workload(100, 1000), gpu, dtype="bfloat16", flops_per_token=4e9, slowdown=1.0, sequences_per_step=4,
        devices=1,
    )  # fmt: skip
    assert one.seconds == pytest.approx(4e9 * 1e5 / (312e12 * ASSUMED_UTILISATION))
    assert not one.measured
    assert "not measured" in one.how
    two = assumed_duration(
        uniform_workload(100, 1000), gpu, dtype="bfloat16", flops_per_token=4e9, slowdown=1.3, sequences_per_step=4,
        devices=2,
    )  # fmt: skip
    assert two.seconds == pytest.approx(one.seconds * 1.3 / 2)


def test_a_price_gives_the_cost_of_all_devices() -> None:
    time = {"seconds": 1800.0, "low_seconds": 900.0, "high_seconds": 3600.0}
    assert with_price(time, None, 2)["cost"] is None
    assert with_price(time, 3.0, 2)["cost"] == {
        "price_per_hour": 3.0,
        "devices": 2,
        "cost": 3.0,
        "low": 1.5,
        "high": 6.0,
    }
