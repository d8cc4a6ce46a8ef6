"""A scaling changes the frequencies as its formula says, comes back with whatever was saved, and is never guessed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig

from components.errors import InputError
from components.models.fingerprint import BINDING_FILE, fingerprint, read_rope_scaling, write_binding
from components.models.forward import check_logits, text_states
from components.models.load import load_as_served, load_model
from components.models.rope import (
    RopeScaling,
    cached_positions,
    config_positions,
    read_scaling,
    scale_config,
)
from components.models.tiny import make_tiny

POSITIONS = 64
IDS = tuple(torch.randint(3, 300, (150,), generator=torch.Generator().manual_seed(0)).tolist())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny", positions=POSITIONS)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was trained under yarn:4."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters") / "yarn"
    torch.manual_seed(0)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(load_model(base), settings).save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    write_binding(folder, fingerprint(base), RopeScaling("yarn", 4))
    return folder


def rotary(model: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [B, T, half a head], whose second half repeats the first."""
    module = model.model.rotary_emb
    cosine, sine = module(torch.zeros(1, 1), positions)
    half = cosine.shape[-1] // 2
    return cosine[..., :half], sine[..., :half]


def plain_frequencies(base: float = 10000.0, size: int = 16) -> torch.Tensor:
    return base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)


def test_linear_scaling_divides_the_position(base: Path) -> None:
    positions = torch.arange(0, 4 * POSITIONS)[None]
    cosine, sine = rotary(load_model(base, rope_scaling=RopeScaling("linear", 4)), positions)
    angles = (positions[0].double() / 4)[:, None] * plain_frequencies()
    torch.testing.assert_close(cosine[0].double(), angles.cos(), atol=1e-4, rtol=0)
    torch.testing.assert_close(sine[0].double(), angles.sin(), atol=1e-4, rtol=0)


def test_yarn_divides_slow_frequencies_keeps_fast_ones_and_sharpens_attention(base: Path) -> None:
    factor, size = 4.0, 16
    model = load_model(base, rope_scaling=RopeScaling("yarn", factor))
    # arXiv:2309.00071, "NTK-by-parts" with alpha 1 and beta 32: the rotations of a frequency within the original length
    # decide. The paper's ramp is over rotations; its authors' code and transformers have it over dimensions.
    plain = plain_frequencies(size=size)

    def dimension(rotations: float) -> float:
        return size * math.log(POSITIONS / (rotations * 2 * math.pi)) / (2 * math.log(10000.0))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), size - 1)
    kept = 1 - ((torch.arange(size // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    expected = plain / factor * (1 - kept) + plain * kept
    torch.testing.assert_close(model.model.rotary_emb.inv_freq.double(), expected, atol=0, rtol=1e-5)
    assert expected[0] == plain[0]
    assert expected[-1] == plain[-1] / factor
    # queries and keys both carry the square root of the temperature's inverse: 0.1 ln(factor) + 1
    cosine, _ = rotary(model, torch.zeros(1, 1, dtype=torch.long))
    assert cosine.flatten().tolist() == pytest.approx([0.1 * math.log(factor) + 1] * 8)


def test_dynamic_frequencies_follow_each_row_whatever_stands_beside_or_came_before_it(base: Path) -> None:
    model = load_model(base, rope_scaling=RopeScaling("dynamic", 2))
    plain = load_model(base)
    short, long = torch.arange(POSITIONS)[None], torch.arange(2 * POSITIONS)[None]
    alone = rotary(model, long)
    # NTK: the base of the frequencies grows with the length over the original one
    grown = 10000.0 * (2 * 2 - (2 - 1)) ** (16 / 14)
    angles = long[0].double()[:, None] * plain_frequencies(grown)
    torch.testing.assert_close(alone[0][0].double(), angles.cos(), atol=1e-4, rtol=0)
    # after a longer row, and beside one, a row of the original length has the base's bits
    assert torch.equal(rotary(model, short)[0], rotary(plain, short)[0])
    padded = torch.cat((short, torch.zeros_like(short)), dim=1)
    together = rotary(model, torch.cat((padded, long)))
    assert torch.equal(together[0][0, :POSITIONS], rotary(plain, short)[0][0])
    assert torch.equal(together[0][1], alone[0][0])
    check_logits(model)


def test_transformers_alone_gives_a_dynamic_row_other_numbers_in_other_company(base: Path) -> None:
    """The reason for `free_of_history`; when this fails, it can go."""
    config = AutoConfig.from_pretrained(base)
    scale_config(config, RopeScaling("dynamic", 2))
    module = AutoModelForCausalLM.from_config(config).model.rotary_emb
    row, between = torch.arange(POSITIONS + 4)[None], torch.arange(2 * POSITIONS)[None]
    before = module(torch.zeros(1, 1), row)[0]
    module(torch.zeros(1, 1), between)
    assert not torch.equal(module(torch.zeros(1, 1), row)[0], before)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_a_scaled_config_says_how_far_it_reaches_and_survives_saving(base: Path, tmp_path: Path, kind: str) -> None:
    scaling = RopeScaling(kind, 2.5)
    model = load_model(base, rope_scaling=scaling)
    assert read_scaling(model.config) == scaling
    assert config_positions(model.config) == 160
    assert cached_positions(model.config) == (POSITIONS if kind == "dynamic" else 160)
    model.save_pretrained(tmp_path / "whole")
    again = AutoConfig.from_pretrained(tmp_path / "whole")
    assert (read_scaling(again), config_positions(again)) == (scaling, 160)
    loaded = load_model(tmp_path / "whole")
    with torch.no_grad():
        assert torch.equal(text_states(loaded, IDS), text_states(model, IDS))
        # the base without it says something else of the same text
        assert not torch.allclose(text_states(load_model(base), IDS), text_states(model, IDS), atol=1e-3)


def test_positions_of_configs_that_were_scaled_elsewhere() -> None:
    # Qwen names YaRN's original length beside positions that are unscaled, others scale them
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1000, "rope_theta": 10000.0}
    assert config_positions(LlamaConfig(max_position_embeddings=1000, rope_parameters=dict(rope))) == 4000
    assert config_positions(LlamaConfig(max_position_embeddings=4000, rope_parameters=dict(rope))) == 4000
    assert config_positions(LlamaConfig(max_position_embeddings=1000)) == 1000
    assert config_positions(GPT2Config()) == 1024


def test_the_base_on_disk_and_its_fingerprint_stay_as_they_are(base: Path) -> None:
    before, config = fingerprint(base), (base / "config.json").read_bytes()
    load_model(base, rope_scaling=RopeScaling("yarn", 2))
    assert (fingerprint(base), (base / "config.json").read_bytes()) == (before, config)


def test_a_base_that_is_scaled_already_or_has_no_rotary_positions_is_refused(base: Path, tmp_path: Path) -> None:
    load_model(base, rope_scaling=RopeScaling("linear", 2)).save_pretrained(tmp_path / "scaled")
    with pytest.raises(InputError, match="scaled already"):
        load_model(tmp_path / "scaled", rope_scaling=RopeScaling("yarn", 2))
    with pytest.raises(InputError, match="one kind of rotary positions"):
        scale_config(GPT2Config(), RopeScaling("yarn", 2))
    rope = {name: {"rope_type": "default", "rope_theta": 1e4} for name in ("full_attention", "sliding_attention")}
    layered = LlamaConfig()
    layered.rope_parameters = rope
    with pytest.raises(InputError, match="one kind of rotary positions"):
        scale_config(layered, RopeScaling("yarn", 2))


@pytest.mark.parametrize("text", ["yarn", "yarn:", "yarn:1", "yarn:nan", "yarn:inf", "yarn:-2", "ntk:2", "yarn:1000"])
def test_a_scaling_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError) as raised:
        RopeScaling.parse(text)
    assert "yarn:2" in str(raised.value.allowed)


def test_an_adapter_brings_its_scaling_wherever_it_is_loaded(base: Path, adapter: Path, tmp_path: Path) -> None:
    apart = load_model(base, adapter=adapter)
    assert read_scaling(apart.get_base_model().config) == RopeScaling("yarn", 4)
    merged = load_model(base, adapter=adapter, merge=True)
    served, _ = load_as_served(base, adapter=adapter, quantization=None)
    merged.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        expected = text_states(apart, IDS)
        for model in (merged, served, load_model(tmp_path / "merged")):
            assert read_scaling(model.config) == RopeScaling("yarn", 4)
            torch.testing.assert_close(text_states(model, IDS), expected, atol=1e-4, rtol=1e-4)
    packed = load_model(base, adapter=adapter, quantization="nf4")
    assert read_scaling(packed.get_base_model().config) == RopeScaling("yarn", 4)


def test_an_adapter_under_another_scaling_than_its_own_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained under RoPE scaling yarn:4"):
        load_model(base, adapter=adapter, rope_scaling=RopeScaling("yarn", 2))
    plain = Path(shutil.copytree(adapter, tmp_path / "plain"))
    write_binding(plain, fingerprint(base))
    with pytest.raises(InputError, match="without scaling"):
        load_model(base, adapter=plain, rope_scaling=RopeScaling("yarn", 4))


@pytest.mark.parametrize("record", ["yarn:4", {}, {"type": "yarn"}, {"type": "spin", "factor": 2}, {"type": "yarn",
                                    "factor": "4"}, {"type": "yarn", "factor": 4, "beta": 1}, 4, False])  # fmt: skip
def test_a_record_that_cant_be_understood_is_not_taken_for_none(
    base: Path, adapter: Path, tmp_path: Path, record: object
) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    document = json.loads((copy / BINDING_FILE).read_text())
    (copy / BINDING_FILE).write_text(json.dumps({**document, "rope_scaling": record}))
    with pytest.raises(InputError):
        load_model(base, adapter=copy)


def test_bindings_from_before_there_was_scaling_are_read(adapter: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    document = json.loads((copy / BINDING_FILE).read_text())
    del document["rope_scaling"]
    (copy / BINDING_FILE).write_text(json.dumps(document))
    assert read_rope_scaling(copy) is None
