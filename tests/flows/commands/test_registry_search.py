"""`tunewright registry search` and `trained-on`: which versions, by base, data and score, and what serves them."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from fastapi import FastAPI

from deploy.engines.engine import EngineStatus
from deploy.openai_api.app import create_app
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
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", *arguments, "--home", str(home)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


def test_versions_are_found_by_every_condition(run: Callable[..., Any], home: Path) -> None:
    def labels(*options: str) -> list[str]:
        status, out, _ = run("search", *options, "--json")
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


def test_a_name_that_nothing_has_is_told_beside_the_empty_list(run: Callable[..., Any], home: Path) -> None:
    assert run("search", "--metric", "exact", "--min", "1.5") == (0, "no version satisfies this\n", "")
    status, out, err = run("search", "--metric", "exakt", "--json")
    assert (status, json.loads(out)) == (0, {"versions": []})
    assert "no metric or suite is named 'exakt'; did you mean exact?" in err
    assert "there are exact, grammar" in run("search", "--metric", "zzz")[2]
    with pytest.MonkeyPatch.context() as patch, Registry.open(home / "registry") as registry:
        patch.setattr("registry.recording.check_report", lambda _report: None)  # an earlier release took any
        for number, named in enumerate((3, ["a"], "x\x1b[2K"), start=1):
            digest = registry.resolve(f"text2sql:v{number}").digest
            registry.record_evaluation(digest, {"task": {"metric": named, "tuned": 10**400}, "tax": []})
    assert "there are none" in run("search", "--metric", "zzz")[2]
    assert "no model is named 'text2sq'; did you mean text2sql?" in run("search", "--name", "text2sq")[2]


def test_what_serves_something_trained_on_a_file_is_shown(run: Callable[..., Any], home: Path) -> None:
    status, out, _ = run("trained-on", str(home / "train.jsonl"))
    assert status == 0
    assert "@champion" in next(line for line in out.splitlines() if line.startswith("text2sql:v1"))
    assert "text2sql:v2" in out
    assert "text2sql:v3" not in out
    assert "nothing" in run("trained-on", "0" * 64)[1]


class Idle:
    """An engine that nobody asks anything: what the endpoint says of itself is what is tried here."""

    def __init__(self, state: Literal["ready", "loading"]) -> None:
        self._state = state

    def start(self) -> None:
        """Begin."""

    def close(self) -> None:
        """End."""

    def status(self) -> EngineStatus:
        return EngineStatus(self._state)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serve an app on a socket, as often as asked; gives its address."""
    with ExitStack() as stack:

        def one(app: Any) -> str:
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield one


@pytest.mark.integration
def test_endpoints_that_serve_something_trained_on_a_file_are_told(
    run: Callable[..., Any], home: Path, serve: Callable[[Any], str]
) -> None:
    """Asked are the endpoints themselves, so that one that serves by number, or an older version, is told, too."""
    with Registry.open(home / "registry") as registry:
        digests = {version.version: version.digest for version in registry.versions("text2sql")}
    one, two, three = (
        serve(create_app(Idle(state), model_name="text2sql", digest=digests[number], token="secret"))  # type: ignore[arg-type]
        for number, state in ((1, "ready"), (2, "loading"), (3, "ready"))
    )
    data = str(home / "train.jsonl")
    asked = [part for url in (f"{one}/v1", two, three) for part in ("--endpoint", url)]
    status, out, _ = run("trained-on", data, *asked, "--json")
    assert status == 0
    assert [(row["url"], row["serves"], row["status"]) for row in json.loads(out)["endpoints"]] == [
        (f"{one}/v1", "text2sql:v1", "ready"), (two, "text2sql:v2", "loading"), (three, None, "ready")]  # fmt: skip
    other = serve(FastAPI())
    gone = "http://127.0.0.1:9"
    status, out, _ = run("trained-on", data, *(f"--endpoint={url}" for url in (one, two, three, other, gone)))
    assert status == 3, "which endpoints serve it is not known of all"
    lines = out.splitlines()[-5:]
    assert lines[:2] == [f"{one}  serves text2sql:v1", f"{two}  serves text2sql:v2, and is loading"]
    assert lines[2] == f"{three}  serves nothing of this, but {digests[3][:12]}"
    assert [line.split("  ")[1].split(":")[0] for line in lines[3:]] == ["can't be asked"] * 2
    status, out, _ = run("trained-on", "0" * 64, f"--endpoint={one}")
    assert (status, out.splitlines()[0]) == (0, "nothing was trained on this file")


def test_lineage_is_shown_upwards_or_downwards(run: Callable[..., Any]) -> None:
    def labels(direction: str) -> set[str]:
        status, out, _ = run("lineage", "text2sql:v1", "--direction", direction, "--json")
        assert status == 0
        return {node["label"] for node in json.loads(out)["nodes"]}

    assert labels("up") == {"text2sql:v1", "tiny:v1", "train.jsonl"}
    assert labels("down") == {"text2sql:v1"}
    assert labels("both") == labels("up")
    assert run("lineage", "tiny", "--direction", "left")[0] == 2


def test_mistakes_are_told(run: Callable[..., Any]) -> None:
    assert run("search", "--min", "0.5")[0] == 2
    assert run("search", "--base", "xyz")[0] == 2
    assert run("search", "--kind", "zap")[0] == 2
    assert run("search", "--data", "nowhere.jsonl")[0] == 2
    assert run("trained-on", "nowhere.jsonl")[0] == 2
    for url in (
        "127.0.0.1:3000",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://ann:secret@host",
        "http://h?a=b",
    ):
        status, out, _ = run("trained-on", "0" * 64, "--endpoint", url)
        assert status == 2
        assert "secret" not in out
