"""`tunewright registry protect|unprotect|approve|withdraw|approvals` as people and scripts call them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from registry.manifest import Manifest, describe_files
from registry.store import Registry

REPORT: dict[str, Any] = {
    "task": {"n": 128, "delta": 0.2, "low": 0.1, "high": 0.3},
    "tax": [{"suite": "grammar", "low": -0.01}],
    "policy": {"min_task_delta": 0.1, "min_rows": 100},
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two proven versions of a model."""
    with Registry.open(tmp_path / "home" / "registry") as registry:
        for content in "12":
            source = tmp_path / f"{content}.json"
            source.write_text(json.dumps({"layers": content}))
            manifest = Manifest("base", describe_files({"config.json": source}), base_fingerprint="f" * 64)
            version = registry.register("sql", manifest, {"config.json": source}, actor="ada")
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


def test_champion_moves_with_two_approvals_and_says_what_is_missing(run: Run) -> None:
    assert run("approvals")[1] == "no alias is protected\n"
    status, out, _ = run("protect", "sql", "--reason", "customers use it", "--actor", "ada")
    assert status == 0
    assert out.startswith("sql@champion moves with 2 approvals, since ")
    assert "customers use it" in run("approvals")[1]
    status, _, err = run("promote", "sql:v1", "--alias", "champion", "--actor", "ada")
    assert status == 3
    assert "- 0 of 2 approvals for sql:v1 as sql@champion: 2 missing" in err
    assert "allowed: approvals of 2 people, none of them ada, who registered it" in err
    assert "next: let 2 more people run `tunewright registry approve sql:v1 --alias champion`; " in err
    assert run("approve", "sql:v1", "--actor", "ada")[0] == 2
    status, out, _ = run("approve", "sql:v1", "--actor", "bob", "--reason", "looked at it")
    assert status == 0
    assert out.startswith("sql:v1 as sql@champion: 1 of 2 approvals, 1 missing\n  bob  ")
    assert "ada registered it" in out
    status, out, _ = run("promote", "sql:v1", "--alias", "champion", "--dry-run", "--json")
    assert status == 3
    tried = json.loads(out)
    assert (tried["approvals"]["given"], tried["approvals"]["missing"], tried["dry_run"]) == (["bob"], 1, True)
    assert "1 of 2 approvals (bob)" in run("promote", "sql:v1", "--alias", "champion", "--dry-run")[1]
    status, out, _ = run("approve", "sql:v1", "--actor", "eve", "--json")
    assert (status, json.loads(out)["missing"]) == (0, 0)
    assert run("promote", "sql:v1", "--alias", "champion", "--actor", "ada")[0] == 0
    assert "used: what was approved has been done since" in run("approvals", "sql:v1")[1]
    assert "approve" in run("audit")[1]


def test_withdrawn_approval_and_roll_back(run: Run) -> None:
    run("protect", "sql", "--required", "1", "--reason", "r", "--actor", "ada")
    for ref in ("sql:v1", "sql:v2"):
        run("approve", ref, "--actor", "bob")
        assert run("promote", ref, "--alias", "champion")[0] == 0
    status, _, err = run("rollback", "sql", "--reason", "slow")
    assert status == 3
    assert "sql@champion may not go back to sql:v1" in err
    audited = run("audit")[1]
    status, out, _ = run("rollback", "sql", "--reason", "slow", "--dry-run")
    assert (status, out) == (3, "sql@champion would be refused sql:v1:\n  - 0 of 1 approvals: 1 missing\n")
    status, out, _ = run("demote", "sql", "--alias", "champion", "--reason", "r", "--dry-run", "--json")
    assert (status, json.loads(out)["approvals"]["missing"], json.loads(out)["changed"]) == (3, 1, False)
    assert run("audit")[1] == audited
    run("approve", "sql:v1", "--actor", "bob")
    status, out, _ = run("withdraw", "sql:v1", "--actor", "bob", "--reason", "on second thoughts", "--json")
    assert (status, json.loads(out)["given"]) == (0, [])
    assert run("withdraw", "sql:v1", "--actor", "bob")[0] == 4
    assert run("rollback", "sql", "--reason", "slow")[0] == 3
    run("approve", "sql:v1", "--actor", "bob")
    status, out, _ = run("rollback", "sql", "--reason", "slow", "--dry-run")
    assert (status, out) == (0, "sql@champion would point at sql:v1 (revision 3, before sql:v2)\n")
    assert run("rollback", "sql", "--reason", "slow")[0] == 0
    assert run("demote", "sql", "--alias", "champion", "--reason", "r")[0] == 3
    run("approve", "sql:v1", "--for", "demote", "--actor", "bob")
    status, out, _ = run("demote", "sql", "--alias", "champion", "--reason", "r", "--dry-run")
    assert (status, out) == (0, "sql@champion would point at nothing (revision 4, before sql:v1)\n")
    assert run("demote", "sql", "--alias", "champion", "--reason", "r")[0] == 0


def test_protection_is_lifted_with_its_own_approvals(run: Run) -> None:
    assert run("unprotect", "sql", "--reason", "r")[0] == 2
    run("protect", "sql", "--required", "1", "--reason", "r", "--actor", "ada")
    status, out, err = run("unprotect", "sql", "--reason", "r", "--json")
    assert status == 3
    assert json.loads(out)["error"]["type"] == "ApprovalsMissing"
    assert "let one more person run `tunewright registry approve sql --alias champion --for unprotect`" in err
    assert "a weaker protection of sql@champion, by none: 1 of 1" in run("approve", "sql", "--for", "unprotect")[1]
    status, out, _ = run("unprotect", "sql", "--reason", "a team of one")
    assert status == 0
    assert "sql@champion is not protected since" in out
    assert run("promote", "sql:v1", "--alias", "champion")[0] == 0


def test_approval_of_fewer_is_not_one_of_none(run: Run) -> None:
    run("protect", "sql", "--required", "2", "--reason", "r", "--actor", "ada")
    for who in ("bob", "eve"):
        status, out, _ = run("approve", "sql", "--for", "unprotect", "--required", "1", "--actor", who)
        assert (status, out.split(":")[0]) == (0, "a weaker protection of sql@champion, by 1")
    assert run("unprotect", "sql", "--reason", "r")[0] == 3
    assert "counts not: given for another protection" in run("approvals", "sql", "--for", "unprotect")[1]
    assert "2 of 2" in run("approvals", "sql", "--for", "unprotect", "--required", "1")[1]
    assert run("approve", "sql:v1", "--required", "1", "--actor", "bob")[0] == 2
    assert run("protect", "sql", "--required", "1", "--reason", "r")[0] == 0


def test_approval_is_given_under_a_policy_of_ones_own(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("min_rows: 10\nrequired_approvals: 1\n")
    how = ("--alias", "champion", "--policy", str(policy))
    assert run("promote", "sql:v1", *how)[0] == 3
    run("approve", "sql:v1", "--actor", "bob")
    assert run("promote", "sql:v1", *how)[0] == 3
    assert "counts not: given for another policy" in run("approvals", "sql:v1", *how)[1]
    run("approve", "sql:v1", *how, "--actor", "bob")
    assert run("promote", "sql:v1", *how)[0] == 0
