"""The main job on a tiny model: what it leaves, what it keeps, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConflictError, InputError
from components.paths import home
from components.recipe import load_recipe
from flows.chain import exit_reason, run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.conftest import write_rows

Project = Callable[..., Path]

# every plan starts a process that imports what training imports
pytestmark = pytest.mark.integration


def run(recipe: Path, *overrides: str) -> dict[str, Any]:
    job = open_job(load_recipe(recipe, None, overrides), home())
    return run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))


def redone(document: dict[str, Any]) -> set[str]:
    return {step["name"] for step in document["steps"] if step["key"] and not step["cached"]}


COSTLY = {"decide", "plan", "finetune", "evaluate the base", "evaluate the tuned model"}


def test_a_run_leaves_a_promoted_version_and_a_report(project: Project) -> None:
    found = run(project())
    assert found["trained"] is True
    assert found["version"] == "tiny:v1"
    assert exit_reason(found) is None
    assert redone(found) == COSTLY
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("tiny@champion")
        assert version.digest == found["digest"]
        manifest = version.manifest
        assert {parent.role for parent in manifest.parents} == {"base"}
        assert manifest.base_fingerprint == found["base"]["fingerprint"]
        assert set(manifest.data_digests) == {"train.jsonl", "dev.jsonl", "test.jsonl"}
        training = manifest.metadata["training"]
        assert (training["ended"], training["kept_step"]) == ("all 3 steps were done", found["training"]["kept_step"])
        assert training["kept_reason"] == found["training"]["kept_reason"]
        memory, time = manifest.metadata["memory"], manifest.metadata["time"]
        assert memory["predicted_bytes"] == found["plan"]["peak_bytes"]
        assert memory["measured_bytes"] == found["training"]["peak_bytes"]
        assert time["predicted_seconds"] == found["plan"]["time"]["seconds"]
        assert time["measured_seconds"] == pytest.approx(found["training"]["seconds"], abs=1e-3)
        energy = manifest.metadata["energy"]
        assert (energy["kwh"] is None) == bool(energy["unknown"])
        assert energy["seconds"] > time["measured_seconds"]
        assert registry.verify().intact
    assert {subset["subset"] for subset in found["task"]["subsets"]} == {"even", "odd"}
    report = Path(found["report"])
    assert "tiny:v1" in report.read_text()
    assert json.loads((report.parent / "run.json").read_text())["digest"] == found["digest"]


def test_a_second_run_trains_nothing_and_returns_the_same_version(project: Project) -> None:
    recipe = project()
    first, second = run(recipe), run(recipe)
    assert second["trained"] is False
    assert redone(second) == set()
    assert (second["version"], second["digest"]) == (first["version"], first["digest"])
    assert second["promotion"]["revision"] == first["promotion"]["revision"]


def test_a_changed_recipe_value_re_runs_what_depends_on_it(project: Project) -> None:
    first = run(project())
    second = run(project(finetune={"learning_rate": 5e-4}))
    assert redone(second) == {"finetune", "evaluate the tuned model"}
    assert second["version"] == "tiny:v2"
    assert second["digest"] != first["digest"]
    assert second["promotion"]["previous"] == "tiny:v1"


def test_what_tactics_chose_is_in_the_recipe_of_the_run_and_in_the_versions_manifest(project: Project) -> None:
    given = {"epochs": "auto", "rank": "auto", "effective_rows": 4}
    first = run(project(finetune=given))
    resolved = {row["key"]: row for row in first["recipe"]}
    epochs = resolved["finetune.epochs"]
    assert (epochs["value"], epochs["source"]) == (10.0, "chosen by tactics")
    assert "24 training rows" in epochs["reason"]
    assert resolved["finetune.effective_rows"]["source"] == "recipe"
    assert any("effective_rows" in warning for warning in first["tactics"]["warnings"])
    assert first["training"]["rows"] == 240
    with Registry.open(home() / "registry") as registry:
        manifest = registry.resolve("tiny@champion").manifest
    assert manifest.metadata["tactics"]["epochs"] == {key: epochs[key] for key in ("value", "source", "reason")}
    assert manifest.peft_config["r"] == manifest.metadata["tactics"]["rank"]["value"] == 8
    # the same values, set by hand, are the same training
    chosen = {row["key"].removeprefix("finetune."): row["value"] for row in first["tactics"]["settings"]}
    second = run(project(finetune={**given, **{key: chosen[key] for key in chosen if key != "method"}}))
    assert second["trained"] is False
    assert second["version"] == first["version"]


def test_enough_rows_let_the_plan_choose_full_finetuning_and_the_rate_follows(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.decision.tactic_rules.SMALL_DATA_ROWS", 4)
    found = run(project(), "finetune.learning_rate=auto", "finetune.method=auto")
    assert found["plan"]["method"] == "full"
    assert {row["method"] for row in found["plan"]["alternatives"]} >= {"lora", "qlora"}
    (rate,) = [row for row in found["recipe"] if row["key"] == "finetune.learning_rate"]
    assert max(entry["learning_rate"] for entry in found["training"]["losses"]) == pytest.approx(rate["value"])
    assert "full finetuning" in rate["reason"]
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("tiny@champion")
    assert (version.kind, version.manifest.metadata["tactics"]["learning_rate"]["value"]) == ("full", rate["value"])


def test_another_price_or_other_bases_train_and_measure_nothing_again(project: Project) -> None:
    first = run(project())
    second = run(project(traffic={"price_per_million_input_tokens": 3.0}, decision={"bases": []}))
    assert redone(second) == set()
    assert second["money"]["candidates"][0]["per_1000_requests"] > first["money"]["candidates"][0]["per_1000_requests"]


def test_bases_that_the_recipe_names_are_compared_in_the_run(project: Project, tmp_path: Path) -> None:
    from components.models.tiny import make_tiny

    other = str(make_tiny(tmp_path / "other", seed=1, hidden_size=96))
    recipe = project()
    own = load_recipe(recipe).recipe.base
    found = run(project(decision={"bases": [own, other], "override_reason": None, "min_train_rows": 1000}))
    assert [row["base"] for row in found["bases"]["bases"]] == [own, other]
    assert "Start with" in Path(found["report"]).read_text()


def test_a_changed_test_row_measures_again_and_trains_nothing(project: Project, tmp_path: Path) -> None:
    recipe = project()
    first = run(recipe)
    write_rows(tmp_path / "test.jsonl", range(40, 52), answer="SELECT name FROM t{}")
    second = run(recipe)
    assert redone(second) == {"evaluate the base", "evaluate the tuned model"}
    assert second["version"] == first["version"]


@pytest.mark.parametrize(("keep_best", "trained"), [(True, True), (False, False)])
def test_a_changed_dev_row_decides_again_and_trains_where_it_chooses_the_weights(
    project: Project, tmp_path: Path, keep_best: bool, trained: bool
) -> None:
    recipe = project(finetune={"keep_best": keep_best})
    first = run(recipe)
    write_rows(tmp_path / "dev.jsonl", range(30, 38), answer="SELECT name FROM t{}")
    second = run(recipe)
    # the plan's time counts the passes over dev rows
    assert redone(second) - {"evaluate the tuned model"} == {"decide", "plan", *(["finetune"] if trained else [])}
    assert second["trained"] is trained
    if not trained:
        assert second["version"] == first["version"]


def test_another_base_re_runs_everything(project: Project, tmp_path: Path) -> None:
    from components.models.tiny import make_tiny

    run(project())
    second = run(project(base=str(make_tiny(tmp_path / "other", seed=1))))
    assert redone(second) == COSTLY
    assert second["version"] == "tiny:v2"


def test_a_gate_that_cannot_be_met_registers_and_leaves_the_champion(project: Project) -> None:
    first = run(project())
    refused = run(project(finetune={"learning_rate": 5e-4}, gate={"min_task_delta": 1.0}))
    assert refused["version"] == "tiny:v2"
    assert refused["promotion"] is None
    reason = exit_reason(refused)
    assert reason is not None
    assert "tiny:v2" in reason
    with Registry.open(home() / "registry") as registry:
        assert registry.resolve("tiny@champion").digest == first["digest"]
        assert registry.resolve("tiny:v2").digest == refused["digest"]
    assert "tiny:v2" in Path(refused["report"]).read_text()


def test_what_has_to_be_signed_is_promoted_and_not_served_in_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = {"tag": "tiny:v1", "path": "nowhere", "bytes": 1}
    monkeypatch.setattr("flows.endpoint_steps.bundle", lambda *_: bundle)  # it takes longer than all else here
    recipe = project(release={"bundle": True, "try_question": True})
    # taken out of the recipe, it stays asked for by the promotion
    for asked in ((f"gate.required_signature={'ab' * 32}",), ()):
        found = run(recipe, *asked)
        assert (found["version"], found["gate"]["passed"]) == ("tiny:v1", True)
        assert (found["bundle"], found["endpoint"]) == (bundle, None)
    with Registry.open(home() / "registry") as registry:
        assert registry.standing("tiny@champion").required_keys == ("ab" * 32,)


def test_the_champion_is_measured_where_the_test_changed_since(project: Project, tmp_path: Path) -> None:
    first = run(project())
    write_rows(tmp_path / "test.jsonl", range(40, 48))
    second = run(project(finetune={"learning_rate": 5e-4}))
    assert second["champion"]["version"] == "tiny:v1"
    assert second["champion"]["task"]["n"] == second["task"]["n"] == 8 < first["task"]["n"]
    assert second["champion"]["task"]["test_digest"] == second["task"]["test_digest"]
    checks = {check["name"]: check for check in second["gate"]["checks"]}
    # the comparison was made: a score stands against a bound
    assert checks["champion"]["bound"] is not None
    with Registry.open(home() / "registry") as registry:
        newest, oldest = registry.evaluations("tiny:v1")
        assert newest.report["tax"] == oldest.report["tax"]
        assert newest.report["task"]["test_digest"] != oldest.report["task"]["test_digest"]
    again = run(project(finetune={"learning_rate": 5e-4}))
    assert again["champion"] is None


def test_a_roll_back_is_not_undone_by_the_next_run(project: Project) -> None:
    run(project())
    second = run(project(finetune={"learning_rate": 5e-4}))
    with Registry.open(home() / "registry") as registry:
        registry.rollback("tiny", "champion", actor="somebody", reason="customers complained")
    with pytest.raises(ConflictError, match="rolled back"):
        run(project(finetune={"learning_rate": 5e-4}))
    with Registry.open(home() / "registry") as registry:
        assert registry.resolve("tiny@champion").label == "tiny:v1"
        assert registry.resolve("tiny").digest == second["digest"]


def test_a_failed_run_leaves_how_far_it_came(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConflictError("the disk is on fire")

    monkeypatch.setattr("flows.steps.plan", fail)
    with pytest.raises(ConflictError):
        run(project())
    (record,) = home().glob("runs/tiny-*/run.json")
    document = json.loads(record.read_text())
    assert "the disk is on fire" in document["error"]
    assert document["decision"]["verdict"]
    assert document["training"] is None


def test_a_verdict_that_is_not_finetune_stops_before_training_with_a_report(project: Project) -> None:
    found = run(project(decision={"override_reason": None, "min_train_rows": 1000}))
    # a random base knows no language, whatever there is to train on
    assert found["decision"]["verdict"] == "other_base"
    assert found["training"] is None
    reason = exit_reason(found)
    assert reason is not None
    assert "other_base" in reason
    assert Path(found["report"]).exists()
    assert not (home() / "registry").exists()


def test_a_budget_that_nothing_fits_stops_before_training(project: Project) -> None:
    found = run(project(memory={"budget": "1MiB"}))
    assert found["plan"]["fits"] is False
    assert found["training"] is None
    assert "budget" in str(exit_reason(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "no-such-base"}, "no-such-base"),
        ({"task": {"metric": "no_such_metric"}}, "no_such_metric"),
        ({"evaluation": {"suites": ["no-such-suite"]}}, "no-such-suite"),
        ({"data": {"test": "absent.jsonl"}}, "absent.jsonl"),
        ({"data": {"test_subsets": ["prime"]}}, "prime"),
    ],
)
def test_bad_input_is_refused_before_anything_is_registered(
    project: Project, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(project(**change))
    assert not home().exists()


def test_a_test_row_that_stands_in_training_is_refused(project: Project, tmp_path: Path) -> None:
    recipe = project()
    write_rows(tmp_path / "test.jsonl", range(20, 30))
    with pytest.raises(InputError):
        run(recipe)


def test_metadata_that_is_not_text_is_named_by_its_line(project: Project, tmp_path: Path) -> None:
    recipe = project()
    rows = [json.loads(line) for line in (tmp_path / "dev.jsonl").read_text().splitlines()]
    rows[1]["metadata"]["database"] = {"z": 1}
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(InputError, match=r"line 2: metadata\.database"):
        run(recipe)
    assert not home().exists()


def test_a_home_that_cannot_be_written_is_refused(project: Project, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot write"):
        open_job(load_recipe(project()), blocked / "home")
