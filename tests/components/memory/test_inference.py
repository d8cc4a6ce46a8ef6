"""Evaluation and generation, simulated, against the same passes on real tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.memory.bases import folder_of
from components.errors import InputError
from components.evaluation.generation import generate_ids
from components.memory.inference import GenerationShape, InferenceModel
from components.memory.settings import StepSettings, StepShape
from components.memory.storages import Peak, StorageLog, tracking
from components.models.forward import token_log_probs
from components.models.load import load_model
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


def followed(model: Any, run: Any) -> Peak:
    log = StorageLog()
    log.add([*model.parameters(), *model.buffers()], "weights")
    with tracking(log):
        log.phase = "run"
        run()
    return log.peak(("run",))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_evaluation_takes_what_scoring_takes(base: Path, dtype: str) -> None:
    rows, tokens = 3, 120
    model = load_model(base, dtype=dtype)

    def score() -> None:
        batch = {name: torch.zeros(rows, tokens, dtype=torch.int64) for name in ("input_ids", "position_ids", "labels")}
        batch["weights"] = torch.ones(rows, tokens)
        batch["attention_mask"] = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
        with torch.no_grad():
            token_log_probs(model, batch)

    found = InferenceModel(base, StepSettings(dtype=dtype)).evaluate(StepShape(rows, tokens))
    assert found.peak.peak_bytes == pytest.approx(followed(model, score).peak_bytes, rel=1e-3)
    assert found.trainable_parameters == 0
    assert found.peak.breakdown["gradients"] == found.peak.breakdown["optimizer"] == 0


@pytest.mark.parametrize(("prompt", "new"), [(40, 50), (64, 1), (100, 100), (30, 10)])
def test_generation_takes_what_decoding_takes(base: Path, prompt: int, new: int) -> None:
    model = load_model(base)
    # another first token each: a shared prefix would be computed once
    prompts = [[number + 10, *([5] * (prompt - 1))] for number in range(4)]
    real = followed(model, lambda: generate_ids(model, prompts, max_new_tokens=new, stops=frozenset(), batch_size=4))
    found = InferenceModel(base, StepSettings()).generate(GenerationShape(4, prompt, new))
    assert found.peak.peak_bytes == pytest.approx(real.peak_bytes, rel=0.01)
    config = model.config
    places = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    # at a peak in the prefill pass the cache holds the prompts alone
    tokens = prompt + new - 1 if found.peak.phase == "decode" else prompt
    assert found.peak.breakdown["cache"] >= 4 * tokens * places * 4


def test_quantized_weights_leave_more_room_for_the_cache(base: Path) -> None:
    shape = GenerationShape(2, 32, 8)
    whole, packed = (
        InferenceModel(base, StepSettings(quantization=name)).generate(shape).peak for name in (None, "nf4")
    )
    assert packed.breakdown["weights"] < whole.breakdown["weights"]
    assert packed.breakdown["cache"] == whole.breakdown["cache"]


def test_a_sliding_window_is_decoded_by_transformers_itself(tmp_path: Path) -> None:
    found = InferenceModel(folder_of("mistral", tmp_path), StepSettings()).generate(GenerationShape(1, 32, 8))
    assert set(found.peak.phase_peaks) == {"prefill", "decode"}
    assert found.peak.breakdown["cache"] > 0


def test_nothing_to_generate_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="0 tokens behind"):
        InferenceModel(base, StepSettings()).generate(GenerationShape(1, 8, 0))
