"""`tunewright run` as a process: exit statuses, one JSON document, resume after kill -9, and the same under Prefect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.paths import home
from registry.store import Registry

Project = Callable[..., Path]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from flows.cli import main; main()", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=280, check=False)


def same(document: dict[str, Any]) -> dict[str, Any]:
    """Drop what differs between any two runs: times, folders, identities."""
    kept = {name: document[name] for name in ("version", "task", "tax", "gate", "recipe", "data", "decision", "plan")}
    text = json.loads(json.dumps(kept))
    for candidate in text["decision"]["candidates"]:
        candidate.pop("seconds_per_request")
    text["task"].pop("cost")
    # the plan's sizes hold what this process held when it was made; what it chose is the same
    chosen = ("method", "dtype", "micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "fits")
    text["plan"] = {name: text["plan"][name] for name in chosen}
    for key in ("source", "pushed"):
        text["data"].pop(key, None)
    losses: dict[str, Any] = {"losses": [(e["step"], e["loss"]) for e in document["training"]["losses"]]}
    return {**text, **losses}


@pytest.mark.integration
@pytest.mark.parametrize("how", ["--no-prefect", "under Prefect"])
def test_gate_refused_exits_with_3_and_says_why(project: Project, how: str) -> None:
    options = ["--no-prefect"] if how == "--no-prefect" else []
    result = run("run", str(project(gate={"min_task_delta": 1.0})), *options, "--json")
    assert result.returncode == 3
    document = json.loads(result.stdout)
    assert document["gate"]["passed"] is False
    assert document["promotion"] is None
    assert all(reason in result.stderr for reason in document["gate"]["reasons"])
    assert "Traceback" not in result.stderr


@pytest.mark.integration
def test_bad_input_exits_with_2_without_a_traceback_and_writes_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text('{"messages": [\n')
    result = run("run", str(project()), "--no-prefect")
    assert result.returncode == 2
    assert "dev.jsonl" in result.stderr
    assert "line 1" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not home().exists()


@pytest.mark.integration
def test_bad_data_under_prefect_is_told_without_a_traceback(project: Project, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    result = run("run", str(project()), "--json")
    assert result.returncode == 2
    assert "train.jsonl" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(result.stdout)["error"]["exit_status"] == 2
    assert not home().exists()


@pytest.mark.integration
def test_killed_in_training_it_resumes_and_registers_once(project: Project) -> None:
    recipe = str(project(finetune={"epochs": 12}))
    child = subprocess.Popen(command("run", recipe, "--no-prefect"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(home().glob("runs/*/checkpoint-*")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (home() / "registry").exists()
    document = json.loads(run("run", recipe, "--no-prefect", "--json").stdout)
    assert document["training"]["resumed_from"] >= 1
    assert [entry["step"] for entry in document["training"]["losses"]] == list(
        range(1, document["training"]["steps"] + 1)
    )
    with Registry.open(home() / "registry") as registry:
        assert [version.label for version in registry.versions("tiny")] == ["tiny:v1"]
        assert registry.verify().intact


@pytest.mark.integration
def test_under_prefect_the_document_is_the_same_and_the_run_shows_tasks_and_artifacts(
    project: Project, tmp_path: Path
) -> None:
    recipe = str(project())
    plain = run("run", recipe, "--no-prefect", "--json", "--home", str(tmp_path / "plain"))
    assert plain.returncode == 0, plain.stderr
    under_prefect = run("run", recipe, "--json", "--home", str(tmp_path / "prefect"))
    assert under_prefect.returncode == 0, under_prefect.stderr
    assert same(json.loads(under_prefect.stdout)) == same(json.loads(plain.stdout))

    shown = subprocess.run(
        [sys.executable, "-c", SHOW_RUN],
        env={**os.environ, **server_settings(tmp_path / "prefect")},
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    seen = json.loads(shown.stdout.splitlines()[-1])
    assert {"materialise data", "decide", "plan", "finetune", "register", "gate and promote"} <= set(seen["tasks"])
    (watched,) = [text for text in seen["progress"] if text.startswith("finetune: step ")]
    for figure in ("/3  0:", " left  loss ", "  dev ", "  lr ", "  grad ", " tokens/s  ", " GiB"):
        assert figure in watched
    assert any("tiny:v1" in text for text in seen["markdown"])
    assert seen["state"] == "Completed"


@pytest.mark.integration
def test_a_promoted_version_is_bundled_served_and_asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # loopback is asked directly, whatever proxy the environment names
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    result = run("run", str(project(release={"bundle": True})), "--no-prefect", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["endpoint"]["model_digest"] == document["digest"]
    assert document["endpoint"]["usage"]["completion_tokens"] >= 1
    assert Path(document["bundle"]["path"]).is_dir()
    again = json.loads(run("run", str(project(release={"bundle": True})), "--no-prefect", "--json").stdout)
    assert again["trained"] is False
    assert again["bundle"]["tag"] == document["bundle"]["tag"]


def server_settings(folder: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }


SHOW_RUN = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    flow_run = client.read_flow_runs()[0]
    tasks = [t.name.rsplit("-", 1)[0] for t in client.read_task_runs()]
    artifacts = client.read_artifacts()
print(json.dumps({
    "state": flow_run.state.name, "tasks": tasks,
    "progress": [a.description for a in artifacts if a.type == "progress"],
    "markdown": [a.data for a in artifacts if a.type == "markdown"],
}))
"""


@pytest.mark.integration
@pytest.mark.parametrize(("verb", "begun"), [("run", "data …"), ("finetune", "finetune: step 1/")])
def test_terminated_at_work_it_says_so_and_leaves_no_child(
    verb: str, begun: str, project: Project, tmp_path: Path
) -> None:
    recipe, log = str(project(finetune={"epochs": 400})), tmp_path / "log"

    def is_at_work() -> bool:
        return begun in log.read_text() and (verb == "run" or any(home().glob("runs/*/checkpoint-*")))

    with (
        log.open("w") as output,
        subprocess.Popen(
            command(verb, recipe, "--json"), stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
        ) as child,
    ):
        deadline = time.monotonic() + 250
        while not is_at_work() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=120)
    assert is_at_work()
    document = json.loads(out)
    if verb == "finetune":  # a checkpoint of the step is what was asked for
        assert child.returncode == 0, log.read_text()
        assert 0 < document["stopped_at_step"] < document["steps"]
        assert "run the same command again; it goes on where it stopped" in document["message"]
    else:
        assert child.returncode == 143, log.read_text()
        error = document["error"]
        assert (error["message"], error["exit_status"]) == ("terminated", 143)
        assert error["next_step"] == "run the same command again; it goes on where it stopped"
    assert "Traceback" not in log.read_text()
    # the session that the command led is empty: Prefect's server has gone too
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


@pytest.mark.integration
def test_the_first_lines_come_before_anything_that_takes_time(project: Project) -> None:
    result = run("run", str(project(base="no-such-base")), "--set", "finetune.rank=2")
    assert result.returncode == 2
    first, *others = result.stderr.splitlines()
    assert first.startswith("tiny: ")
    assert first.endswith("recipe.yaml, base no-such-base")
    assert "  finetune.rank = 2  (command line)" in others
    assert "Prefect" not in result.stderr
