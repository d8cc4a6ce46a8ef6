"""Training past the base's positions: guarded, scaled, and never without the scaling afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from components.data.rows import Message, Row
from components.errors import InputError, TunewrightError
from components.finetuning import saving
from components.finetuning.bottleneck import BottleneckSettings
from components.finetuning.finetune import FinetuneResult, finetune
from components.finetuning.full import FullSettings
from components.finetuning.guards import check_positions
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import METHODS, MethodSettings
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.finetuning.run_schedule import run_workload
from components.models.fingerprint import fingerprint, read_binding, read_rope_scaling, write_binding
from components.models.forward import causal_model, text_states
from components.models.load import load_model, load_tokenizer
from components.models.rope import RopeScaling, config_positions, read_scaling
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

POSITIONS = 64
YARN = RopeScaling("yarn", 4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"), positions=POSITIONS)


def long_rows() -> list[Row]:
    """Rows of about a hundred tokens, most of them in the system message."""
    return [
        replace(row, messages=(Message("system", row.messages[0].content + " x" * 28), *row.messages[1:]))
        for row in rows()
    ]


def train(base: Path, folder: Path, scaling: RopeScaling | None, **changes: object) -> FinetuneResult:
    values: dict[str, object] = {"rope_scaling": scaling, "rows_per_sequence": 1, "epochs": 1.0, **changes}
    return finetune(
        base, long_rows(), [], settings(**values), run_folder=folder, identity={"data": "d"}, checkpoint_steps=3
    )


def test_rows_past_the_positions_are_refused_and_the_scaling_that_helps_is_named(base: Path, tmp_path: Path) -> None:
    work = run_workload(load_tokenizer(base), long_rows(), [], settings(rows_per_sequence=1))
    assert 2 * POSITIONS > work.positions > POSITIONS
    with pytest.raises(InputError, match=f"{work.positions} positions") as raised:
        train(base, tmp_path, None)
    assert "at most the base's 64" in str(raised.value)
    assert "finetune.rope_scaling to {type: yarn, factor: 2}" in str(raised.value.next_step)
    train(base, tmp_path, RopeScaling("yarn", 2))


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_the_scaled_length_is_allowed_and_one_more_is_not(base: Path, kind: str) -> None:
    config = load_model(base, rope_scaling=RopeScaling(kind, 2)).config
    check_positions(config, 128)
    check_positions(config, 120, virtual_tokens=8)
    with pytest.raises(InputError, match="128") as raised:
        check_positions(config, 121, virtual_tokens=8)
    assert "factor: 3" in str(raised.value.next_step)
    assert f"{kind}:2 included" in str(raised.value)


CASES: list[tuple[str, MethodSettings]] = [
    ("lora", LoraSettings(rank=4)),
    ("lora", LoraSettings(rank=4, start="pissa")),
    ("qlora", LoraSettings(rank=4)),
    ("full", FullSettings()),
    ("bottleneck", BottleneckSettings(width=8)),
    ("prefix_tuning", SoftPromptSettings(virtual_tokens=4)),
    ("prompt_tuning", SoftPromptSettings(virtual_tokens=4)),
]


@pytest.mark.parametrize(("method", "attachment"), CASES)
def test_what_was_trained_is_loaded_with_its_scaling(
    base: Path, tmp_path: Path, method: str, attachment: MethodSettings
) -> None:
    result = train(base, tmp_path, YARN, method=method, attachment=attachment)
    if result.kind == "full":
        config = AutoConfig.from_pretrained(result.weights)
        assert (read_scaling(config), config_positions(config)) == (YARN, 4 * POSITIONS)
        loaded = load_model(result.weights)
    else:
        assert read_rope_scaling(result.weights) == YARN
        assert read_binding(result.weights) == fingerprint(base)
        loaded = load_model(base, adapter=result.weights, quantization=METHODS[method].quantization)
    assert read_scaling(causal_model(loaded).config) == YARN


def test_a_run_that_was_stopped_goes_on_under_its_scaling_and_under_no_other(base: Path, tmp_path: Path) -> None:
    def stopped(folder: Path, scaling: RopeScaling) -> None:
        asked = iter([False, True, True, True, True])
        with pytest.raises(TunewrightError, match="stopped"):
            finetune(
                base, long_rows(), [], settings(rope_scaling=scaling, rows_per_sequence=1, epochs=1.0),
                run_folder=folder, identity={"data": "d"}, checkpoint_steps=1, stop=lambda: next(asked),
            )  # fmt: skip

    dynamic = RopeScaling("dynamic", 4)
    stopped(tmp_path / "resumed", dynamic)
    resumed, whole = train(base, tmp_path / "resumed", dynamic), train(base, tmp_path / "whole", dynamic)
    assert resumed.resumed_from is not None
    name = "adapter_model.safetensors"
    assert (resumed.weights / name).read_bytes() == (whole.weights / name).read_bytes()
    stopped(tmp_path / "other", YARN)
    with pytest.raises(TunewrightError, match="another run"):
        train(base, tmp_path / "other", dynamic)


@pytest.mark.parametrize("kind", ["dynamic", "yarn"])
def test_weights_that_were_saved_without_their_scaling_are_not_accepted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(
        "components.models.fingerprint.write_binding", lambda folder, prints, _scaling: write_binding(folder, prints)
    )
    with pytest.raises(TunewrightError, match=f"trained under {kind}:4"):
        train(base, tmp_path, RopeScaling(kind, 4))


def test_whole_weights_that_were_saved_without_their_scaling_are_not_accepted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = saving._save_whole

    def with_the_bases_config(model: object, base_folder: Path, folder: Path) -> None:
        save(model, base_folder, folder)
        (folder / "config.json").write_bytes((base_folder / "config.json").read_bytes())

    monkeypatch.setattr(saving, "_save_whole", with_the_bases_config)
    with pytest.raises(TunewrightError, match="trained under dynamic:4"):
        train(base, tmp_path, RopeScaling("dynamic", 4), method="full", attachment=FullSettings())


def test_a_scaling_that_is_left_out_changes_what_the_adapter_says(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path, YARN)
    ids = load_tokenizer(base)("How many rows in table 3? " * 12)["input_ids"]
    scaled = load_model(base, adapter=result.weights, merge=True)
    write_binding(result.weights, fingerprint(base))
    lost = load_model(base, adapter=result.weights, merge=True)
    with torch.no_grad():
        assert not torch.allclose(text_states(scaled, ids), text_states(lost, ids), atol=1e-2)
