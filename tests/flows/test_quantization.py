"""Weights as integers go the whole way: made or trained for, measured, registered with their parent, served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.generation import generate_ids, stop_ids
from components.models.load import load_as_served
from components.models.tiny import make_tiny
from components.paths import home
from components.recipe import load_recipe
from deploy.engines.torch_engine import TorchEngine
from deploy.from_registry import version_files
from deploy.staging import stage_model
from flows.chain import run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.conftest import call_command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    return lambda *arguments: call_command(monkeypatch, capsys, *arguments)


def run(recipe: Path, *overrides: str) -> dict[str, Any]:
    job = open_job(load_recipe(recipe, None, overrides), home())
    return run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))


def quantized(called: Callable[..., Any], recipe: Path, ref: str, to: str, *more: str) -> dict[str, Any]:
    status, out, err = called("quantize", ref, "--to", to, "--recipe", str(recipe), "--json", *more)
    assert status == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def serves_what_was_measured(ref: str) -> None:
    with Registry.open(home() / "registry") as registry:
        files = version_files(registry, ref)
    staged = stage_model(files, out_home=home())
    staged.verify()
    model, tokenizer = load_as_served(files.base_folder, adapter=None, quantization=files.quantization)
    prompt = tokenizer("How many rows are there?")["input_ids"]
    ((expected, _),) = generate_ids(model, [prompt], max_new_tokens=6, stops=stop_ids(model, tokenizer))
    answers: list[Any] = []
    engine = TorchEngine(staged.load, accept=lambda loaded: answers.append(loaded.continue_greedily(prompt, 6)) or {})
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    engine.close()
    assert answers == [expected]


def test_a_version_is_quantized_after_training_and_beside_one_that_was_trained_for_it(
    project: Callable[..., Path], called: Callable[..., Any]
) -> None:
    recipe = project()
    parent = run(recipe)
    aware = run(recipe, "finetune.method=full", "finetune.quantization_aware=int4", "finetune.learning_rate=0.002")
    assert (parent["version"], aware["version"]) == ("tiny:v1", "tiny:v2")
    first = quantized(called, recipe, "tiny:v1", "int8")
    assert (first["version"], first["method"]) == ("tiny:v3", "int8")
    again = quantized(called, recipe, "tiny:v1", "int8")
    assert (again["digest"], again["rows"]) == (first["digest"], first["rows"])
    found = quantized(called, recipe, "tiny:v1", "int4", "--beside", "tiny:v2")
    assert found["version"] == "tiny:v4"

    with Registry.open(home() / "registry") as registry:
        child, trained_for = registry.resolve("tiny:v4"), registry.resolve("tiny:v2")
        (report,) = [one.report for one in registry.evaluations("tiny:v4")]
        ancestors = {node.label for node in registry.lineage("tiny:v4").nodes if node.direction == "up" and node.label}
    assert child.kind == trained_for.kind == "quantized"
    assert [(one.digest, one.role) for one in child.manifest.parents] == [(parent["digest"], "source")]
    # through its parent it comes from the base
    assert {"tiny:v1", "tiny-base:v1"} <= ancestors
    assert child.manifest.quantization["method"] == trained_for.manifest.quantization["method"] == "int4"  # type: ignore[index]
    assert child.manifest.quantization["made_by"] != trained_for.manifest.quantization["made_by"]  # type: ignore[index]
    assert child.base_fingerprint not in (None, trained_for.base_fingerprint)
    assert report["files"] == child.manifest.file_digests
    assert report["against_parent"]["task"]["n"] == report["task"]["n"] == 12
    assert (found["gate"]["passed"], {check["name"] for check in found["gate"]["checks"]} >= {"task_delta"}) == (
        True,
        True,
    )

    rows = {row["version"]: row for row in found["rows"]}
    assert list(rows) == ["tiny:v1", "tiny:v4", "tiny:v2"]
    assert rows["tiny:v1"]["delta"] is None
    # norms that were trained take more on disk than those that are ones
    assert rows["tiny:v4"]["bytes"] == pytest.approx(rows["tiny:v2"]["bytes"], rel=0.01)
    assert rows["tiny:v2"]["bytes"] < first["rows"][1]["bytes"] < rows["tiny:v1"]["bytes"]
    assert all(row["seconds_per_token"] > 0 for row in rows.values())
    assert rows["tiny:v4"]["delta"] == pytest.approx(rows["tiny:v4"]["score"] - rows["tiny:v1"]["score"])
    for ref in ("tiny:v3", "tiny:v4"):
        serves_what_was_measured(ref)

    status, out, err = called("quantize", "tiny:v1", "--to", "int4", "--recipe", str(recipe), "--beside", "tiny:v2")
    assert status == 0, err
    assert "quantization-aware training" in out
    assert "ms per token" in out
    for ref, problem in (("tiny:v4", "is quantized already (int4)"), ("tiny:v2", "is quantized already (int4)")):
        status, _, err = called("quantize", ref, "--to", "int8", "--recipe", str(recipe))
        assert (status, problem in err, "registry lineage" in err) == (2, True, True)
    # what is in integers is no base to train on
    with Registry.open(home() / "registry") as registry:
        folder = registry.checkout("tiny:v4")
    status, _, err = called("finetune", str(recipe), "--set", f"base={folder}", "--set", "name=other")
    assert (status, "are in int4 already" in err) == (2, True)


def test_a_gate_that_refuses_ends_with_3_and_the_version_is_there(
    project: Callable[..., Path], called: Callable[..., Any]
) -> None:
    recipe = project(gate={"min_task_delta": 1.0})
    run(recipe)
    status, _, err = called("quantize", "tiny-base", "--to", "int8", "--recipe", str(recipe))
    assert (status, "the gate refused tiny:v2" in err) == (3, True)
    with Registry.open(home() / "registry") as registry:
        child = registry.resolve("tiny:v2")
        assert registry.resolve(child.manifest.parents[0].digest).kind == "base"


def test_what_can_not_be_quantized_is_told_before_time_is_spent(
    project: Callable[..., Path], called: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = project()
    run(recipe, "finetune.method=prompt_tuning", "finetune.virtual_tokens=4", "finetune.learning_rate=0.1")
    before = set((home() / "steps").iterdir())
    status, _, err = called("quantize", "tiny:v1", "--to", "int8", "--recipe", str(recipe))
    assert (status, "can't be merged into its base's weights" in err) == (2, True)
    other = make_tiny(tmp_path / "other" / "tiny-base", seed=5)
    status, _, err = called("quantize", "tiny:v1", "--to", "int8", "--recipe", str(project(base=str(other))))
    assert (status, "is not of the recipe's base" in err) == (2, True)
    status, _, err = called("quantize", "nobody", "--to", "int8", "--recipe", str(recipe))
    assert status == 4
    status, _, err = called("quantize", "tiny:v1", "--to", "int2", "--recipe", str(recipe))
    assert (status, "int8" in err) == (2, True)
    assert set((home() / "steps").iterdir()) == before
