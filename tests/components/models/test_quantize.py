"""Integers and scales: what is stored, what is loaded, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.errors import InputError
from components.finetuning.finetune import finetune
from components.models import quantize
from components.models.fingerprint import fingerprint
from components.models.load import load_model
from components.models.quantize import fake_quantize, save_quantized, stored_quantization
from components.models.rope import RopeScaling
from components.models.safety import check_base
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

IDS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stored(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stored")
    return {to: save_quantized(load_model(base), to, base, folder / to) for to in ("int8", "int4")}


def said(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def by_hand(weight: torch.Tensor, to: str) -> torch.Tensor:
    """Round to the nearest of the integers under the scale that the largest weight of a group gives."""
    most, group = (127.5, weight.shape[1]) if to == "int8" else (7.5, 32)
    grouped = weight.reshape(weight.shape[0], -1, group)
    scale = grouped.abs().amax(-1, keepdim=True) / most
    low, high = (-128, 127) if to == "int8" else (-8, 7)
    return ((grouped / scale).round().clamp(low, high) * scale).reshape(weight.shape)


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_every_layer_but_the_head_is_rounded_and_nothing_else_changes(
    base: Path, stored: dict[str, Path], to: str
) -> None:
    plain, loaded = load_model(base), load_model(stored[to])
    for name, parameter in plain.named_parameters():
        found = loaded.get_parameter(name)
        if "proj" in name:
            rounded, expected = found.dequantize(), by_hand(parameter, to)
            # the largest weight of a group is in the middle between two integers, and may go to either
            assert torch.allclose((rounded - parameter).abs(), (expected - parameter).abs(), atol=1e-6), name
            assert not torch.equal(found.dequantize(), parameter)
        else:
            assert torch.equal(found, parameter), name
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert 0 < float((said(loaded) - said(plain)).abs().max()) < 0.2


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_what_is_trained_for_is_what_is_stored(base: Path, tmp_path: Path, to: str) -> None:
    aware = fake_quantize(load_model(base), to)
    before = said(aware)
    loaded = load_model(save_quantized(aware, to, base, tmp_path / to))
    assert torch.allclose(said(loaded), before, atol=1e-6)
    assert torch.equal(said(aware), before)


def test_a_gradient_goes_straight_through_the_rounding(base: Path) -> None:
    plain, aware = load_model(base), fake_quantize(load_model(base), "int4")
    gradients = []
    for model in (plain, aware):
        model.requires_grad_(True)(IDS, labels=IDS).loss.backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    cosine = torch.nn.functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0)
    assert 0.9 < float(cosine) < 1


def test_two_integers_of_4_bits_are_in_a_byte(base: Path, stored: dict[str, Path]) -> None:
    weights = load_file(stored["int4"] / quantize.WEIGHTS_FILE)
    up = weights["model.layers.0.mlp.up_proj.weight"]
    assert (up.dtype, tuple(up.shape)) == (torch.uint8, (128, 32))
    assert tuple(weights["model.layers.0.mlp.up_proj.weight_scale"].shape) == (128, 2)
    every = torch.arange(-8, 8, dtype=torch.int8).repeat(2, 2)
    assert torch.equal(quantize._unpacked(quantize._packed(every)), every)
    size = {to: sum(p.stat().st_size for p in folder.glob("*.safetensors")) for to, folder in stored.items()}
    plain = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert size["int4"] < size["int8"] < plain


def test_the_same_weights_give_the_same_bytes(base: Path, stored: dict[str, Path], tmp_path: Path) -> None:
    again = save_quantized(load_model(base), "int4", base, tmp_path / "again")
    assert fingerprint(again) == fingerprint(stored["int4"])
    assert fingerprint(again).base != fingerprint(base).base
    assert fingerprint(again).tokenizer == fingerprint(base).tokenizer


def test_it_computes_in_16_bits_too(base: Path, stored: dict[str, Path]) -> None:
    for folder in stored.values():
        found = said(load_model(folder, dtype="bfloat16"))
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), said(load_model(folder)), atol=0.05)


def test_the_folder_is_safe_and_transformers_alone_does_not_take_integers_for_weights(stored: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    for folder in stored.values():
        check_base(folder)
        with pytest.raises(OSError, match="no file named"):
            AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def test_what_a_folder_holds_is_told(base: Path, stored: dict[str, Path]) -> None:
    assert stored_quantization(base) is None
    assert stored_quantization(stored["int8"]) == {"method": "int8", "bits": 8, "group_size": None}
    assert stored_quantization(stored["int4"]) == {"method": "int4", "bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"quantization": "nf4"}, "are in int4 already, and nf4 was asked for"),
        ({"quantization": "int8"}, "are in int4 already, and int8 was asked for"),
        ({"adapter": Path("adapter")}, "are in int4 already, and an adapter was asked for"),
        ({"rope_scaling": RopeScaling("linear", 2.0)}, "are in int4 already, and RoPE scaling"),
    ],
)
def test_integers_are_not_changed_further(stored: dict[str, Path], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_model(stored["int4"], **options)


def test_weights_that_are_no_integers_are_not_taken_for_them(base: Path) -> None:
    with pytest.raises(InputError, match="are not in int8"):
        load_model(base, quantization="int8")


def test_integers_are_not_trained(stored: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finetuning: the weights in .* are in int4 already"):
        finetune(stored["int4"], rows(), [], settings(), run_folder=tmp_path / "run", identity={})
    assert not (tmp_path / "run").exists()


def _tampered(folder: Path, target: Path, name: str, value: torch.Tensor | None) -> Path:
    import shutil

    shutil.copytree(folder, target)
    tensors = load_file(target / quantize.WEIGHTS_FILE)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, target / quantize.WEIGHTS_FILE)
    return target


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.layers.0.mlp.up_proj.weight_scale", None),
        ("model.layers.0.mlp.up_proj.weight", torch.zeros(128, 64)),
        ("model.layers.0.mlp.up_proj.weight_scale", torch.ones(128, 1)),
        ("model.norm.weight", None),
        ("model.norm.weight", torch.ones(3)),
        ("model.other.weight", torch.ones(3)),
    ],
)
def test_tensors_other_than_the_configs_are_refused(
    stored: dict[str, Path], tmp_path: Path, name: str, value: torch.Tensor | None
) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_model(_tampered(stored["int4"], tmp_path / "copy", name, value))


def test_an_unknown_way_of_storing_is_refused(stored: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((stored["int4"] / "config.json").read_text())
    config["quantization_config"]["group_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantized in an unknown way"):
        stored_quantization(tmp_path)


def test_rows_that_groups_do_not_divide_are_refused_in_4_bits_alone(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "narrow", hidden_size=48)
    model = load_model(base)
    with pytest.raises(InputError, match="rows of 48 weights, which groups of 32 don't divide"):
        save_quantized(copy.deepcopy(model), "int4", base, tmp_path / "four")
    assert load_model(save_quantized(model, "int8", base, tmp_path / "eight")).config.hidden_size == 48


def test_an_unknown_name_and_a_missing_torchao_are_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown quantization 'int2'"):
        fake_quantize(load_model(base), "int2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need torchao, which is not installed") as caught:
        fake_quantize(load_model(base), "int4")
    assert "[quantization]" in str(caught.value)
