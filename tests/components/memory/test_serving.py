"""The serving plan: bytes of weights, caches and adapters; how many fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    FalconConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GPTBigCodeConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from components.errors import InputError
from components.finetuning import lora
from components.memory.hardware import Budget
from components.memory.kv_cache_size import read_cache
from components.memory.serving import ServingPlan, plan_serving
from components.models.load import load_model
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny

GIB = 2**30
SHAPE: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
FALCON: dict[str, Any] = {"vocab_size": 100, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)


def plan(base: Path, **changes: Any) -> ServingPlan:
    settings: dict[str, Any] = {
        "concurrency": 4, "context_tokens": 256, "adapters": 2, "rank": 8, "targets": "all-linear", "dtype": "float32",
        "quantization": "none", "budget": Budget(8 * GIB, "test", "cuda"),
    }  # fmt: skip
    return plan_serving(base, **(settings | changes))


def test_weights_caches_and_adapters_are_those_of_the_real_model(base: Path) -> None:
    model = load_model(base)
    found = plan(base)
    assert found.weights_bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.zeros(1, 256, dtype=torch.int64), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert found.kv_bytes_per_user == real
    adapted = lora.attach(model, lora.LoraSettings(rank=8))
    assert found.adapter_bytes == sum(p.numel() * 4 for p in adapted.parameters() if p.requires_grad)


def test_a_scaled_base_serves_what_its_scaling_reaches(tmp_path: Path) -> None:
    short = make_tiny(tmp_path / "short", positions=128)
    with pytest.raises(InputError, match="at most the 128 positions"):
        plan(short)
    assert plan(short, rope_scaling=RopeScaling("yarn", 2)).context_tokens == 256
    with pytest.raises(InputError, match="at most the 128 positions"):
        plan(short, rope_scaling=RopeScaling("dynamic", 2))


def test_the_most_that_fits_fits_and_one_more_does_not(base: Path) -> None:
    found = plan(base, budget=Budget(640_000_000, "test", "cuda"))
    assert found.fits
    assert found.most_users > found.concurrency
    assert plan(base, budget=found.budget, concurrency=4, adapters=found.most_adapters).fits
    assert not plan(base, budget=found.budget, concurrency=4, adapters=found.most_adapters + 1).fits
    document = found.to_dict()
    parts = ("weights_bytes", "kv_bytes", "adapters_bytes", "working_bytes", "process_bytes")
    assert document["total_bytes"] == sum(document[part] for part in parts)
    again = plan(base, budget=found.budget, concurrency=found.most_users)
    assert again.fits
    assert again.most_users == found.most_users
    assert not plan(base, budget=found.budget, concurrency=found.most_users + 1).fits


def test_a_budget_that_holds_not_even_the_weights_holds_no_user(base: Path) -> None:
    found = plan(base, budget=Budget(1000, "test", "cuda"))
    assert (found.fits, found.most_users, found.most_adapters) == (False, 0, 0)


def test_four_bits_and_sixteen_take_less(base: Path) -> None:
    half, packed = plan(base, dtype="bfloat16"), plan(base, dtype="bfloat16", quantization="nf4")
    assert half.kv_bytes_per_user * 2 == plan(base).kv_bytes_per_user
    model = load_model(base)
    linear = [layer.weight.numel() for layer in model.get_decoder().layers.modules() if type(layer) is torch.nn.Linear]
    # half a byte a weight, scales, and two tables a layer; training alone would keep embeddings and norms in 32 bits
    tables = len(linear) * (16 + 256) * 4
    kept = half.weights_bytes - 2 * sum(linear)
    assert kept + sum(linear) / 2 < packed.weights_bytes < kept + 0.55 * sum(linear) + 1.1 * tables
    assert packed.weights_bytes < half.weights_bytes < plan(base).weights_bytes


@pytest.mark.parametrize(
    ("config", "full", "windowed", "window"),
    [
        (LlamaConfig(**SHAPE), 4, 0, None),
        (LlamaConfig(**SHAPE, head_dim=32), 4, 0, None),
        (MistralConfig(**SHAPE, sliding_window=32), 0, 4, 32),
        (MistralConfig(**SHAPE, sliding_window=None), 4, 0, None),
        (Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=16, max_window_layers=1), 1, 3, 16),
        (Qwen2Config(**SHAPE, use_sliding_window=False, sliding_window=16), 4, 0, None),
        (Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=8, sliding_window_pattern=2), 2, 2, 8),
    ],
)
def test_a_layer_with_a_window_keeps_no_more_than_it(config: Any, full: int, windowed: int, window: int | None) -> None:
    cache = read_cache(config)
    of_layer = 2 * config.num_key_value_heads * getattr(config, "head_dim", 16)
    assert cache.window == window
    assert cache.values(1000) == of_layer * (full * 1000 + windowed * (window or 0))
    assert cache.values(4) == of_layer * 4 * 4


@pytest.mark.parametrize(
    "config",
    [
        FalconConfig(**FALCON),
        FalconConfig(**FALCON, multi_query=False, num_kv_heads=4),
        FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2),
        GPTBigCodeConfig(vocab_size=100, n_embd=64, n_head=4, n_layer=2, n_positions=64),
    ],
)
def test_heads_that_share_keys_and_values_are_counted_as_they_are_kept(config: Any) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(torch.zeros(1, 16, dtype=torch.int64), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert read_cache(config).values(16) == real


def test_a_model_that_holds_a_decoder_is_read_by_its_decoder_and_one_without_attention_refused() -> None:
    assert read_cache(Gemma3Config(text_config={**SHAPE, "head_dim": 16})).values(1) == 2 * 2 * 16 * 4
    with pytest.raises(InputError, match="mamba has no attention heads"):
        read_cache(MambaConfig(hidden_size=64, num_hidden_layers=2))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dtype": "int8"}, "unknown dtype"),
        ({"quantization": "int3"}, "unknown quantization"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"adapters": -1}, "--adapters -1"),
        ({"context_tokens": 99_999}, "positions that the base knows"),
    ],
)
def test_impossible_wishes_are_refused(base: Path, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(base, **changes)
    assert word in str(caught.value)
