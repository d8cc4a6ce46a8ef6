"""Rules of thumb: what they choose, and that they never change what the user set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.decision.base_facts import BaseFacts
from components.decision.situation import Situation, whole_memory
from components.decision.tactic_rules import epochs_for
from components.decision.tactics import CHOSEN, Tactic, Tactics, choose_tactics

BASE = BaseFacts(7_000_000_000, 4096, True, None, "")
SITUATION = Situation(5_000, 100.0, 400.0, BASE, 80 * 2**30, "this machine's memory")
AUTO = {
    "method": "auto",
    "rank": "auto",
    "targets": "auto",
    "learning_rate": "auto",
    "effective_rows": 16,
    "epochs": "auto",
    "prompt_loss_weight": "auto",
}


def choose(situation: Situation = SITUATION, **given: Any) -> Tactics:
    return choose_tactics(situation, {**AUTO, **given}, dict.fromkeys(given, "recipe"))


def rule(found: Tactics, key: str) -> Tactic:
    return next(one for one in found.rules if one.key == key)


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [(10, 10), (1_000, 10), (3_162, 7), (10_000, 4), (100_000, 3), (1_000_000, 2), (10_000_000, 1), (10**9, 1)],
)
def test_epochs_fall_from_ten_at_a_thousand_rows_to_one_at_ten_million(rows: int, epochs: int) -> None:
    assert epochs_for(rows) == epochs
    assert choose(replace(SITUATION, rows=rows)).epochs == epochs


def test_every_auto_is_chosen_with_a_reason_and_no_warning() -> None:
    found = choose()
    assert found.warnings == ()
    for one in found.rules:
        assert one.reason
        if one.key not in ("method", "effective_rows"):
            assert one.source == CHOSEN
            assert one.value == one.advised != "auto"
    assert found == choose()
    assert found.to_dict()["settings"][1]["source"] == CHOSEN


def test_rate_lies_between_a_tenth_and_the_whole_of_the_rate_that_pretraining_ended_with() -> None:
    named = replace(SITUATION, base=replace(BASE, final_learning_rate=3e-5, final_learning_rate_source="README.md"))
    lora, full = choose(named), choose(named, method="full")
    assert 3e-6 <= full.learning_rate < lora.learning_rate <= 3e-5
    assert "README.md" in rule(lora, "learning_rate").reason


def test_rate_goes_by_method_and_size_where_nothing_is_named() -> None:
    large = replace(SITUATION, base=replace(BASE, hidden_size=8192))
    assert choose(large).learning_rate < choose().learning_rate
    assert choose().learning_rate == pytest.approx(10 * choose(method="full").learning_rate, rel=0.1)
    # QLoRA's 2e-4 for 7B and full finetuning's 2e-5 are of this order
    assert 1e-4 < choose().learning_rate < 5e-4
    assert 1e-5 < choose(method="full").learning_rate < 5e-5
    tiny = replace(SITUATION, base=replace(BASE, hidden_size=64))
    assert choose(tiny).learning_rate == 2e-3
    assert "upper limit" in rule(choose(tiny), "learning_rate").reason
    assert (
        "does not name"
        in rule(choose(replace(SITUATION, base=replace(BASE, hidden_size=None))), "learning_rate").reason
    )


def test_the_memory_plan_may_choose_full_finetuning_where_rows_are_enough() -> None:
    assert choose().methods == ("lora", "qlora")
    assert choose(replace(SITUATION, rows=10_000)).methods == ("full", "lora", "qlora")


def test_rate_of_a_soft_prompt_does_not_hang_on_the_base() -> None:
    large = replace(SITUATION, base=replace(BASE, hidden_size=8192, final_learning_rate=3e-5))
    for method, rate in {"prompt_tuning": 0.3, "prefix_tuning": 0.1, "p_tuning": 1e-3}.items():
        assert choose(method=method).learning_rate == choose(large, method=method).learning_rate == rate
        assert "soft prompt alone" in rule(choose(method=method), "learning_rate").reason
    assert choose(method="bottleneck").learning_rate == choose().learning_rate


def test_query_and_value_are_enough_where_memory_is_tight() -> None:
    tight = replace(SITUATION, memory_bytes=24 * 2**30)
    assert (choose(tight).targets, choose(tight).rank) == ("attention-qv", 8)
    assert (choose().targets, choose().rank) == ("all-linear", 16)
    other = replace(tight, base=replace(BASE, has_query_and_value=False))
    assert choose(other).targets == "all-linear"
    assert "q_proj" in rule(choose(other), "targets").reason


def test_rank_grows_with_what_there_is_to_learn() -> None:
    ranks = [choose(replace(SITUATION, rows=rows)).rank for rows in (100, 5_000, 200_000, 2_000_000)]
    assert ranks == [8, 16, 32, 64]


def test_prompts_count_more_where_answers_are_short() -> None:
    short = replace(SITUATION, answer_characters=10.0)
    assert choose().prompt_loss_weight == 0.01
    assert choose(short).prompt_loss_weight == 0.1


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"effective_rows": 4}, "accumulation"),
        ({"learning_rate": 0.05}, "times the advised"),
        ({"learning_rate": 1e-6}, "th of the advised"),
        ({"epochs": 12.0}, "by heart"),
        ({"rank": 256}, "4 to 64"),
        ({"prompt_loss_weight": 0.5}, "answer should carry"),
        ({"method": "full"}, "5,000 training rows are few"),
    ],
)
def test_value_that_breaks_a_rule_is_warned_about_and_used_as_it_is(given: dict[str, Any], word: str) -> None:
    found = choose(**given)
    ((key, value),) = given.items()
    assert rule(found, key).value == value
    assert rule(found, key).source == "recipe"
    (warning,) = found.warnings
    assert word in warning
    assert f"finetune.{key} = " in warning


@pytest.mark.parametrize(
    "given",
    [
        {"effective_rows": 8},
        {"epochs": 10.0},
        {"rank": 64},
        {"prompt_loss_weight": 0.1},
        {"learning_rate": 1e-4},
        {"targets": "attention-qv"},
    ],
)
def test_value_within_a_rule_is_not_warned_about(given: dict[str, Any]) -> None:
    assert choose(**given).warnings == ()


def test_many_passes_are_warned_about_on_large_data_and_not_on_a_few_hundred_rows() -> None:
    assert choose(replace(SITUATION, rows=2_000_000), epochs=4.0).warnings
    assert choose(replace(SITUATION, rows=300), epochs=20.0).warnings == ()
    assert choose(replace(SITUATION, rows=2_000_000), method="full").warnings == ()


def test_settings_go_by_the_budget_or_the_whole_machine_never_by_what_is_free() -> None:
    assert whole_memory("2GiB") == (2 * 2**30, "the budget of 2GiB")
    assert whole_memory("auto") == whole_memory("auto")


def test_a_head_has_a_rate_and_passes_of_its_own() -> None:
    few, many = (choose(replace(SITUATION, rows=rows), method="features") for rows in (200, 2_000_000))
    assert (few.learning_rate, few.epochs) == (many.learning_rate, many.epochs) == (1e-3, 100.0)
    assert choose(method="features", epochs=300.0).warnings == ()
