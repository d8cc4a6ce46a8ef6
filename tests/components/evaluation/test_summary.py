"""The terminal summary and the markdown report: the same numbers, safe text, the path last."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.summary import render_markdown, render_text


@pytest.fixture
def run() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("run_document.json").read_text(encoding="utf-8"))


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("width", [20, 72, 100, 200])
def test_last_line_is_the_report_path(run: dict[str, Any], width: int) -> None:
    run["report"] = ".tunewright/reports/" + "long/" * 40 + "text2sql-v1.html"
    assert render_text(run, width).splitlines()[-1] == run["report"]


def test_report_that_was_not_written_is_said(run: dict[str, Any]) -> None:
    assert render_text(run | {"report": None}).splitlines()[-1] == "not written"


@pytest.mark.parametrize("width", [72, 100, 160])
def test_lines_fit_the_terminal_but_commands_stay_whole(run: dict[str, Any], width: int) -> None:
    lines = render_text(run, width).splitlines()
    commands = {f"  {command}" for command in run["commands"].values()}
    assert commands <= set(lines)
    assert [line for line in lines if len(line) > width and line not in commands] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_numbers_of_task_and_tax_are_told_with_their_sample_size(run: dict[str, Any]) -> None:
    text = flat(render_text(run, 100))
    assert "all 256 10.5 % 32.4 % +21.9 +16.0 to +27.7" in text
    assert "single-table 141 14.9 % 44.0 % +29.1 +20.6 to +37.6" in text
    assert "joined 115 5.2 % 18.3 % +13.0 +6.1 to +20.0" in text
    assert "arithmetic accuracy 400 27.3 % 26.0 % −1.2 −3.8 to +1.2 held" in text
    assert "2.41 GiB predicted, 2.58 GiB measured (1.07 of predicted), budget 6.00 GiB" in text
    assert "60 steps over 3,840 rows, 151,872 tokens in 4 min 09 s (609.2 tokens/s)" in text
    assert "passed: 7 of 7 checks passed" in text
    assert "champion is text2sql:v1 (revision 1, the first)" in text
    assert run["endpoint"]["answer"] in text


def test_an_alias_that_pointed_here_already_is_said_to_be_unchanged(run: dict[str, Any]) -> None:
    run["promotion"] |= {"changed": False, "previous": "text2sql:v1"}
    for text in (flat(render_text(run, 100)), render_markdown(run)):
        assert "champion is text2sql:v1 as before (revision 1, unchanged)" in text
        assert "text2sql:v1 stays champion" in text
        assert "is now champion" not in text
    run["promotion"] |= {"changed": True, "previous": "text2sql:v3", "revision": 2}
    assert "champion is text2sql:v1 (revision 2, before text2sql:v3)" in flat(render_text(run, 100))


def test_candidates_name_the_subset_that_was_measured(run: dict[str, Any]) -> None:
    run["decision"]["subsets"] = ["single-table"]
    assert "| zero-shot | single-table |" in render_markdown(run)
    run["decision"]["subsets"] = []
    assert "| zero-shot | all |" in render_markdown(run)


def test_a_run_without_suites_says_that_none_were_named(run: dict[str, Any]) -> None:
    assert "Tax not run: the recipe names no suites (evaluation.suites)" in flat(render_text(run | {"tax": []}))
    assert "Tax not run: the run ended before this stage" in flat(render_text(run | {"tax": None, "task": None}))


def test_plain_unless_colour_is_asked_for(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render_text(run)
    coloured = render_text(run, color=True)
    assert "\x1b[1;32mPromoted\x1b[0m" in coloured
    assert coloured.splitlines()[-1] == run["report"]


def test_text_of_models_cannot_steer_the_terminal(run: dict[str, Any]) -> None:
    attack = "\x1b]0;owned\x07\x1b[2J\r\u202e [bold]x[/bold] :smile: \ud800"
    run["endpoint"] |= {"question": attack, "answer": attack}
    run["task"]["subsets"][0]["subset"] = attack
    run["commands"]["query"] = attack
    text = render_text(run, 100)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\ud800]", text)
    assert "[bold]x[/bold] :smile:" in text


def test_refused_and_early_runs_say_why(run: dict[str, Any]) -> None:
    run["gate"] |= {"passed": False, "reasons": ["the task gained 2.0 points, the policy asks for 10.0 points"]}
    text = flat(render_text(run | {"promotion": None, "bundle": None, "endpoint": None}))
    assert "text2sql:v1 Gate refused" in text
    assert "refused: 7 of 7 checks passed: the task gained 2.0 points" in text
    assert "Promoted not run: the gate refused this version" in text
    early = {"name": "text2sql", "decision": {"verdict": "rag", "reasons": ["Most failures are of facts."]}}
    text = flat(render_text(early))
    assert "text2sql Not finetuned" in text
    assert "Task not run: the decision was 'rag' (retrieval is the answer), so the run ended there" in text
    assert render_text({}).splitlines()[-1] == "not written"


def test_equal_documents_give_equal_text(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = render_text(run, 100)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    assert render_text(json.loads(json.dumps(run)), 100) == before


def test_markdown_has_whole_tables(run: dict[str, Any]) -> None:
    markdown = render_markdown(run)
    assert markdown.startswith("# text2sql:v1: Promoted\n")
    assert "| joined | 115 | 5.2 % | 18.3 % | +13.0 | +6.1 to +20.0 |" in markdown
    assert "| commonsense | accuracy | 500 | 44.2 % | 44.8 % | +0.6 | −1.2 to +2.4 | held |" in markdown
    assert "| task\\_delta | passed | +21.9 points | +10.0 points |" in markdown
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")]
    blocks = [
        {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}
        for block in markdown.split("\n\n")
    ]
    assert widths
    assert all(len(block) <= 1 for block in blocks), "a row with more or fewer cells breaks its table"
    assert "\n\n\n" not in markdown
    assert run["report"] in markdown


def test_markdown_escapes_and_fences(run: dict[str, Any]) -> None:
    case = run["task"]["examples"]["won"][0]
    case |= {"question": "<b>a|b</b> [x](javascript:y)\n# no heading", "tuned": "```\n# not a heading\n```"}
    markdown = render_markdown(run)
    assert r"\<b\>a\|b\</b\> \[x\](javascript:y)<br>\# no heading" in markdown
    assert "````sql\n" in markdown
    assert "<script>" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)


def test_markdown_of_early_runs_says_why() -> None:
    markdown = render_markdown({"name": "text2sql", "decision": {"verdict": "prompt", "reasons": []}})
    assert markdown.count("Not run: the decision was 'prompt' (prompting is enough), so the run ended there.") == 4
    assert "Not run: the run ended before the decision" in render_markdown({})
