"""The command line as a whole: unknown commands, and one JSON document on standard output whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.data import check
from flows.cli import main
from flows.interruption import Terminated


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("plam",), "Did you mean 'tunewright plan'?"),
        (("data", "chek", "rows.jsonl"), "Did you mean 'tunewright data check'?"),
        (("registry", "resolv"), "Did you mean 'tunewright registry resolve'?"),
        (("quux",), "Commands: run, data, decide,"),
    ],
)
def test_an_unknown_command_names_the_nearest_or_all(
    arguments: tuple[str, ...], advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    assert advice in err


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "next_step"),
    [
        (("data", "check", "absent.jsonl"), 2, "InputError", "check the path"),
        (("registry", "resolve", "a@b", "--home", "absent"), 4, "RegistryNotFound", "tunewright run RECIPE"),
        (("data", "chek"), 2, "UnknownCommand", "tunewright data check"),
        (("data", "check"), 2, "MissingParameter", "tunewright data check --help"),
        (("serve", "x", "--port", "many"), 2, "BadParameter", "tunewright serve --help"),
        (("plan", "--nope"), 2, "NoSuchOption", "tunewright plan --help"),
    ],
)
def test_an_error_is_one_json_document_and_the_same_in_words(
    arguments: tuple[str, ...],
    status: int,
    kind: str,
    next_step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, out, err = run(monkeypatch, capsys, *arguments, "--json")
    error: dict[str, Any] = json.loads(out)["error"]
    assert (ended, error["exit_status"], error["type"]) == (status, status, kind)
    assert set(error) == {"type", "message", "allowed", "next_step", "exit_status"}
    assert error["next_step"].startswith(next_step)
    assert error["message"] in err
    assert run(monkeypatch, capsys, *arguments)[1] == ""


def test_json_after_the_end_of_options_is_a_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(monkeypatch, capsys, "data", "check", "--", "--json")
    assert (status, out) == (2, "")
    assert "no data file --json" in err


def test_a_command_that_ends_badly_after_its_document_prints_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, "plan", "--params", "13e9", "--budget", "8GiB", "--json")
    assert status == 3
    assert json.loads(out)["fits"] is False
    assert "8.00 GiB" in err
    # and the next command of the same process starts afresh
    assert "error" in json.loads(run(monkeypatch, capsys, "data", "check", str(tmp_path / "no"), "--json")[1])


def test_a_failure_of_ours_is_a_document_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(check, "check_file", broken)
    status, out, err = run(monkeypatch, capsys, "data", "check", "x", "--json")
    error = json.loads(out)["error"]
    assert (status, error["exit_status"], error["type"], error["message"]) == (1, 1, "RuntimeError", "out of order")
    assert "--debug" in error["next_step"]
    assert "Traceback" not in err


@pytest.mark.parametrize("ends_well", [True, False])
def test_what_a_library_prints_is_kept_off_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends_well: bool
) -> None:
    real = check.check_file

    def printing(*arguments: Any, **options: Any) -> Any:
        print("a library's notice")
        return real(*arguments, **options)

    monkeypatch.setattr(check, "check_file", printing)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = tmp_path / "rows.jsonl"
    if ends_well:
        path.write_text(json.dumps({"messages": turns, "metadata": {}}) + "\n")
    status, out, err = run(monkeypatch, capsys, "data", "check", str(path), "--json")
    assert (status, "error" in json.loads(out)) == ((0, False) if ends_well else (2, True))
    assert "a library's notice" in err
    # a person reads both, and the next command of the same process prints as ever
    assert run(monkeypatch, capsys, "data", "check", str(path))[1].startswith("a library's notice")


def test_the_schema_is_a_document_for_people_and_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, page, _ = run(monkeypatch, capsys, "schema")
    _, out, _ = run(monkeypatch, capsys, "schema", "--json")
    assert json.loads(page) == json.loads(out)
    assert (out.count("\n"), page.count("\n") > 100) == (1, True)


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(("verb", "goes_on"), [("finetune", True), ("decide", False)])
def test_a_signal_ends_a_command_with_its_own_status_and_a_document(
    number: signal.Signals, status: int, word: str, verb: str, goes_on: bool
) -> None:
    # a process of its own: the handlers stay as they are after a signal
    code = (
        "import os, sys\n"
        "from flows import cli\n"
        f"cli.cli.main = lambda **_: os.kill(os.getpid(), {int(number)}) or __import__('time').sleep(20)\n"
        f"sys.argv = ['tunewright', '{verb}', '--json']\n"
        "cli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    error = json.loads(ended.stdout)["error"]
    assert (ended.returncode, error["exit_status"], error["message"]) == (status, status, word)
    assert ("goes on where it stopped" in error["next_step"]) is goes_on
    assert error["next_step"] in ended.stderr
    assert "--debug" not in ended.stderr


@pytest.mark.parametrize(
    ("stop", "word", "number"), [(Terminated, "terminated", 15), (KeyboardInterrupt, "interrupted", 2)]
)
def test_an_error_that_came_up_over_a_stop_is_the_stop(
    stop: type[BaseException],
    word: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prefect's task engine fails so where a stop comes before the task's run was made."""

    def stopped(**_settings: object) -> None:
        try:
            raise stop
        except BaseException as met:
            error = ValueError("Task run is not set")
            error.__context__ = met
            raise error from RuntimeError("and something else")

    before = [(each, signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr("flows.cli.cli.main", stopped)
    try:
        status, out, err = run(monkeypatch, capsys, "run", "recipe.yaml", "--json")
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert status == 128 + number
    assert json.loads(out)["error"]["message"] == word
    assert "Task run" not in err


def test_help_is_on_standard_output_whatever_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--help", "-h"):
        status, out, _ = run(monkeypatch, capsys, "data", "check", option, "--json")
        assert (status, out.partition(":")[0]) == (0, "Usage")
