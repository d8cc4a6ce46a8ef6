"""Loading: plain, in 4 bits, with an adapter, merged; and an adapter of another base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import InputError
from components.evaluation.generation import answer_positions
from components.finetuning.lora import LoraSettings, attach
from components.models.adapters import folded_in, save_adapter
from components.models.fingerprint import (
    BINDING_FILE,
    Fingerprint,
    check_binding,
    fingerprint,
    read_binding,
    write_binding,
)
from components.models.load import load_as_served, load_model, load_tokenizer, served_positions
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "one")


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "other", seed=1)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter that changes the logits, and the logits that it gives."""
    folder = tmp_path_factory.mktemp("adapters") / "one"
    model = attach(load_model(base), LoraSettings(rank=4))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.eval()
    model.save_pretrained(str(folder))
    write_binding(folder, fingerprint(base))
    with torch.no_grad():
        return folder, model(input_ids=IDS).logits


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_an_adapter_gives_the_logits_that_it_was_saved_with(base: Path, adapter: tuple[Path, Any]) -> None:
    folder, expected = adapter
    model = load_model(base, adapter=folder)
    torch.testing.assert_close(logits(model), expected)
    assert not torch.allclose(logits(load_model(base)), expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_a_merged_adapter_is_a_plain_model_with_the_same_logits(base: Path, adapter: tuple[Path, Any]) -> None:
    folder, expected = adapter
    model = load_model(base, adapter=folder, merge=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_on_a_head_that_shares_the_embedding_merges_into_the_head_alone(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(load_model(base), LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    write_binding(tmp_path / "adapter", fingerprint(base))
    expected = logits(wrapped.eval())
    merged = load_model(base, adapter=tmp_path / "adapter", merge=True)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beside", ["nothing", "lora", "lora under a scaling", "a soft prompt"])
def test_the_positions_for_answers_are_told_from_the_files(
    base: Path, adapter: tuple[Path, Any], tmp_path: Path, beside: str
) -> None:
    folder: Path | None = None
    if beside == "lora under a scaling":
        folder = Path(shutil.copytree(adapter[0], tmp_path / "adapter"))
        write_binding(folder, fingerprint(base), RopeScaling("yarn", 2))
    elif beside == "a soft prompt":
        from peft import PromptTuningConfig, get_peft_model

        folder = tmp_path / "prompt"
        save_adapter(
            get_peft_model(load_model(base), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)), folder
        )
        write_binding(folder, fingerprint(base))
    elif beside == "lora":
        folder = adapter[0]
    model, _ = load_as_served(base, adapter=folder, quantization=None)
    assert served_positions(base, folder) == answer_positions(model)


def test_a_merge_that_fails_halfway_is_undone(
    base: Path, adapter: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = adapter
    model = load_model(base, adapter=folder)
    layers = [module for module in model.modules() if hasattr(module, "merge")]

    def fail(**_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(layers[-1], "merge", fail)
    with pytest.raises(MemoryError), folded_in(model):
        pytest.fail("it was merged")
    assert not any(layer.merged for layer in layers)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


def test_four_bit_weights_take_an_eighth_and_stay_near(base: Path, adapter: tuple[Path, Any]) -> None:
    folder, expected = adapter
    model = load_model(base, quantization="nf4", adapter=folder)
    layer = model.get_base_model().model.layers[0].mlp.up_proj.base_layer
    assert type(layer).__name__ == "Linear4bit"
    assert layer.weight.numel() * layer.weight.element_size() == 64 * 128 // 2
    assert 0 < float((logits(model) - expected).abs().max()) < 0.05


def test_an_adapter_of_another_base_with_the_same_shapes_is_refused(
    other_base: Path, adapter: tuple[Path, Any]
) -> None:
    with pytest.raises(InputError, match="trained on another base"):
        load_model(other_base, adapter=adapter[0])


def test_an_adapter_without_a_record_of_its_base_is_refused(
    base: Path, adapter: tuple[Path, Any], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(adapter[0], tmp_path / "adapter"))
    (copy / BINDING_FILE).unlink()
    with pytest.raises(InputError, match="doesn't say which base"):
        load_model(base, adapter=copy)


def test_a_changed_chat_template_is_told_apart_from_a_changed_base(
    base: Path, adapter: tuple[Path, Any], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "base"))
    with (copy / "chat_template.jinja").open("a") as stream:
        stream.write("{# changed #}")
    with pytest.raises(InputError, match="another chat template"):
        check_binding(adapter[0], copy)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dtype": "int3"}, "unknown dtype"),
        ({"quantization": "int2"}, "unknown quantization"),
        ({"merge": True}, "without an adapter"),
        ({"merge": True, "quantization": "nf4", "adapter": Path("somewhere")}, "can't be merged into 4-bit"),
    ],
)
def test_contradictory_options_are_refused(base: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        load_model(base, **options)


def test_loading_says_nothing(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tokenizer(base)
    load_model(base)
    load_model(base, quantization="nf4")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_fingerprint_doesnt_depend_on_place_or_on_how_a_model_is_used(base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "elsewhere"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"use_cache": False, "transformers_version": "0.0", "_name_or_path": "elsewhere"}
    (copy / "config.json").write_text(json.dumps(config))
    assert fingerprint(copy) == fingerprint(base)


def test_a_fingerprint_sees_weights_architecture_tokenizer_and_template_apart(
    base: Path, other_base: Path, tmp_path: Path
) -> None:
    one, other = fingerprint(base), fingerprint(other_base)
    assert one.base != other.base
    assert (one.tokenizer, one.template) == (other.tokenizer, other.template)
    copy = Path(shutil.copytree(base, tmp_path / "base"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert fingerprint(copy).base != one.base
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|im_end|>"}))
    assert fingerprint(copy).tokenizer != one.tokenizer


def test_a_fingerprint_sees_where_answers_end(base: Path, tmp_path: Path) -> None:
    one = fingerprint(base)
    copy = Path(shutil.copytree(base, tmp_path / "base"))
    settings = copy / "generation_config.json"
    written = json.loads(settings.read_text())
    settings.write_text(json.dumps({**written, "eos_token_id": [written["eos_token_id"], 7]}))
    assert fingerprint(copy).template != one.template
    # what only concerns sampling doesn't count, nor where the same id is written
    settings.write_text(json.dumps({**written, "temperature": 0.3, "do_sample": True}))
    assert fingerprint(copy) == one
    settings.unlink()
    assert fingerprint(copy) == one


def test_a_binding_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Fingerprint("a" * 64, "b" * 64, "c" * 64)
    write_binding(tmp_path, written)
    assert read_binding(tmp_path) == written
    assert set(json.loads((tmp_path / BINDING_FILE).read_text())) == {
        "base_fingerprint",
        "tokenizer_digest",
        "template_digest",
        "rope_scaling",
    }


def test_a_tokenizer_without_a_pad_token_gets_one_apart_from_the_turn_end(base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "base"))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "unk_token": "<|endoftext|>"}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(copy)
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
