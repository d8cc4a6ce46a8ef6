"""`tunewright registry deprecate|restore|retire|demote|collect` as people and scripts call them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = "f" * 64
REPORT: dict[str, Any] = {
    "task": {"n": 128, "delta": 0.2, "low": 0.1, "high": 0.3},
    "tax": [{"suite": "grammar", "low": -0.01}],
    "policy": {"min_task_delta": 0.1, "min_rows": 100},
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a base and two proven adapters, each with a file of its own."""
    with Registry.open(tmp_path / "home" / "registry") as registry:
        parents: tuple[Parent, ...] = ()
        for name, kind, content in (("tiny", "base", "0"), ("sql", "adapter", "1"), ("sql", "adapter", "2")):
            source = tmp_path / f"{content}.json"
            source.write_text(json.dumps({"layers": content}))
            files = describe_files({"config.json": source})
            manifest = Manifest(kind=kind, files=files, base_fingerprint=FINGERPRINT, parents=parents)
            version = registry.register(name, manifest, {"config.json": source})
            if kind == "base":
                parents = (Parent(version.digest, "base"),)
            else:
                registry.record_evaluation(version.digest, REPORT)
    return tmp_path / "home"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Run:
    """Run the command line as the console script does; return (exit status, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", *arguments, "--home", str(home)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def _json(result: tuple[int, str, str]) -> Any:
    status, out, err = result
    assert status == 0, err
    return json.loads(out)


def test_states_are_told_wherever_a_version_is(run: Run) -> None:
    change = _json(run("deprecate", "sql:v1", "--reason", "older data", "--actor", "bob", "--json"))
    assert (change["state"], change["changed"]) == ("deprecated", True)
    assert [v["state"] for v in _json(run("ls", "sql", "--json"))["versions"]] == ["deprecated", "active"]
    assert "deprecated" in run("ls")[1]
    status, out, err = run("show", "sql:v1")
    assert status == 0
    assert "deprecated since" in out
    assert "by bob: older data" in out
    assert "warning: sql:v1 is deprecated" in err
    shown = _json(run("show", "sql:v1", "--json"))
    assert (shown["state"], shown["status"]["reason"]) == ("deprecated", "older data")
    status, out, err = run("resolve", "sql:v1", "--checkout", "--json")
    assert (status, json.loads(out)["state"]) == (0, "deprecated")
    assert "warning: sql:v1 is deprecated" in err
    assert "sql:v1  adapter" in run("lineage", "tiny")[1]
    assert "(deprecated)" in run("lineage", "tiny")[1]
    assert run("deprecate", "sql:v1", "--reason", "again")[1] == "sql:v1 is deprecated already\n"
    status, _, err = run("promote", "sql:v1", "--alias", "champion")
    assert status == 4
    assert "older data; it can't be promoted" in err
    assert "sql:v1 is active, before deprecated" in run("restore", "sql:v1", "--reason", "a second look")[1]
    assert _json(run("promote", "sql:v1", "--alias", "champion", "--json"))["changed"]


def test_retired_version_is_refused_with_what_helps(run: Run) -> None:
    _json(run("promote", "sql:v1", "--alias", "champion", "--json"))
    status, _, err = run("retire", "sql:v1", "--reason", "no use")
    assert status == 4
    assert "sql:v1 can't be retired: sql@champion points at it" in err
    status, _, err = run("retire", "tiny", "--reason", "no use")
    assert status == 4
    assert "sql:v1 was made from it; sql:v2 was made from it" in err
    path = _json(run("resolve", "sql:v2", "--checkout", "--json"))["path"]
    assert Path(path).is_dir()
    assert "frees its bytes after the grace period" in run("retire", "sql:v2", "--reason", "no use")[1]
    assert _json(run("resolve", "sql:v2", "--json"))["path"] is None
    status, _, err = run("resolve", "sql:v2", "--checkout")
    assert status == 4
    assert "can't be checked out" in err
    assert "allowed: sql:v1" in err
    assert run("retire", "sql:v2")[0] == 2, "a reason is required"


def test_demoted_alias_is_not_found_and_its_next_revision_is_told(run: Run) -> None:
    _json(run("promote", "sql:v1", "--alias", "champion", "--json"))
    assert run("demote", "sql", "--alias", "champion", "--reason", "wrong answers")[1] == (
        "sql@champion points at nothing (revision 2, before sql:v1)\n"
    )
    assert run("resolve", "sql@champion")[0] == 4
    status, _, err = run("demote", "sql", "--alias", "champion", "--reason", "again")
    assert status == 4
    assert "it was taken away at revision 2" in err
    assert _json(run("promote", "sql:v1", "--alias", "champion", "--expected-revision", "2", "--json"))["revision"] == 3


def test_collection_tells_what_it_frees_and_waits_for_the_grace_period(run: Run) -> None:
    run("retire", "sql:v2", "--reason", "no use")
    assert run("collect")[1] == (
        "removed: 0 blobs, 0 bytes; 0 checkouts\n"
        "  1 blobs are needed by no version, and younger than the grace period or in use\n"
    )
    assert run("collect", "--grace", "0", "--dry-run")[1] == "would be removed: 1 blobs, 15 bytes; 0 checkouts\n"
    found = _json(run("collect", "--grace", "0", "--actor", "eve", "--json"))
    assert (found["blobs"], found["bytes"], found["kept"], found["dry_run"]) == (1, 15, 0, False)
    status, _, err = run("restore", "sql:v2", "--reason", "too late")
    assert status == 4
    assert "register the same files again" in err
    assert run("verify")[0] == 0
    assert "eve" in run("audit")[1]


@pytest.mark.parametrize("grace", ["7", "-1d", "soon", "1w", "nan", "1e9d"])
def test_length_of_time_wants_its_unit(run: Run, grace: str) -> None:
    status, _, err = run("collect", "--grace", grace)
    assert status == 2
    assert "7d, 12h, 30m, 45s or 0" in err
