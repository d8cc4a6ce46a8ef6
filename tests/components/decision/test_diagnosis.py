from __future__ import annotations

import json
import os
from pathlib import Path

from components.data.rows import Message, Row
from components.data.text2sql.schema import Column, Schema, Table
from components.decision.diagnosis import ContextAnswers, classify_failure, diagnose
from components.decision.form import learn_form


def row(answer: str, **metadata: str) -> Row:
    return Row((Message("user", "how many?"), Message("assistant", answer)), metadata, line=3)


def test_query_that_does_not_run_is_form_and_one_that_runs_is_capability(tmp_path: Path) -> None:
    schema = Schema("shop", (Table("item", (Column("id", "number"), Column("name", "text")), "id"),), ())
    path = tmp_path / "databases.json"
    path.write_text(json.dumps({"databases": {"shop": schema.to_dict()}}))
    options = {"schemas": str(path)}
    asked = row("SELECT count(*) FROM item", database="shop", id="q1")
    kinds = {
        "SELECT name FROM item": "capability",
        "There are several items in the shop.": "form",
        "SELECT price FROM item": "form",
        "DELETE FROM item": "form",
        "": "form",
    }
    for prediction, kind in kinds.items():
        assert classify_failure("execution_match", prediction, asked, options) == kind, prediction
    predictions = [*kinds, "SELECT count(*) FROM item"]
    found = diagnose("execution_match", options, [asked] * 6, predictions, [0.0] * 5 + [1.0])
    assert (found.form, found.facts, found.capability, found.n) == (4, 0, 1, 6)
    assert "no corpus given" in found.note
    assert [example["kind"] for example in found.examples].count("form") == 3, "three of a kind are shown"
    assert found.examples[0] == {
        "kind": "capability",
        "id": "q1",
        "question": "how many?",
        "gold": "SELECT count(*) FROM item",
        "answer": "SELECT name FROM item",
    }


def test_query_is_run_anew_where_the_schemas_changed(tmp_path: Path) -> None:
    path = tmp_path / "databases.json"
    schema = Schema("shop", (Table("item", (Column("id", "number"), Column("name", "text")), "id"),), ())
    path.write_text(json.dumps({"databases": {"shop": schema.to_dict()}}))
    asked, options = row("SELECT count(*) FROM item", database="shop"), {"schemas": str(path)}
    assert classify_failure("execution_match", "SELECT name FROM item", asked, options) == "capability"
    path.write_text(path.read_text().replace('"item"', '"thing"'))
    os.utime(path, ns=(1, 1))
    assert classify_failure("execution_match", "SELECT name FROM item", asked, options) == "form"


def test_right_answer_in_other_words_is_form_for_text() -> None:
    asked = row("twenty two")
    assert classify_failure("exact_match", "The answer is: Twenty-two.", asked, {}) == "form"
    assert classify_failure("exact_match", "  ", asked, {}) == "form"
    assert classify_failure("exact_match", "twenty three", asked, {}) == "capability"
    assert classify_failure("exact_match", "onetwenty two", asked, {}) == "capability", "whole words only"


def test_well_formed_wrong_answer_is_facts_where_context_mends_it_and_capability_where_not() -> None:
    labels = learn_form(["yes", "no"] * 8)
    rows = [row("yes", id=f"r{n}") for n in range(6)]
    answers = ["yes", "no", "no", "I would say no", "I would say no", "no"]
    with_context = ["yes", "yes", "no", "yes", "maybe", "yes"]
    context = ContextAnswers("oracle", True, with_context, [float(text == "yes") for text in with_context])
    scores = [float(text == "yes") for text in answers]
    found = diagnose("exact_match", {}, rows, answers, scores, form=labels, context=context)
    assert (found.form, found.facts, found.capability) == (2, 2, 1)
    assert (found.form_mended, found.mended) == (1, 3), (
        "an answer that lost its form for want of facts is counted beside"
    )
    assert (found.context_form, found.context_capability) == (1, 1)
    assert found.note == "facts: tested with the gold passages (oracle)"
    shown = {example["id"]: (example["kind"], example["with_context"]) for example in found.examples}
    assert shown == {
        "r1": ("facts", "yes"),
        "r2": ("capability", "no"),
        "r3": ("form", "yes"),
        "r4": ("form", "maybe"),
        "r5": ("facts", "yes"),
    }
