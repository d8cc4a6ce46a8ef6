"""`tunewright finetune`: trains once, keeps what is unchanged, and says when nothing fits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main

Project = Callable[..., Path]

# every plan starts a process that imports what training imports
pytestmark = pytest.mark.integration


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tunewright", "finetune", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_an_adapter_is_trained_once_and_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = str(project())
    status, out, err = run(monkeypatch, capsys, recipe, "--json")
    document = json.loads(out)
    assert (status, document["trained"]) == (0, True)
    assert "finetune: step" in err
    assert (Path(document["weights"]) / "adapter_model.safetensors").is_file()
    assert document["steps"] == len(document["losses"]) > 0
    assert document["plan"]["fits"]
    assert not (tmp_path / "home" / "registry").exists()

    status, page, err = run(monkeypatch, capsys, recipe)
    assert status == 0
    assert page.startswith(f"{document['weights']}  (unchanged, kept)")
    assert "finetune: step" not in err


def test_a_budget_that_nothing_fits_ends_with_a_verdict(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, _, err = run(monkeypatch, capsys, str(project()), "--set", "memory.budget=1MiB")
    assert status == 3
    assert "no method fits the memory budget of 1048576 bytes" in err
    assert not (tmp_path / "home" / "runs").exists()


def test_sigterm_saves_where_training_is_and_the_next_call_goes_on(project: Project, tmp_path: Path) -> None:
    recipe = str(project())
    command = [sys.executable, "-c", "from flows.cli import main; main()", "finetune", recipe, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "finetune: step 1/" in line:
                child.send_signal(signal.SIGTERM)
                break
        out, err = child.communicate(timeout=120)
    document = json.loads(out)
    assert child.returncode == 0, err
    assert 0 < document["stopped_at_step"] < document["steps"]
    saved = {path.name for path in (tmp_path / "home" / "runs").glob("*/checkpoint-*")}
    assert f"checkpoint-{document['stopped_at_step']}" in saved
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    resumed = json.loads(again.stdout)
    assert again.returncode == 0, again.stderr
    assert resumed["resumed_from"] == document["stopped_at_step"]
    assert len(resumed["losses"]) == document["steps"]
