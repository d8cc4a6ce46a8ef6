"""What a metric says beside its mean, and a tax that nobody measured, in the report."""

from __future__ import annotations

from components.evaluation.report import render_html
from components.evaluation.result_tables import summaries_table, tax_note
from components.evaluation.summary import render_markdown, render_text

TASK = {
    "metric": "label_accuracy", "n": 300, "base": 0.4, "tuned": 0.7, "delta": 0.3, "low": 0.2, "high": 0.4,
    "subsets": [], "summaries": {"base": {"macro_f1": 0.25}, "tuned": {"macro_f1": 0.6875, "spearman": 0.5}},
}  # fmt: skip
ROW = {"suite": "piqa", "n": 40, "metric": "accuracy", "base": 0.5, "tuned": 0.5, "delta": 0.0, "low": 0.0, "high": 0.0,
       "max_drop": 0.1, "passed": True}  # fmt: skip


def test_summaries_stand_side_by_side() -> None:
    found = summaries_table({"task": TASK})
    assert [row[0] for row in found.rows] == ["macro f1", "spearman"]
    assert found.rows[0][1:] == ("0.25", "0.6875")
    assert summaries_table({"task": {**TASK, "summaries": {"base": {}, "tuned": {}}}}).rows == ()
    assert summaries_table({"task": {"n": 3}}).rows == ()


def test_a_tax_by_construction_is_said_to_be_no_measurement() -> None:
    run = {"name": "sentiment", "task": TASK, "tax": [{**ROW, "by_construction": True}]}
    note = tax_note(run)
    assert note is not None
    assert "Zero by construction" in note
    assert "Zero by construction" in render_html(run)
    assert "Zero by construction" in render_text(run)
    assert "Zero by construction" in render_markdown(run)
    assert tax_note({"tax": [ROW]}) is None
    assert tax_note({"tax": []}) is None
