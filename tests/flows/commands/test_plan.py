"""`tunewright plan`: arithmetic, a base, a recipe; exit status and one document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.models.tiny import make_tiny
from flows.plan_text import render
from tests.flows.conftest import call_command


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call_command(monkeypatch, capsys, "plan", *arguments)


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
    assert "gradients + optimizer = 13,000,000,000 x 2 x (1 + 2) = 78.00 GB" in out
    assert "inference  = N x M x 1.2 = 13,000,000,000 x 2 x 1.2 = 31.20 GB" in out


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
    assert "    optimizer 0.00 GiB: 8." in out  # two float32 moments a trained parameter, and its counters


def test_what_doesnt_fit_exits_with_3_and_still_prints_the_nearest(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--dtype", "float32", "--budget", "64MiB", "--sequence-tokens", "64", "--method", "lora", "--json")
    status, out, err = run(monkeypatch, capsys, "--base", str(base), *options)
    assert status == 3
    assert json.loads(out)["fits"] is False
    assert "nothing fits 0.06 GiB" in err
    assert re.search(r"next: what would fit: \d+ GiB of memory", err)
    assert [remedy["change"] for remedy in json.loads(out)["would_fit"]] == ["budget"]


PLAN: dict[str, Any] = {
    "method": "lora", "dtype": "bfloat16", "optimizer": "paged_adamw_8bit", "devices": 1, "sharding": "none",
    "micro_batch_size": 1, "gradient_accumulation_steps": 4, "gradient_checkpointing": True, "sequence_tokens": 64,
    "peak_bytes": 2**30, "budget_bytes": 2**31, "budget_source": "test", "margin_bytes": 2**30, "gpu": None,
    "headroom_fraction": 0.05, "fits": True, "breakdown": {"weights": 2**30}, "peak_phase": "step", "peak_module": "",
    "bfloat16_speedup": None, "time": None, "alternatives": [],
}  # fmt: skip


def test_what_would_fit_says_time_and_money(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((base / "config.json").read_text())
    wide = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 4, "head_dim": 1024}
    (tmp_path / "config.json").write_text(json.dumps(config | wide | {"vocab_size": 128_000}))
    options = (
        "--base",
        str(tmp_path),
        "--gpu",
        "t4-16",
        "--method",
        "full",
        "--optimizer",
        "adamw",
        "--sequence-tokens",
        "64",
    )
    status, out, _ = run(monkeypatch, capsys, *options)
    assert status == 3
    larger = re.search(
        r"a GPU with more memory, such as (\S+) .*; about .* x the time .*; no price is known for (\S+)", out
    )
    assert larger is not None
    name = larger.group(1)
    assert larger.group(2) == name
    prices = ("--price-per-hour", "0.8", "--gpu-price", f"{name}=2.5")
    _, out, _ = run(monkeypatch, capsys, *options, *prices, "--json")
    remedies = {remedy["change"]: remedy for remedy in json.loads(out)["would_fit"]}
    assert remedies["gpu"]["cost"] == pytest.approx(remedies["gpu"]["seconds"] / 3600 * 2.5, abs=1e-4)
    assert {remedy["price_per_hour"] for change, remedy in remedies.items() if change != "gpu"} == {0.8}
    status, _, err = run(monkeypatch, capsys, *options, "--gpu-price", f"{name}=cheap")
    assert status == 2
    assert f"--gpu-price {name}=cheap" in err


def test_states_in_the_hosts_memory_are_told() -> None:
    with_host = {**PLAN, "host_bytes": 3 * 2**30}
    assert "3.00 GiB in the host's memory" in render(with_host, False)
    assert "host's memory" not in render({**PLAN, "host_bytes": 0}, False)


def test_devices_and_price_are_planned_for_a_named_gpu(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--gpu", "t4-16", "--devices", "2", "--price-per-hour", "1.5", "--sequences", "64")
    status, out, _ = run(
        monkeypatch, capsys, "--base", str(base), "--method", "lora", "--sequence-tokens", "64", *options
    )
    assert status == 0
    assert "lora in float16" in out
    assert "t4-16 has no bfloat16" in out
    assert "a copy on each device" in out
    assert "4 steps over 4,096 tokens: about" in out
    assert "cost at 2 x 1.5 an hour" in out


def test_serving_is_planned_from_the_config(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ("--serve", "--concurrency", "3", "--context", "128", "--adapters", "2", "--rank", "4")
    status, out, _ = run(monkeypatch, capsys, "--base", str(base), *shape, "--gpu", "l4-24", "--json")
    document = json.loads(out)
    assert (status, document["fits"], document["dtype"]) == (0, True, "bfloat16")
    # two layers, two key-value heads of 16 values, keys and values, 2 bytes each
    assert document["kv_bytes"] == 3 * 128 * 2 * (2 * 2 * 16) * 2
    status, out, err = run(monkeypatch, capsys, "--base", str(base), *shape, "--budget", "64MiB")
    assert status == 3
    assert "does not fit" in out
    assert "serving takes" in err


def test_serving_a_recipe_takes_its_tactics_and_its_scaling_and_refuses_a_head(
    project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(project(finetune={"rank": "auto", "targets": "auto", "rope_scaling": "yarn:2"}))
    shape = ("--serve", "--context", "2048", "--gpu", "l4-24", "--json")
    status, out, _ = run(monkeypatch, capsys, recipe, *shape)
    assert (status, json.loads(out)["rank"]) == (0, 8)
    status, _, err = run(monkeypatch, capsys, recipe, *shape, "--set", "finetune.rope_scaling=null")
    assert status == 2
    assert "at most the 1024 positions" in err
    head = ("--set", "finetune.rope_scaling=null", "--set", "finetune.method=features")
    status, _, err = run(monkeypatch, capsys, recipe, *shape, *head)
    assert status == 2
    assert "a head takes one pass a request" in err


def test_one_named_pass_is_simulated_and_drawn(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = tmp_path / "step.html"
    shape = ("--micro-batch-size", "2", "--sequence-tokens", "64", "--dtype", "float32", "--timeline", str(drawing))
    status, out, err = run(
        monkeypatch, capsys, "--base", str(base), "--simulate", "train", "--method", "bottleneck", *shape, "--json"
    )
    document = json.loads(out)
    assert status == 0
    assert document["peak_bytes"] == sum(document["breakdown"].values())
    assert set(document["phase_peaks"]) == {"forward", "backward", "step"}
    assert 0 < document["trainable_parameters"] < document["total_parameters"]
    assert "<svg" in drawing.read_text()
    assert f"timeline: {drawing}" in err


def test_generation_is_simulated_with_its_cache(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--simulate", "generate", "--micro-batch-size", "4", "--sequence-tokens", "32", "--new-tokens", "40")
    status, out, _ = run(monkeypatch, capsys, "--base", str(base), *options)
    assert status == 0
    assert "cache" in out
    assert "peaks by phase: prefill" in out


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
        (("--base", "x", "--simulate", "train", "--budget", "1GiB"), "--budget does nothing with --base --simulate"),
        (("--base", "x", "--profile", "smoke"), "--profile does nothing with --base"),
        (("missing.yaml", "--dtype", "float32"), "--dtype goes with --base"),
        (("--base", "no-such-base", "--deliver", "2"), "no-such-base"),
        (
            ("--base", "x", "--deliver", "2", "--sequences", "8"),
            "--sequences does nothing with --base --deliver",
        ),
        (("missing.yaml", "--serve", "--methods", "lora"), "--methods goes with RECIPE or --base"),
        (("--base", "x", "--concurrency", "2"), "--concurrency goes with RECIPE --serve or --base --serve"),
        (("--params", "1e9", "--serve"), "--serve does nothing with --params"),
        (("--base", "x", "--methods", ","), "--methods names none"),
        (("--base", "x", "--price-per-hour", "-1"), "--price-per-hour -1"),
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


def test_delivery_of_several_tasks_is_planned_for_a_base_and_for_a_recipe(
    base: Path, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--deliver", "6", "--budget", "1GiB")
    status, out, err = run(monkeypatch, capsys, "--base", str(base), *options, "--rank", "2", "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert (document["tasks"], document["rank"], document["recommended"]) == (6, 2, "one adapter a task")
    status, out, _ = run(monkeypatch, capsys, str(project()), *options)
    assert status == 0
    assert "rank 4 on all-linear" in out
    assert "deliver: one adapter a task" in out


@pytest.mark.parametrize("tasks", ["0", "-1"])
def test_no_tasks_to_deliver_are_refused_as_such(
    tasks: str, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(monkeypatch, capsys, "--base", str(base), "--deliver", tasks)
    assert status == 2
    assert f"{tasks} tasks to deliver" in err
    assert "1 or more" in err


def test_base_that_is_too_large_to_deliver_exits_with_3_and_still_prints_its_sizes(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, "--base", str(base), "--deliver", "2", "--budget", "1KiB", "--json")
    assert status == 3
    assert json.loads(out)["fits"] is False
    assert "does not fit" in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--budget", "24"), "such as 24GiB"),
        (("--gpu", "t4-16", "--dtype", "bfloat16"), "float32, float16"),
    ],
)
def test_a_budget_without_its_unit_and_a_dtype_that_a_gpu_lacks_are_refused(
    options: tuple[str, ...], word: str, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(monkeypatch, capsys, "--base", str(base), *options)
    assert status == 2
    assert word in err
