"""`tunewright plan`: arithmetic, a base, a recipe; exit status and one document."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from components.models.tiny import make_tiny
from flows.cli import main


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tunewright", "plan", *arguments])
    status: object = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    captured = capsys.readouterr()
    assert isinstance(status, int)
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny")


def test_the_arithmetic_has_the_documented_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, "--params", "13e9", "--bytes", "2", "--optimizer", "adam", "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["gradient_and_optimizer_bytes"] == 78e9
    assert document["inference_bytes"] == 13e9 * 2 * 1.2
    assert document["weights_bytes"] == 26e9


def test_the_arithmetic_is_explained_line_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(monkeypatch, capsys, "--params", "13e9", "--explain")
    assert status == 0
    assert "gradients + optimizer = 78.00 GB" in out


@pytest.mark.parametrize(
    ("budget", "status", "fits"),
    [(("--budget", "97GiB"), 0, True), (("--budget", "96GiB"), 3, False), (("--gpu", "a100-80"), 3, False)],
)
def test_the_arithmetic_is_held_against_a_budget(
    budget: tuple[str, str],
    status: int,
    fits: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 104e9 bytes before activations: 96.86 GiB
    ended, out, err = run(monkeypatch, capsys, "--params", "13e9", "--bytes", "2", *budget, "--json")
    document = json.loads(out)
    assert (ended, document["fits"]) == (status, fits)
    assert document["budget_bytes"] > 0
    assert ("96.86 GiB before any activations" in err) is not fits


def test_a_base_needs_only_its_config(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    options = ("--method", "lora", "--dtype", "float32", "--budget", "8GiB", "--effective-rows", "4")
    status, out, err = run(monkeypatch, capsys, "--base", str(tmp_path), *options, "--sequence-tokens", "64", "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert (document["method"], document["fits"], document["budget_bytes"]) == ("lora", True, 8 * 2**30)
    assert document["micro_batch_size"] * document["gradient_accumulation_steps"] == 4


def test_a_named_gpu_is_planned_without_having_one(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(
        monkeypatch, capsys, "--base", str(base), "--gpu", "a100-80", "--sequence-tokens", "64", "--explain"
    )
    assert status == 0
    assert "usable memory of a100-80" in out
    assert "lora in bfloat16" in out
    assert "how the peak comes about" in out


def test_what_doesnt_fit_exits_with_3_and_still_prints_the_nearest(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--dtype", "float32", "--budget", "64MiB", "--sequence-tokens", "64", "--method", "lora", "--json")
    status, out, err = run(monkeypatch, capsys, "--base", str(base), *options)
    assert status == 3
    assert json.loads(out)["fits"] is False
    assert "nothing fits 0.06 GiB" in err
    assert "next: give more memory" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "nothing to plan"),
        (("recipe.yaml", "--params", "1e9"), "RECIPE and --params"),
        (("--base", "no-such-base"), "unknown base"),
        (("--base", "no-such-base", "--budget", "much"), "not a size"),
        (("--base", "x", "--gpu", "a100-80", "--budget", "8GiB"), "both given"),
        (("--base", "x", "--gpu", "gtx-1"), "unknown GPU"),
        (("missing.yaml",), "no recipe"),
        (("--params", "1e9", "--optimizer", "lion"), "unknown optimizer"),
        (("--params", "many"), "not a valid float"),
        (("--params", "nan"), "nan parameters"),
        (("--params", "1e9", "--budget", "much"), "not a size"),
        (("--params", "1e9", "--rank", "8", "--method", "lora"), "--method, --rank does nothing with --params"),
        (("--params", "1e9", "--home", "x"), "--home goes with RECIPE"),
        (("--base", "x", "--profile", "smoke"), "--profile does nothing with --base"),
        (("missing.yaml", "--dtype", "float32"), "--dtype goes with --base"),
        (("missing.yaml", "--gpu", "a100-80"), "--gpu goes with --base or --params"),
        (("missing.yaml", "--trainable", "1e6"), "--trainable does nothing with RECIPE"),
    ],
)
def test_bad_input_exits_with_2(
    arguments: tuple[str, ...], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert out == ""
    assert word in err
