from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message, Row
from components.errors import InputError
from components.evaluation.statistics import paired_interval
from components.evaluation.task import EXAMPLES_SHOWN, compare_task, evaluate_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


def make_row(number: int, subset: str, answer: str = "right") -> Row:
    messages = (Message("user", f"question {number}"), Message("assistant", answer))
    return Row(messages, {"id": f"r{number}", "subset": subset, "database": "shop"}, line=number)


def test_scores_follow_what_the_model_really_answers(tiny_model: Any, tiny_tokenizer: Any) -> None:
    asked = [make_row(number, "a") for number in range(4)]
    first = evaluate_task(tiny_model, tiny_tokenizer, asked, metric="exact_match", options={}, max_new_tokens=5)
    assert first.score == 0.0
    answered = [
        make_row(number, "a", text if number != 2 else "something else")
        for number, text in enumerate(first.predictions)
    ]
    second = evaluate_task(tiny_model, tiny_tokenizer, answered, metric="exact_match", options={}, max_new_tokens=5)
    assert second.scores == (1.0, 1.0, 0.0, 1.0)
    assert (second.score, second.n) == (0.75, 4)
    assert second.low < 0.75 < second.high
    assert second.prompt_tokens_per_request < second.tokens_per_request <= second.prompt_tokens_per_request + 5
    assert second.seconds_per_request > 0


def test_other_prompts_replace_the_rows_own(tiny_model: Any, tiny_tokenizer: Any) -> None:
    rows = [make_row(0, "a")]
    longer = [(Message("user", "singer(id, name) " * 9), Message("assistant", "yes"), *rows[0].prompt)]
    plain = evaluate_task(tiny_model, tiny_tokenizer, rows, metric="exact_match", options={}, max_new_tokens=3)
    other = evaluate_task(
        tiny_model, tiny_tokenizer, rows, metric="exact_match", options={}, max_new_tokens=3, prompts=longer
    )
    assert other.prompt_tokens_per_request > plain.prompt_tokens_per_request + 20


def test_bad_metric_is_refused_before_anything_is_generated(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="unknown metric"):
        evaluate_task(None, tiny_tokenizer, [make_row(0, "a")], metric="bleu", options={}, max_new_tokens=3)
    with pytest.raises(InputError, match="no rows"):
        evaluate_task(None, tiny_tokenizer, [], metric="exact_match", options={}, max_new_tokens=3)


def test_comparison_holds_the_whole_the_subsets_and_the_examples() -> None:
    rows = [make_row(number, "single-table" if number < 30 else "joined") for number in range(40)]
    base = [0.0] * 38 + [1.0, 1.0]
    tuned = [1.0] * 20 + [0.0] * 19 + [1.0]
    answers = [f"b{number}" for number in range(40)], [f"t{number}" for number in range(40)]
    found = compare_task(rows, base, tuned, *answers, metric="exact_match", baseline="few-shot")
    interval = paired_interval(base, tuned)
    assert (found["metric"], found["baseline"], found["n"]) == ("exact_match", "few-shot", 40)
    assert (found["base"], found["tuned"], found["delta"]) == (0.05, 0.525, pytest.approx(0.475))
    assert (found["low"], found["high"]) == (interval.low, interval.high)
    assert found["pairs_needed"] is None, "this difference is decided"
    by_name = {subset["subset"]: subset for subset in found["subsets"]}
    assert (by_name["single-table"]["n"], by_name["joined"]["n"]) == (30, 10)
    assert by_name["joined"]["delta"] == pytest.approx(-0.1)
    assert by_name["joined"]["low"] < 0 < by_name["joined"]["high"]
    assert by_name["joined"]["pairs_needed"] > 10
    assert len(found["examples"]["won"]) == EXAMPLES_SHOWN
    assert (found["won"], found["lost"]) == (20, 1)
    assert found["examples"]["lost"] == [
        {
            "id": "r38",
            "subset": "joined",
            "database": "shop",
            "question": "question 38",
            "gold": "right",
            "base": "b38",
            "tuned": "t38",
        }
    ]


def test_comparison_refuses_lists_of_different_length() -> None:
    with pytest.raises(InputError, match="differ in number"):
        compare_task([make_row(0, "a")], [0.0], [1.0], ["x"], [], metric="exact_match", baseline="zero-shot")
