"""`tunewright registry token` and `serve` as people and scripts call them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from registry.http.tokens import Tokens
from registry.store import Registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Registry.open(tmp_path / "registry").close()
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Callable[..., Any]:
    def call(*arguments: str, at: Path = home) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", *arguments, "--home", str(at)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_a_token_is_printed_once_listed_without_its_secret_and_revoked(run: Callable[..., Any], home: Path) -> None:
    status, out, _ = run("token", "add", "ci", "--role", "write")
    assert (status, out.count("\n")) == (0, 1)
    secret = out.strip()
    found = Tokens(home / "registry").find(secret)
    assert found is not None
    assert (found.name, found.role) == ("ci", "write")
    status, out, _ = run("token", "ls", "--json")
    assert [(t["name"], t["role"]) for t in json.loads(out)["tokens"]] == [("ci", "write")]
    assert secret not in out
    assert "ci" in run("token", "ls")[1]
    assert run("token", "revoke", "ci")[0] == 0
    assert Tokens(home / "registry").find(secret) is None
    assert "no tokens" in run("token", "ls")[1]


def test_mistakes_have_their_exit_status(run: Callable[..., Any], home: Path, tmp_path: Path) -> None:
    run("token", "add", "ci", "--role", "read")
    assert run("token", "add", "ci", "--role", "read")[0] == 4
    assert run("token", "revoke", "cd")[0] == 4
    assert run("token", "add", "a b", "--role", "read")[0] == 2
    assert run("token", "add", "cd", "--role", "admin")[0] == 2
    assert run("token", "ls", at=tmp_path / "nowhere")[0] == 4
    assert not (tmp_path / "nowhere").exists()
    Tokens(home / "registry").revoke("ci")
    status, out, _ = run("serve", "--host", "0.0.0.0", "--json")
    assert status == 2
    assert "registry token add" in json.loads(out)["error"]["next_step"]
    for refused in (("serve", "--host", "0.0.0.0"), ("token", "add", "a b", "--role", "read")):
        assert run(*refused, at=tmp_path / "nowhere")[0] == 2
        assert not (tmp_path / "nowhere").exists()


def test_no_folder_is_left_where_the_database_can_not_be_reached(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("TUNEWRIGHT_REGISTRY_DATABASE", "postgresql://127.0.0.1:9/models")
    status, _, err = run("token", "add", "ci", "--role", "read", at=tmp_path / "nowhere")
    assert (status, "127.0.0.1:9" in err) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_a_token_is_made_before_anything_was_registered(run: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "new"
    status, out, err = run("token", "add", "ci", "--role", "write", at=home)
    assert (status, "a new, empty registry was made" in err) == (0, True)
    assert Tokens(home / "registry").find(out.strip()) is not None
    assert run("ls", at=home)[1] == "no versions yet\n"
    assert run("token", "add", "cd", "--role", "read", at=home)[2] == ""
