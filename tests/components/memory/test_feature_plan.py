"""The plan of feature-based transfer: inference memory, no gradients, the batch that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import InputError
from components.memory.feature_plan import FeaturePass, plan_features
from components.memory.hardware import Budget
from components.memory.plan import make_plan
from components.memory.settings import StepSettings, check_settings
from components.memory.storages import Peak, StorageLog, tracking
from components.memory.workload import uniform_workload
from components.models.base_config import read_config
from components.models.features import prompt_features
from components.models.load import load_model
from components.models.tiny import make_tiny

GIB = 2**30
ROWS, TOKENS = 8, 120


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


def planned(base: Path, budget_bytes: int = 4 * GIB, dtype: str = "float32", **how: Any) -> Any:
    # a GPU's budget needs no process; sizes of tensors are the same
    return plan_features(
        read_config(base), StepSettings(dtype=dtype), FeaturePass(**how), workload=uniform_workload(ROWS, TOKENS),
        budget=Budget(budget_bytes, "given", "cuda", beside_context=True), process=None, folder=base, gpu=None,
    )  # fmt: skip


def real_peak(base: Path, dtype: str, rows: int, how: dict[str, Any]) -> Peak:
    model = load_model(base, dtype=dtype)
    log = StorageLog()
    log.add([*model.parameters(), *model.buffers()], "weights")
    with tracking(log):
        log.phase = "run"
        prompts = [[5] * TOKENS] * rows
        prompt_features(
            model, prompts, pooling=how.get("pooling", "last"), layer=how.get("layer", "last"), batch_size=rows
        )
    return log.peak(("run",))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", [{}, {"layer": 1}, {"pooling": "mean"}])
def test_tensors_are_those_of_the_pass(base: Path, dtype: str, how: dict[str, Any]) -> None:
    outcome, duration = planned(base, dtype=dtype, **how)
    assert outcome.chosen.micro_batch_size == 16
    # 2,048 tokens a pass: sixteen prompts of 120
    real = real_peak(base, dtype, 16, how)
    assert outcome.simulation.peak.peak_bytes == pytest.approx(real.peak_bytes, rel=0.02)
    assert outcome.breakdown["gradients"] == outcome.breakdown["optimizer"] == 0
    assert sum(outcome.breakdown.values()) == outcome.chosen.peak_bytes
    assert duration is None or torch.cuda.is_available()


def test_states_of_every_layer_take_more_than_the_last(base: Path) -> None:
    last, first = (planned(base, layer=layer)[0].simulation.peak.peak_bytes for layer in ("last", 1))
    assert first > last


def test_fewer_prompts_at_once_where_memory_is_short_and_why(base: Path) -> None:
    peaks = {}
    for budget in (4 * GIB, None):
        outcome, _ = planned(base, budget or round(peaks[16] * 0.97))
        peaks[outcome.chosen.micro_batch_size] = outcome.chosen.peak_bytes
    size = min(peaks)
    assert size < 16
    assert outcome.chosen.fits
    assert all("more than fits" in other.why_not for other in outcome.alternatives)
    nothing, _ = planned(base, 1000)
    assert (nothing.chosen.micro_batch_size, nothing.chosen.fits) == (1, False)


def test_a_layer_that_the_base_has_not_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="layer 4 of a base with 3 layers"):
        planned(base, layer=4)


def test_a_training_step_of_features_is_refused() -> None:
    with pytest.raises(InputError, match="unknown method 'features'"):
        check_settings(StepSettings("features"))


@pytest.mark.integration
def test_make_plan_gives_inference_memory_and_a_time(base: Path) -> None:
    values: dict[str, Any] = {
        "rank": 8, "targets": "all-linear", "sequence_tokens": TOKENS, "effective_rows": 16, "rows_per_sequence": 4,
        "budget_bytes": 4 * GIB, "dtype": "float32", "method": "features",
    }  # fmt: skip
    features = make_plan(base, workload=uniform_workload(64, TOKENS), **values)
    assert features.fits
    assert features.trainable_parameters == 0
    assert sum(features.breakdown.values()) == features.chosen.peak_bytes
    assert features.duration is not None
    assert features.duration.steps == 4
    document = features.to_dict()
    assert (document["method"], document["micro_batch_size"], document["rows_per_sequence"]) == ("features", 16, 1)
    with pytest.raises(InputError, match="features on 2 devices"):
        make_plan(base, devices=2, gpu="a100-80", **values)
