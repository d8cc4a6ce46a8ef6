"""`tunewright long-context`: base and adapter side by side, and bad input told before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.models.fingerprint import fingerprint, write_binding
from components.models.head import CONFIG_FILE
from components.models.load import load_model
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny
from tests.flows.conftest import call_command


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "short", positions=256)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters") / "mine"
    get_peft_model(load_model(base), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    write_binding(folder, fingerprint(base), RopeScaling("linear", 3))
    return folder


def test_base_and_adapter_are_measured_side_by_side(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"How many singers are in stadium {number}?" for number in range(300)))
    call = ("long-context", str(base), "--adapter", str(adapter), "--rope", "none,yarn:2", "--lengths", "256,400",
            "--texts", "2", "--text", str(text), "--depths", "0,1")  # fmt: skip
    status, out, err = call_command(monkeypatch, capsys, *call, "--json")
    document = json.loads(out)
    assert status == 0
    measured = document["measured"]
    names = [(one["model"], one["rope_scaling"], one["positions"]) for one in measured]
    assert names == [("short", None, 256), ("short", "yarn:2", 512), ("mine", "linear:3", 768)]
    for one in measured:
        assert [(b["start"], b["end"], b["tokens"]) for b in one["perplexity"]] == [(0, 256, 510), (256, 400, 288)]
        assert [(p["length"], p["depth"], p["n"]) for p in one["passkey"]] == [(256, 0, 1), (256, 1, 1), (400, 0, 1),
                                                                               (400, 1, 1)]  # fmt: skip
    assert document["texts"]["n"] == 2
    assert "short, yarn:2: text 2/2" in err
    _, page, _ = call_command(monkeypatch, capsys, *call)
    assert "mine, linear:3 (768 positions)" in page
    assert "Passkeys found" in page


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--rope", "spin:2"), "RoPE scaling"),
        (("--rope", "none,none"), "each once"),
        (("--rope", ","), "each once"),
        (("--lengths", "400,300"), "rising"),
        (("--lengths", "10"), "rising"),
        (("--lengths", "long"), "numbers parted by commas"),
        (("--depths", "2"), "from 0, the beginning"),
        (("--texts", "0", "--passkeys", "0"), "1 or more of one of them"),
        (("--texts", "-1"), "1 or more"),
        (("--dtype", "int8"), "unknown dtype"),
        (("--adapter", "nowhere"), "which base"),
        (("--text", "nowhere.txt", "--lengths", "300"), "cannot read"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: Any, problem: str
) -> None:
    monkeypatch.setattr("components.models.load._load_base", None)
    status, _, err = call_command(monkeypatch, capsys, "long-context", str(base), *options)
    assert status == 2
    assert problem in err


def test_a_head_is_refused_before_anything_is_loaded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("components.models.load._load_base", None)
    folder = tmp_path / "sentiment"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text("{}")
    write_binding(folder, fingerprint(base))
    status, _, err = call_command(monkeypatch, capsys, "long-context", str(base), "--adapter", str(folder))
    assert status == 2
    assert "sentiment is a head, which answers labels or numbers" in err


def test_a_base_that_cant_be_scaled_and_an_unknown_version_are_told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = make_tiny(tmp_path / "scaled", positions=256)
    load_model(base, rope_scaling=RopeScaling("yarn", 2)).save_pretrained(scaled)
    status, _, err = call_command(monkeypatch, capsys, "long-context", str(scaled), "--rope", "yarn:2")
    assert status == 2
    assert "scaled already" in err
    status, _, _ = call_command(
        monkeypatch, capsys, "long-context", "nobody:v1", "--home", str(tmp_path / "state"), "--texts", "0"
    )
    assert status != 0
