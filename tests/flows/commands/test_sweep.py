"""`tunewright sweep`: trials with other values, kept, gone on with after a kill, and found in the registry."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.models.tiny import make_tiny
from tests.flows.conftest import call_command

pytest.importorskip("optuna")

Project = Callable[..., Path]
Document = dict[str, Any]

# every plan starts a process that imports what training imports
pytestmark = pytest.mark.integration

RATES = {"finetune.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]


def swept(
    project: Project, parameters: Any, *, trials: int = 3, seed: int = 17, finetune: Any = None, **more: Any
) -> str:
    sweep = {"parameters": parameters, "trials": trials, **more}
    return str(project(seed=seed, sweep=sweep, finetune={"epochs": 2, "dev_passes": 3, **(finetune or {})}))


def test_the_best_trial_can_be_run_without_training_it_again_and_leads_back_to_the_sweep(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, home = swept(project, RATES), tmp_path / "home"
    status, out, err = call_command(monkeypatch, capsys, "sweep", recipe, "--json")
    found = json.loads(out)
    assert status == 0, err
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 3
    assert "trial 3 of 3: finetune.learning_rate" in err
    best = found["best"]
    assert best["value"] == min(trial["value"] for trial in found["trials"])
    assert best["value"] == min(one["loss"] for one in found["trials"][best["number"] - 1]["dev"])
    run = json.loads((home / best["run"]).read_text())
    assert (run["kind"], run["plan"]["fits"], run["sweep"]) == ("trial", True, found["sweep"])
    assert run["training"]["peak_bytes"] == found["trials"][best["number"] - 1]["peak_bytes"] > 0
    assert len(run["training"]["losses"]) == 6
    assert not list((home / "runs").glob("*/checkpoint-*"))

    # two more trials go on behind the three that are there
    status, page, err = call_command(monkeypatch, capsys, "sweep", recipe, "--set", "sweep.trials=4")
    assert status == 0
    assert "going on behind 3 of 4 trials" in err
    assert err.count("finetune: step 6/6") == 1
    assert "or in the recipe:\nfinetune:\n  learning_rate: " in page

    status, out, _ = call_command(monkeypatch, capsys, "sweep", recipe, "--set", "sweep.trials=4", "--json")
    best = json.loads(out)["best"]
    sets = [f"--set={value}" for value in best["set"]]
    status, out, err = call_command(monkeypatch, capsys, "run", recipe, "--no-prefect", *sets, "--json")
    assert status == 0, err
    document = json.loads(out)
    assert document["trained"] is False
    assert "finetune: unchanged, kept" in err
    status, out, _ = call_command(monkeypatch, capsys, "registry", "lineage", "tiny", "--json")
    graph = json.loads(out)
    runs = {node["id"]: node["label"] for node in graph["nodes"] if node["type"] == "run"}
    into = {
        runs[e["source"]]: e["role"]
        for e in graph["edges"]
        if e["target"] == document["digest"] and e["source"] in runs
    }
    assert sorted(into.values()) == ["run", "trial", "trial", "trial"]
    chosen = next(label for label, role in into.items() if role == "run")
    assert f"trial {best['number']}: finetune.learning_rate" in chosen
    assert f"complete, dev loss {best['value']:.4f}" in chosen
    assert sum(e["role"] == "base" and e["target"] in runs for e in graph["edges"]) == 4
    assert call_command(monkeypatch, capsys, "registry", "verify")[0] == 0
    assert call_command(monkeypatch, capsys, "registry", "runs", "nope")[0] == 4
    status, page, _ = call_command(monkeypatch, capsys, "registry", "runs", "tiny")
    assert page.count("complete, dev loss") == 4


def losses_of(found: Document) -> list[tuple[Any, ...]]:
    return [(trial["state"], trial["values"], trial["value"], trial["dev"]) for trial in found["trials"]]


def test_a_sweep_killed_in_a_trial_goes_on_from_its_checkpoint_to_the_same_results(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, cut = swept(project, RATES, trials=2), str(tmp_path / "cut")
    whole = json.loads(call_command(monkeypatch, capsys, "sweep", recipe, "--json")[1])
    command = [*COMMAND, "sweep", recipe, "--json", "--home", cut]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        trial = ""
        for line in child.stderr:
            trial = line if line.startswith("trial ") else trial
            if "trial 2 of" in trial and "after step 4" in line:
                child.kill()
                break
        child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    status, out, err = call_command(monkeypatch, capsys, "sweep", recipe, "--json", "--home", cut)
    found = json.loads(out)
    assert status == 0, err
    assert "going on behind 1 of 2 trials" in err
    assert losses_of(found) == losses_of(whole)
    run = json.loads((tmp_path / "cut" / found["trials"][1]["run"]).read_text())
    assert run["training"]["resumed_from"] >= 2
    status, out, _ = call_command(monkeypatch, capsys, "registry", "runs", "--json", "--home", cut)
    assert [one["number"] for one in json.loads(out)["runs"]] == [1, 2]


def test_sigterm_ends_a_sweep_with_its_own_status(project: Project) -> None:
    command = [*COMMAND, "sweep", swept(project, RATES), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "finetune: step 1/" in line:
                child.send_signal(signal.SIGTERM)
                break
        out, err = child.communicate(timeout=120)
    assert child.returncode == 143, err
    assert "goes on where it stopped" in json.loads(out)["error"]["next_step"]


def test_a_hopeless_trial_is_given_up_and_leaves_its_record(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("components.finetuning.study.STARTUP_TRIALS", 1)
    choices = {"finetune.learning_rate": {"choices": [0.01, 1e-7]}}
    recipe = swept(project, choices, trials=3, seed=23, sampler="random")  # draws 0.01 first, then 1e-7
    status, out, err = call_command(monkeypatch, capsys, "sweep", recipe, "--json")
    found = json.loads(out)
    assert status == 0, err
    assert [trial["state"] for trial in found["trials"]] == ["complete", "pruned", "complete"]
    pruned = found["trials"][1]
    assert pruned["values"] == {"finetune.learning_rate": 1e-7}
    assert (pruned["steps"], len(pruned["dev"]), pruned["value"]) == (4, 2, None)
    assert "worse than the median" in pruned["reason"]
    assert pruned["peak_bytes"] > 10**8
    assert json.loads((tmp_path / "home" / pruned["run"]).read_text())["training"] is None
    assert found["best"]["values"] == {"finetune.learning_rate": 0.01}
    assert not list((tmp_path / "home" / "runs").glob("*/checkpoint-*"))


def test_bases_are_compared_in_one_sweep_by_the_score_of_their_answers(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    wide = make_tiny(tmp_path / "wide-base", seed=1, hidden_size=96, vocabulary=320)
    parameters = {"base": {"choices": [str(tiny_base), str(wide)]}}
    watched = {"epochs": 1, "dev_passes": 1, "dev_metric_rows": 4}
    recipe = swept(
        project, parameters, trials=3, seed=21, sampler="random", objective="dev_score", finetune=watched
    )  # draws the one, the other, the one
    status, out, err = call_command(monkeypatch, capsys, "sweep", recipe, "--json")
    found = json.loads(out)
    assert status == 0, err
    assert [trial["values"]["base"] for trial in found["trials"]] == [str(tiny_base), str(wide), str(tiny_base)]
    assert found["direction"] == "maximize"
    assert [trial["value"] for trial in found["trials"]] == [trial["dev"][0]["score"] for trial in found["trials"]]
    assert len({trial["dev"][0]["loss"] for trial in found["trials"]}) == 2
    runs = [json.loads((tmp_path / "home" / trial["run"]).read_text()) for trial in found["trials"]]
    assert len({run["base"]["fingerprint"] for run in runs}) == len({run["plan"]["peak_bytes"] for run in runs}) == 2
    # the same values again are the same training
    assert err.count("are kept, the last step's") == 2
    assert found["best"]["set"] == [f"base={found['best']['values']['base']}"]


def test_bases_with_other_tokenizers_are_not_compared_by_loss(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    other = make_tiny(tmp_path / "other-base", vocabulary=320)
    recipe = swept(project, {"base": {"choices": [str(tiny_base), str(other)]}})
    status, _, err = call_command(monkeypatch, capsys, "sweep", recipe)
    assert status == 2
    assert re.search("the dev losses of .* can't be compared: they are by token, and the tokenizers differ", err)
    assert "sweep.objective=dev_score" in err
    assert not (tmp_path / "home" / "runs").exists()


def test_a_trial_that_can_not_be_trained_is_recorded_and_the_others_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"finetune.rows_per_sequence": {"choices": [3, 4]}}
    recipe = swept(project, parameters, trials=2, seed=29, sampler="random", finetune={"epochs": 1, "dev_passes": 1})
    status, out, err = call_command(monkeypatch, capsys, "sweep", recipe, "--json")
    found = json.loads(out)
    assert status == 0, err
    states = {trial["values"]["finetune.rows_per_sequence"]: trial["state"] for trial in found["trials"]}
    assert states == {3: "failed", 4: "complete"}
    failed = next(trial for trial in found["trials"] if trial["state"] == "failed")
    assert "effective_rows 8 is not a multiple of rows_per_sequence 3" in failed["reason"]


def test_a_sweep_that_fits_no_memory_ends_with_a_verdict_and_its_trials(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = swept(project, RATES, trials=2)
    call = ("sweep", recipe, "--set", "memory.budget=1MiB")
    # no further trial is begun when the seconds are spent, and more seconds go on with the same sweep
    status, out, _ = call_command(monkeypatch, capsys, *call, "--set", "sweep.seconds=0.001", "--json")
    found = json.loads(out)
    assert (status, len(found["trials"])) == (3, 1)
    assert "sweep.seconds is 0.001" in found["ended"]
    status, out, err = call_command(monkeypatch, capsys, *call, "--json")
    assert status == 3
    assert "going on behind 1 of 2 trials" in err
    assert "none of the 2 trials came to its end" in err
    found = json.loads(out)
    assert found["best"] is None
    assert all(re.search("needs .* GiB, and the memory budget is 0.00 GiB", one["reason"]) for one in found["trials"])
    status, page, _ = call_command(monkeypatch, capsys, *call)
    assert status == 3
    assert page.count("failed") == 2


def test_another_process_at_the_same_sweep_is_a_conflict(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from filelock import FileLock

    monkeypatch.setattr("flows.sweep._sweep_key", lambda *_: "0" * 64)
    folder = tmp_path / "home" / "sweeps" / "tiny-000000000000"
    folder.mkdir(parents=True)
    with FileLock(folder / "sweep.lock"):
        status, _, err = call_command(monkeypatch, capsys, "sweep", swept(project, RATES))
    assert (status, "another process is at the sweep" in err) == (4, True), err
    assert not (tmp_path / "home" / "runs").exists()


@pytest.mark.parametrize(
    ("parameters", "more", "problem"),
    [
        ({}, {}, "the recipe's sweep has no parameters"),
        ({"finetune.bottleneck_width": {"choices": [4, 8]}}, {}, "is not read by method lora"),
        ({"base": {"choices": ["no-such-base", "another"]}}, {}, "no-such-base"),
        ({"finetune.rows_per_sequence": {"choices": [3, 5]}}, {}, "is not a multiple of rows_per_sequence 3"),
        (RATES, {"objective": "dev_score"}, "finetune.dev_metric_rows is 0"),
        (RATES, {"finetune": {"dev_loss_rows": 0}}, "finetune.dev_loss_rows is 0"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    parameters: Document,
    more: Document,
    problem: str,
) -> None:
    status, _, err = call_command(monkeypatch, capsys, "sweep", swept(project, parameters, **more))
    assert (status, problem in err) == (2, True), err
    assert not (tmp_path / "home" / "sweeps").exists()
    assert not (tmp_path / "home" / "runs").exists()
