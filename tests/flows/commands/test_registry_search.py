"""`tunewright registry search` and `trained-on`: which versions, by base, data and score, and what serves them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = hashlib.sha256(b"base").hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A base, v1 (0.6) and v2 (0.8) trained on a data file, v1 the champion, and v3 trained on another."""
    (tmp_path / "train.jsonl").write_text("rows")
    (tmp_path / "config.json").write_text("{}")
    files = {"config.json": tmp_path / "config.json"}
    described = describe_files(files)
    with Registry.open(tmp_path / "registry") as registry:
        base = registry.register("tiny", Manifest("base", described, base_fingerprint=FINGERPRINT), files)
        for number, data in enumerate((b"rows", b"rows", b"others"), start=1):
            manifest = Manifest(
                kind="adapter", files=described, base_fingerprint=FINGERPRINT, parents=(Parent(base.digest, "base"),),
                data_digests={"train.jsonl": hashlib.sha256(data).hexdigest()}, seed=number,
            )  # fmt: skip
            version = registry.register("text2sql", manifest, files)
            task = {"metric": "exact", "n": 128, "tuned": 0.4 + number / 5, "delta": 0.2, "low": 0.1, "high": 0.3}
            report = {"task": task, "tax": [{"suite": "grammar", "low": 0.0, "tuned": 0.9}]}
            registry.record_evaluation(version.digest, report)
        registry.promote("text2sql:v1", "champion", policy=Policy(), actor="a")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Callable[..., Any]:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", *arguments, "--home", str(home)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().out

    return call


def test_versions_are_found_by_every_condition(run: Callable[..., Any], home: Path) -> None:
    def labels(*options: str) -> list[str]:
        status, out = run("search", *options, "--json")
        assert status == 0
        return [f"{row['name']}:v{row['version']}" for row in json.loads(out)["versions"]]

    assert labels("--kind", "base") == ["tiny:v1"]
    assert labels("--base", FINGERPRINT[:12]) == ["text2sql:v1", "text2sql:v2", "text2sql:v3", "tiny:v1"]
    assert labels("--data", str(home / "train.jsonl")) == ["text2sql:v1", "text2sql:v2"]
    assert labels("--data", hashlib.sha256(b"others").hexdigest()) == ["text2sql:v3"]
    assert labels("--metric", "exact", "--min", "0.7", "--max", "0.9") == ["text2sql:v2"]
    assert labels("--metric", "grammar", "--min", "0.95") == []
    assert labels("--name", "text2sql", "--limit", "1") == ["text2sql:v1"]
    assert "0.8" in run("search", "--metric", "exact", "--min", "0.7")[1]
    assert run("search", "--metric", "none")[1] == "no version satisfies this\n"


def test_what_serves_something_trained_on_a_file_is_shown(run: Callable[..., Any], home: Path) -> None:
    status, out = run("trained-on", str(home / "train.jsonl"))
    assert status == 0
    assert "@champion" in next(line for line in out.splitlines() if line.startswith("text2sql:v1"))
    assert "text2sql:v2" in out
    assert "text2sql:v3" not in out
    assert "nothing" in run("trained-on", "0" * 64)[1]


def test_mistakes_are_told(run: Callable[..., Any]) -> None:
    assert run("search", "--min", "0.5")[0] == 2
    assert run("search", "--base", "xyz")[0] == 2
    assert run("search", "--kind", "zap")[0] == 2
    assert run("search", "--data", "nowhere.jsonl")[0] == 2
    assert run("trained-on", "nowhere.jsonl")[0] == 2
