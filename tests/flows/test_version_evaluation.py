"""An imported version is measured by a recipe, and its report is what the gate reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.models.tiny import make_tiny
from components.paths import home
from registry.store import Registry
from tests.flows.conftest import call_command
from tests.flows.test_registry_export import make_lora

pytestmark = pytest.mark.integration


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    return lambda *arguments: call_command(monkeypatch, capsys, *arguments)


def imported(called: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    assert called("registry", "import", str(base), "--name", "tiny-base")[0] == 0
    adapter = make_lora(base, tmp_path / "lora")
    assert called("registry", "import", str(adapter), "--name", "sql", "--base", "tiny-base")[0] == 0


def test_an_imported_adapter_is_proven_by_a_recipe_and_promoted(
    project: Callable[..., Path], called: Callable[..., Any], tiny_base: Path, tmp_path: Path
) -> None:
    recipe = str(project(evaluation={"suites": []}))
    imported(called, tiny_base, tmp_path)
    status, _, err = called("registry", "promote", "sql", "--alias", "champion", "--actor", "ann")
    assert (status, "no evaluation was recorded" in err) == (3, True)

    status, out, err = called("evaluate", "sql", "--recipe", recipe, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["model"], found["task"]["n"], found["gate"]["passed"]) == ("sql:v1", 12, True)
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("sql")
        (report,) = [one.report for one in registry.evaluations("sql")]
        assert registry.standing("sql").basis == "gate"
    assert report["files"] == version.manifest.file_digests
    assert report["task"] == found["task"]
    assert report["policy"]["min_rows"] == 1

    status, out, err = called("evaluate", "sql", "--recipe", recipe)
    assert status == 0, err
    assert "sql:v1" in out
    assert "passes the gate" in out
    # the same report is recorded once
    with Registry.open(home() / "registry") as registry:
        assert len(registry.evaluations("sql")) == 1
    status, _, err = called("registry", "promote", "sql", "--alias", "champion", "--actor", "ann")
    assert status == 0, err


def test_a_gate_that_says_no_is_a_verdict_and_the_report_is_kept(
    project: Callable[..., Path], called: Callable[..., Any], tiny_base: Path, tmp_path: Path
) -> None:
    recipe = str(project(evaluation={"suites": []}))
    imported(called, tiny_base, tmp_path)
    status, _, err = called("evaluate", "sql", "--recipe", recipe, "--set", "gate.min_task_delta=0.5")
    assert (status, "the gate refused sql:v1" in err) == (3, True)
    with Registry.open(home() / "registry") as registry:
        assert len(registry.evaluations("sql")) == 1
        assert not registry.standing("sql").proven


def test_what_cannot_be_measured_so_is_refused(
    project: Callable[..., Path], called: Callable[..., Any], tiny_base: Path, tmp_path: Path
) -> None:
    recipe = str(project())
    imported(called, tiny_base, tmp_path)
    other = make_tiny(tmp_path / "other", seed=9)
    assert called("registry", "import", str(other), "--name", "other")[0] == 0
    for arguments, expected, said in (
        (("other", "--recipe", recipe), 2, "is not of the recipe's base"),
        (("sql", "--recipe", recipe, "--suite", "piqa"), 2, "--suite beside --recipe"),
        (("sql", "--profile", "smoke"), 2, "--profile without --recipe"),
        (("nobody", "--recipe", recipe), 4, "nobody"),
    ):
        status, _, err = called("evaluate", *arguments)
        assert (status, said in err) == (expected, True), err
