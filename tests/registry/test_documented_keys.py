"""The tables of a report's and a policy's keys in docs/registry.md say what the code reads, and its defaults."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components.recipe_sections import GateSection
from registry.card import model_card
from registry.entities import Evaluation, Version
from registry.errors import EvaluationMismatch
from registry.gate import Champion, Policy, check, effective_policy
from registry.mlflow_target import metrics_of
from registry.search import scores_of
from registry.store import Registry

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "registry.md").read_text()
COMPARED = {"n": 120, "base": 0.5, "tuned": 0.6, "delta": 0.1, "low": 0.05, "high": 0.15, "metric": "m"}
REPORT: dict[str, Any] = {
    "task": {**COMPARED, "test_digest": "t", "baseline": "few-shot", "subset": "hard",
             "subsets": [{**COMPARED, "subset": "easy"}]},
    "tax": [{**COMPARED, "suite": "s"}],
    "policy": {"min_rows": 100},
}  # fmt: skip


class Watched(dict[str, Any]):
    """A report that notes which of its keys are read."""

    def __init__(self, values: dict[str, Any], read: set[str], place: str = "") -> None:
        def watched(key: str, value: Any) -> Any:
            if isinstance(value, dict) and key != "policy":
                return Watched(value, read, f"{place}{key}.")
            if isinstance(value, list):
                return [Watched(one, read, f"{place}{key}[].") for one in value]
            return value

        super().__init__({key: watched(key, value) for key, value in values.items()})
        self.read, self.place = read, place

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(self.place + key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(self.place + key)
        return super().__getitem__(key)


def table(heading: str) -> dict[str, list[str]]:
    """Return a table's rows by their key."""
    text = GUIDE.split(f"### {heading}\n")[1].split("\n#")[0]
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): row[1:] for row in rows}


def test_keys_of_a_policy_are_those_in_the_guide_with_their_defaults() -> None:
    told = {key: yaml.safe_load(row[1].strip("`")) for key, row in table("The keys of a policy").items()}
    assert told == {field.name: field.default for field in dataclasses.fields(Policy)}
    assert {key: type(value) for key, value in told.items()} == {
        field.name: type(field.default) for field in dataclasses.fields(Policy)
    }


def test_where_a_recipes_gate_has_other_defaults_the_guide_says_so() -> None:
    said = GUIDE.split("A recipe's [gate](recipe.md#gate) becomes a policy")[1].split("\n## ")[0]
    gate = GateSection()
    other = {
        field.name: getattr(gate, field.name)
        for field in dataclasses.fields(Policy)
        if getattr(gate, field.name, field.default) != field.default
    }
    assert set(other) == set(re.findall(r"`(\w+)` [\d.]+", said))
    for name, value in other.items():
        assert f"`{name}` {value}" in said
    lacking = {field.name for field in dataclasses.fields(Policy)} - set(GateSection.model_fields)
    assert lacking == set(re.findall(r"`(\w+)`", said)) - set(other)


def test_keys_of_a_report_are_those_in_the_guide(
    registry: Registry, add_base: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_base()
    told = table("The keys of a report")
    read: set[str] = set()
    report = Watched(REPORT, read)
    check(effective_policy(None, report), report, Champion("other:v1", report), kind="adapter")
    list(metrics_of(report))
    evaluation = Evaluation(1, version.digest, "d", json.dumps(REPORT), "2026-01-01T00:00:00Z")
    vars(evaluation)["report"] = report  # as if it had been parsed
    model_card(version, evaluation, None)
    monkeypatch.setattr("registry.search.json", SimpleNamespace(loads=lambda _: report))
    assert (scores_of("", "m"), scores_of("", "s")) == ([0.6], [0.6])
    parts = {key.rpartition(".")[2] for key in read if key.startswith("task.subsets[].")}
    assert parts == set(re.findall(r"`(\w+)`", told["task.subsets"][-1]))
    whole = {key for key in read if not key.startswith("task.subsets[].")}
    assert whole | {"files"} == set(told)
    with pytest.raises(EvaluationMismatch):
        registry.record_evaluation(version.digest, {"files": {"other": "0" * 64}})


def test_key_that_is_said_to_fail_the_gate_without_it_does_and_no_other() -> None:
    policy = Policy(min_rows=100)
    champion = Champion("other:v1", REPORT)
    assert check(policy, REPORT, champion, kind="adapter").passed
    for key, row in table("The keys of a report").items():
        report = json.loads(json.dumps(REPORT))
        place, _, name = key.rpartition(".")
        held = report if not place else report["tax"][0] if place == "tax[]" else report[place]
        held.pop(name, None)
        fails = row[1].startswith(("fails", "counts as no suite"))
        assert check(policy, report, champion, kind="adapter").passed is not fails, key
