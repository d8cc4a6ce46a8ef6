"""Feature-based transfer goes the whole way, and what a head can't do is refused before time is spent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError
from components.paths import home
from components.recipe import load_recipe
from deploy.application import make_engine
from deploy.engines.head_engine import HeadEngine
from deploy.from_registry import version_files
from deploy.staging import stage_model
from flows import steps
from flows.chain import exit_reason, run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.conftest import call_command

Project = Callable[..., Path]
WORDS = {"dog": "The quick brown fox jumps over the lazy dog", "singer": "concert stadium capacity singer country"}
NUMBERS = {"dog": "-1.5", "singer": "2.25"}


def write_rows(path: Path, numbers: Iterable[int], answers: dict[str, str] | None = None) -> None:
    lines = []
    for number in numbers:
        label = ("dog", "singer")[number % 2]
        answer = label if answers is None else answers[label]
        messages = [("user", f"{WORDS[label]} {number}"), ("assistant", answer)]
        turns = [{"role": role, "content": content} for role, content in messages]
        lines.append(json.dumps({"messages": turns, "metadata": {"id": f"row-{number}"}}))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def recipe(project: Project, tmp_path: Path) -> Project:
    def write(answers: dict[str, str] | None = None, **sections: Any) -> Path:
        for split, numbers in (("train", range(40)), ("dev", range(50, 66)), ("test", range(70, 94))):
            write_rows(tmp_path / f"{split}.jsonl", numbers, answers)
        sections = {
            "task": {"metric": "label_accuracy"},
            "finetune": {"method": "features", "epochs": 30, "learning_rate": 0.01, **sections.pop("finetune", {})},
            **sections,
        }
        return project(**sections)

    return write


def run(path: Path, *overrides: str) -> dict[str, Any]:
    job = open_job(load_recipe(path, None, overrides), home())
    return run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))


@pytest.mark.integration
def test_a_head_is_trained_measured_registered_promoted_and_served(recipe: Project) -> None:
    path = recipe(gate={"min_task_delta": 0.2, "task_interval_excludes_zero": True, "min_rows": 20})
    found = run(path)
    assert exit_reason(found) is None
    assert (found["plan"]["method"], found["plan"]["fits"]) == ("features", True)
    assert found["plan"]["breakdown"]["gradients"] == found["plan"]["breakdown"]["optimizer"] == 0
    assert (found["plan"]["trainable_parameters"], found["training"]["kind"]) == (0, "head")
    assert found["task"]["tuned"] > 0.9
    assert found["task"]["low"] > 0
    assert found["task"]["summaries"]["tuned"]["macro_f1"] > 0.9
    assert found["training"]["head"]["labels"] == ["dog", "singer"]
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("tiny@champion")
        base = registry.resolve(version.manifest.parents[0].digest)
        files = version_files(registry, version.digest, proven=True)
        assert registry.verify().intact
    assert (version.kind, version.manifest.metadata["method"]) == ("head", "features")
    assert version.base_fingerprint == base.base_fingerprint
    assert version.manifest.metadata["head"]["task"] == "classification"
    engine = make_engine(stage_model(files, out_home=home()))
    assert isinstance(engine, HeadEngine)
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    engine.close()
    report = Path(found["report"]).read_text()
    assert "macro f1" in report
    assert "Best epoch" in report
    again = run(path)
    assert (again["trained"], again["digest"]) == (False, found["digest"])


@pytest.mark.integration
def test_a_second_head_takes_the_features_that_are_there(recipe: Project) -> None:
    path = recipe()
    first = run(path)
    second = run(path, "finetune.head_width=8", "finetune.learning_rate=0.005")
    assert first["training"]["head"]["features_computed"] == 56
    assert second["training"]["head"]["features_computed"] == 0
    # a peak without the base says nothing of the plan
    assert first["training"]["memory"]["measured_bytes"] == first["training"]["peak_bytes"]
    assert second["training"]["memory"] is None
    assert second["digest"] != first["digest"]
    # the first one was the champion, and was measured on this test
    assert second["promotion"]["previous"] == "tiny:v1"


@pytest.mark.integration
def test_a_regression_goes_the_same_way(recipe: Project) -> None:
    path = recipe(
        NUMBERS,
        finetune={"head": "regression"},
        task={"metric": "number_closeness", "metric_options": {"scale": 4}, "max_new_tokens": 8},
    )
    found = run(path)
    assert exit_reason(found) is None
    assert found["training"]["head"]["decimals"] == 2
    assert found["task"]["tuned"] > 0.8
    assert found["task"]["summaries"]["tuned"]["mean_absolute_error"] < 1


def test_the_tax_of_a_head_is_zero_by_construction_and_measured_once(recipe: Project) -> None:
    from components.evaluation.suites import SuiteResult
    from flows.comparison_step import compare

    job = open_job(load_recipe(recipe(), None, ()), home())
    suite = SuiteResult("piqa", "d1", "accuracy", (True, False), 0.5, 0.1, 0.9, 1.0)
    suites = [{**suite.to_dict(), "seconds": 1.0, "correct": [True, False]}]
    task = {"rows_digest": job.test_rows_digest, "scores": [1.0] * 24, "predictions": ["dog"] * 24,
            "tokens_per_request": 1.0, "seconds_per_request": 1.0}  # fmt: skip
    measured = {"candidate": "zero-shot", "task": task, "suites": suites}
    (row,) = compare(job, measured, {**measured, "base_untouched": True})["tax"]
    assert (row["delta"], row["low"], row["high"], row["by_construction"]) == (0.0, 0.0, 0.0, True)
    (row,) = compare(job, measured, {**measured, "base_untouched": False})["tax"]
    assert row["low"] < 0
    assert "by_construction" not in row


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"task": {"metric": "execution_match", "metric_options": {"schemas": "x"}}}, "execution_match for a head"),
        ({"finetune": {"head": "regression"}}, "line 1: the answer 'dog' is no number"),
        ({"finetune": {"method": "lora", "head_width": 8}}, "head_width is for method features"),
        ({"finetune": {"dora": True}}, "dora and rslora are variants of LoRA"),
    ],
)
def test_settings_and_metrics_that_do_not_apply_are_refused_at_the_door(
    recipe: Project, sections: dict[str, Any], said: str
) -> None:
    path = recipe(**sections)
    with pytest.raises(InputError) as error:
        open_job(load_recipe(path, None, ()), home())
    assert said in str(error.value)


def test_delivering_heads_is_refused_with_the_reason(
    recipe: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call_command(monkeypatch, capsys, "plan", str(recipe()), "--deliver", "3")
    assert status == 2
    assert "heads share the base" in err


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_label_that_training_never_saw_is_refused_at_the_door(recipe: Project, tmp_path: Path, split: str) -> None:
    path = recipe()
    write_rows(tmp_path / f"{split}.jsonl", range(100, 140), {"dog": "dog", "singer": "Singer"})
    with pytest.raises(InputError, match=rf"{split}\.jsonl, line 2: the label 'Singer' is in no training row"):
        open_job(load_recipe(path, None, ()), home())


def test_a_label_that_an_answer_has_no_room_for_is_refused(recipe: Project) -> None:
    path = recipe({"dog": "a lazy dog that sleeps", "singer": "no"})
    job = open_job(load_recipe(path, None, ()), home())
    with pytest.raises(InputError, match=r"tokens with the turn's end, and task\.max_new_tokens is 4"):
        steps.data(job, TerminalObserver())


@pytest.mark.integration
def test_the_suites_of_a_head_are_refused(
    recipe: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(recipe())
    status, _, said = call_command(monkeypatch, capsys, "evaluate", "tiny@champion", "--suite", "piqa")
    assert status == 2
    assert "is a head, which answers labels or numbers" in said


@pytest.mark.integration
def test_the_plan_of_a_head_is_printed(
    recipe: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call_command(monkeypatch, capsys, "plan", str(recipe()), "--explain")
    assert status == 0
    assert "plan: features in float32" in out
    assert "gradients 0.00 GiB" in out
