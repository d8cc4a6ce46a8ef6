"""`tunewright decide`: one document or one page, kept for the next run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main

Project = Callable[..., Path]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tunewright", "decide", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_the_document_has_the_documented_keys_and_the_page_says_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(project())
    status, out, err = run(monkeypatch, capsys, recipe, "--json")
    document = json.loads(out)
    assert status == 0
    assert "decide: zero-shot" in err
    assert document["verdict"] in ("prompt", "rag", "finetune", "rag_then_finetune", "other_base", "more_data")
    assert [candidate["name"] for candidate in document["candidates"]] == ["zero-shot", "few-shot"]
    assert sum(document["failures"].values()) == document["n"] == 4
    assert document["reasons"]

    status, page, err = run(monkeypatch, capsys, recipe)
    assert status == 0
    # what was measured is kept
    assert "decide: zero-shot" not in err
    assert f"verdict: {document['verdict']}" in page
    assert "measured on 4 dev rows" in page
    for part in (*document["reasons"], "zero-shot", "few-shot"):
        assert part in page


def test_a_value_that_makes_no_sense_is_refused_before_the_base_is_loaded(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, str(project()), "--set", "decision.target_score=0", "--json")
    assert status == 2
    assert "decision.target_score can't be 0" in json.loads(out)["error"]["message"]
    assert "decide:" not in err
