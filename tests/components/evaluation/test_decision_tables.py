from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.decision_tables import curve_table, failure_examples_table, rules_table
from components.evaluation.planning_tables import candidates_table
from components.evaluation.report import render_html

RULES = [
    {"name": "prompting does not solve it", "holds": False, "verdict": "prompt", "evidence": "few-shot scores 7.0 %",
     "would_change": "a better prompt"},
    {"name": "retrieval solves it", "holds": True, "verdict": "rag", "evidence": "rag scores 95.0 %",
     "would_change": "a higher target"},
]  # fmt: skip
EXAMPLES = [
    {"kind": "facts", "id": "a", "question": "Where is <Ann>?", "gold": "B12", "answer": "C3", "with_context": "B12"},
    {
        "kind": "form",
        "id": "b",
        "question": "Where is Bob?",
        "gold": "B13",
        "answer": "In a room",
        "with_context": "B1",
    },
]
CURVE = {
    "points": [{"fraction": 0.5, "rows": 50, "score": 0.1, "low": 0.05, "high": 0.2},
               {"fraction": 1.0, "rows": 100, "score": 0.3, "low": 0.2, "high": 0.4}],
    "slope": {"delta": 0.2, "low": 0.1, "high": 0.3},
}  # fmt: skip


@pytest.fixture
def run() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(__file__).parent / "run_document.json").read_text())
    document["decision"] |= {
        "rules": RULES,
        "failure_examples": EXAMPLES,
        "learning_curve": CURVE,
        "best_simple": "few-shot",
    }
    document["decision"]["candidates"][0] |= {"delta": None, "delta_low": None, "delta_high": None}
    document["decision"]["candidates"][1] |= {"delta": 0.052, "delta_low": -0.01, "delta_high": 0.11}
    return document


def test_rules_are_told_in_order_with_their_evidence(run: dict[str, Any]) -> None:
    rows = rules_table(run).rows
    assert [(row[0], row[2]) for row in rows] == [("prompting does not solve it", False), ("retrieval solves it", True)]
    assert rows[1][1:] == ("retrieval is the answer", True, "rag scores 95.0 %", "a higher target")


def test_examples_show_what_context_made_of_the_answer(run: dict[str, Any]) -> None:
    table = failure_examples_table(run)
    assert table.rows[0] == ("facts", "Where is <Ann>?", "B12", "C3", "B12")
    assert table.columns[-1].label == "answer with context"
    for example in run["decision"]["failure_examples"]:
        del example["with_context"]
    assert [column.label for column in failure_examples_table(run).columns] == ["lacking", "question", "gold", "answer"]


def test_learning_curve_says_what_a_doubling_gives(run: dict[str, Any]) -> None:
    table = curve_table(run)
    assert [row[:3] for row in table.rows] == [("50", "50.0 %", "10.0 %"), ("100", "100.0 %", "30.0 %")]
    assert "a doubling gives +20.0 points (95 % interval +10.0 to +30.0)" in table.caption


def test_candidates_show_their_paired_gain(run: dict[str, Any]) -> None:
    gains = [row[-1] for row in candidates_table(run).rows]
    assert gains == ["–", "+5.2 (−1.0 to +11.0)", "–"]


def test_the_report_has_the_tables_and_escapes_what_the_model_said(run: dict[str, Any]) -> None:
    page = render_html(run)
    for text in ("the first that holds decides", "Where is &lt;Ann&gt;?", "Probe finetune by training rows"):
        assert text in page
    for part in ("rules", "failure_examples", "learning_curve"):
        del run["decision"][part]
    assert "the first that holds decides" not in render_html(run)
