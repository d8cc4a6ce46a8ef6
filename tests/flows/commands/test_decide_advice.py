"""`tunewright decide` and `tunewright tactics` on a tiny project: money, bases, settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.models.tiny import make_tiny
from components.paths import home
from tests.flows.conftest import call_command

Project = Callable[..., Path]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        return call_command(monkeypatch, capsys, *arguments)

    return run


def decisions() -> set[str]:
    return {path.name for path in (home() / "steps").glob("decide-*.json")}


def test_money_goes_by_the_recipes_prices_and_another_price_measures_nothing_again(
    project: Project, call: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = call("decide", str(project(traffic={"requests_per_month": 500})), "--json")
    assert status == 0
    first, kept = json.loads(out), decisions()
    assert first["money"]["requests_per_month"] == 500
    assert {row["name"] for row in first["money"]["candidates"]} == {"zero-shot", "few-shot"}
    dearer = project(traffic={"requests_per_month": 500, "price_per_million_input_tokens": 1.5})
    second = json.loads(call("decide", str(dearer), "--json")[1])
    assert decisions() == kept
    assert len(kept) == 1
    few_shot = [
        next(row for row in document["money"]["candidates"] if row["name"] == "few-shot")["per_1000_requests"]
        for document in (first, second)
    ]
    assert few_shot[0] < few_shot[1]
    status, out, _ = call("decide", str(dearer))
    assert status == 0
    assert "break-even, requests a month" in out
    assert "hosting" in out


def test_bases_answer_the_same_rows_and_a_second_call_measures_only_what_is_new(
    project: Project, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    small = make_tiny(tmp_path / "small", seed=5, hidden_size=32)
    large = make_tiny(tmp_path / "large", seed=6, hidden_size=96)
    recipe = str(project())
    status, out, err = call("decide", recipe, "--bases", f"{small},{large}", "--json")
    assert status == 0
    found = json.loads(out)["bases"]
    assert [row["base"] for row in found["bases"]] == [str(small), str(large)]
    assert found["bases"][0]["parameters"] < found["bases"][1]["parameters"]
    assert {row["n"] for row in found["bases"]} == {4}
    assert found["start_with"] in (str(small), str(large))
    kept = decisions()
    # the recipe's own base and the two
    assert len(kept) == 3
    third = make_tiny(tmp_path / "third", seed=7)
    named = project(decision={"bases": [str(small), str(large), str(third)]})
    status, out, err = call("decide", str(named))
    assert status == 0
    assert len(decisions() - kept) == 1
    # the middling one by size comes first
    assert err.index(f"base {third}") < err.index(f"base {small}")
    assert "start with: " in out


def test_bad_bases_are_told_before_anything_is_measured(
    project: Project, tiny_base: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    for bases, word in ((f"{tiny_base},no-such-base", "no-such-base"), (f"{tiny_base},{tiny_base}", "each once")):
        status, _, err = call("decide", str(project()), "--bases", bases, "--json")
        assert status == 2
        assert word in err
        assert decisions() == set()


def test_settings_are_said_with_their_reasons_without_loading_a_model(
    project: Project, call: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = str(project(finetune={"epochs": "auto", "effective_rows": 4}))
    status, out, _ = call("tactics", recipe, "--json")
    assert status == 0
    settings: dict[str, dict[str, Any]] = {row["key"]: row for row in json.loads(out)["settings"]}
    assert (settings["epochs"]["value"], settings["epochs"]["source"]) == (10.0, "chosen by tactics")
    assert (settings["rank"]["value"], settings["rank"]["source"]) == (4, "recipe")
    status, out, _ = call("tactics", recipe)
    assert status == 0
    assert "chosen by tactics" in out
    assert "warning: finetune.effective_rows = 4" in out
