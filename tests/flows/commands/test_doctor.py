"""`tunewright doctor`: what it says of the folders."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from flows.cli import main


def test_a_folder_that_cant_be_written_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(sys, "argv", ["tunewright", "doctor", "--home", str(tmp_path / "file" / "home"), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    state, cache = json.loads(capsys.readouterr().out)["folders"]
    assert (state["writable"], cache["writable"], cache["problem"]) == (False, True, None)
    assert state["problem"].startswith(str(tmp_path / "file"))
    assert not (tmp_path / "cache").exists()


def test_what_is_not_needed_is_listed_with_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"optuna": "5.1", "mlflow": "3.9"}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("flows.step_store.library_versions", dict)
    monkeypatch.setattr(sys, "argv", ["tunewright", "doctor", "--home", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["optuna", "5.1", "sweep"] for line in lines)
    # the whole package stands for its client
    assert any(line.startswith("mlflow-skinny") and "3.9" in line for line in lines)
    assert any(line.startswith("torchao") and "not installed" in line for line in lines)


def test_registry_is_named_with_its_database_or_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry.store import Registry

    def told(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tunewright", "doctor", "--home", str(tmp_path), *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        return capsys.readouterr().out

    assert json.loads(told("--json"))["registry"] == {"database": None, "problem": None}
    Registry.open(tmp_path / "registry").close()
    database = str(tmp_path / "registry" / "registry.db")
    assert json.loads(told("--json"))["registry"] == {"database": database, "problem": None}
    assert f"registry     {database}" in told()
    monkeypatch.setenv("TUNEWRIGHT_REGISTRY_DATABASE", "mysql://ada:secret@db/models")
    assert "registry     NOT usable" in (text := told())
    assert "secret" not in text
