"""Features and heads: pooled as the model's own states say, saved and loaded as they were, answered as written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.rows import Message
from components.errors import InputError
from components.evaluation.generation import generate
from components.models.features import check_layer, check_prompts, prompt_features
from components.models.fingerprint import fingerprint, write_binding
from components.models.head import Head, HeadConfig, HeadedModel, answer_ids, build_network, load_head, save_head
from components.models.load import load_as_served
from components.models.tiny import make_tiny

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16]]


def config(**changes: Any) -> HeadConfig:
    values: dict[str, Any] = {
        "task": "classification", "labels": ("no", "perhaps", "yes"), "decimals": 0, "target_mean": 0.0,
        "target_scale": 1.0, "pooling": "last", "layer": "last", "width": 0, "features": 64,
    }  # fmt: skip
    return HeadConfig(**{**values, **changes})


def head(seed: int = 0, **changes: Any) -> Head:
    made = config(**changes)
    generator = torch.Generator().manual_seed(seed)
    network = build_network(made, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    features = torch.randn(2, made.features, generator=generator)
    return Head(made, network.requires_grad_(False), features[0], features[1].abs() + 0.1)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("layer", ["last", 1, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_features_are_the_models_own_states(tiny_model: Any, pooling: str, layer: Any, batch_size: int) -> None:
    done: list[int] = []
    found = prompt_features(
        tiny_model, PROMPTS, pooling=pooling, layer=layer, batch_size=batch_size, progress=lambda n, _: done.append(n)
    )
    assert found.dtype == torch.float32
    assert done[-1] == len(PROMPTS)
    for prompt, features in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            states = tiny_model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        expected = states[-1 if layer == "last" else layer][0]
        wanted = expected[-1] if pooling == "last" else expected.mean(dim=0)
        torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)


def test_the_last_layer_by_number_is_the_last(tiny_model: Any) -> None:
    by_name, by_number = (
        prompt_features(tiny_model, PROMPTS, pooling="last", layer=layer, batch_size=4) for layer in ("last", 2)
    )
    assert torch.equal(by_name, by_number)


@pytest.mark.parametrize("layer", [0, 3, -1, True])
def test_a_layer_that_is_not_there_is_refused(tiny_model: Any, layer: Any) -> None:
    with pytest.raises(InputError, match="a base with 2 layers"):
        check_layer(tiny_model.config, layer)


def test_prompts_without_positions_are_refused() -> None:
    check_prompts([3, 4], 4)
    with pytest.raises(InputError, match="prompt 1 has 5 tokens, and the base has 4 positions"):
        check_prompts([3, 5], 4)


@pytest.mark.parametrize("changes", [{}, {"width": 8}, {"task": "regression", "labels": (), "decimals": 2}])
def test_a_saved_head_gives_the_same_outputs(tiny_model: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    one = head(**changes)
    save_head(one, tmp_path / "head")
    other = load_head(tmp_path / "head", tiny_model.config)
    features = torch.randn(5, 64)
    assert other.config == one.config
    assert torch.equal(other.outputs(features), one.outputs(features))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["yes"]},
        {"labels": ["a", "b"]},  # the tensors have three outputs
        {"labels": ["a", "a", "b"]},
        {"features": 32},
        {"layer": 9},
        {"pooling": "first"},
        {"width": 10**9},
        {"format": 2},
        {"extra": 1},
    ],
)
def test_a_head_whose_files_do_not_fit_is_refused(tiny_model: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    save_head(head(), tmp_path)
    document = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(InputError):
        load_head(tmp_path, tiny_model.config)


def test_damaged_tensors_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    content = (tmp_path / "head.safetensors").read_bytes()
    (tmp_path / "head.safetensors").write_bytes(content[:-8])
    with pytest.raises(InputError, match="can't be loaded"):
        load_head(tmp_path, tiny_model.config)


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "1.23"), (-0.004, "0.00"), (0.0, "0.00"), (-0.006, "-0.01"), (12.0, "12.00")]
)
def test_numbers_are_written_as_in_training(value: float, text: str) -> None:
    one = head(task="regression", labels=(), decimals=2)
    assert one.number(value) == text


def test_a_headed_model_answers_labels_by_one_pass(tiny_folder: Path, tmp_path: Path) -> None:
    save_head(head(seed=4, pooling="mean", layer=1), tmp_path)
    write_binding(tmp_path, fingerprint(tiny_folder))
    model, tokenizer = load_as_served(tiny_folder, adapter=tmp_path, quantization=None)
    assert isinstance(model, HeadedModel)
    prompts = [(Message("user", text),) for text in ("Hello", "What is the name of the oldest student?", "0 1 2 3")]
    found = generate(model, tokenizer, prompts, max_new_tokens=1)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=1)[0] for prompt in prompts]
    assert [one.text for one in found] == [one.text for one in alone]
    assert {one.text for one in found} <= {"no", "perhaps", "yes"}
    assert [one.completion_tokens for one in found] == [len(answer_ids(tokenizer, one.text)) for one in found]


def test_a_head_on_another_base_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    save_head(head(), tmp_path / "head")
    write_binding(tmp_path / "head", fingerprint(tiny_folder))
    other = make_tiny(tmp_path / "other", seed=9)
    with pytest.raises(InputError, match="another base"):
        load_as_served(other, adapter=tmp_path / "head", quantization=None)
