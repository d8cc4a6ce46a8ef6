from __future__ import annotations

import json
from typing import Any

import pytest

from components.decision.money import money
from components.recipe_sections import TrafficSection

DECISION: dict[str, Any] = {
    "best_candidate": "few-shot",
    "candidates": [
        {
            "name": "zero-shot",
            "prompt_tokens_per_request": 100.0,
            "tokens_per_request": 130.0,
            "shared_prefix_tokens": [20, 20],
        },
        {
            "name": "few-shot",
            "prompt_tokens_per_request": 2100.0,
            "tokens_per_request": 2120.0,
            "shared_prefix_tokens": [2000, 2000],
        },
        {
            "name": "oracle",
            "kind": "oracle",
            "prompt_tokens_per_request": 900.0,
            "tokens_per_request": 920.0,
            "shared_prefix_tokens": [0, 0],
        },
    ],
    "finetuned_request": {
        "prompt_tokens_per_request": 100.0,
        "tokens_per_request": 120.0,
        "shared_prefix_tokens": [20, 20],
    },
}


def priced(**traffic: Any) -> dict[str, Any]:
    return json.loads(json.dumps(money(DECISION, TrafficSection(**traffic).model_dump())))


def row(document: dict[str, Any], candidate: str, caching: bool) -> dict[str, Any]:
    return next(r for r in document["break_even"] if (r["candidate"], r["caching"]) == (candidate, caching))


def test_each_candidate_costs_its_tokens_with_and_without_the_cache() -> None:
    found = priced(requests_per_month=50_000)
    few = next(candidate for candidate in found["candidates"] if candidate["name"] == "few-shot")
    assert few["per_1000_requests"] == pytest.approx((2100 * 0.15 + 20 * 0.6) / 1000)
    assert few["per_1000_requests_cached"] == pytest.approx((100 * 0.15 + 2000 * 0.075 + 20 * 0.6) / 1000)
    assert few["per_month"] == pytest.approx(50 * few["per_1000_requests"])
    # a prompt that no request can have has no price
    assert [candidate["name"] for candidate in found["candidates"]] == ["zero-shot", "few-shot"]


def test_caching_moves_the_break_even_up_and_the_traffic_says_which_side_it_is_on() -> None:
    found = priced(requests_per_month=1_000_000, hosting_price_per_hour=0.1, training_cost=0)
    plain, cached = row(found, "few-shot", False), row(found, "few-shot", True)
    fixed, saved = 73.0, (2100 * 0.15 + 20 * 0.6) / 1e6
    assert plain["requests_per_month"] == -(-fixed // saved)
    assert cached["requests_per_month"] > plain["requests_per_month"]
    assert (plain["kind"], plain["pays_at_traffic"]) == ("from", True)
    below = priced(requests_per_month=plain["requests_per_month"] - 1, hosting_price_per_hour=0.1, training_cost=0)
    assert row(below, "few-shot", False)["pays_at_traffic"] is False
    at = priced(requests_per_month=plain["requests_per_month"], hosting_price_per_hour=0.1, training_cost=0)
    assert row(at, "few-shot", False)["pays_at_traffic"] is True


def test_dearer_tokens_of_the_finetuned_model_never_pay_and_free_hosting_always_does() -> None:
    dear = priced(tuned_price_per_million_input_tokens=10, tuned_price_per_million_output_tokens=10)
    assert row(dear, "few-shot", False)["kind"] == "never"
    assert row(dear, "few-shot", False)["requests_per_month"] is None
    free = priced(hosting_price_per_hour=0, training_cost=0)
    assert {r["kind"] for r in free["break_even"]} == {"always"}
    assert all(r["pays_at_traffic"] for r in free["break_even"])


def test_what_retrieves_keeps_its_passages_when_it_is_finetuned() -> None:
    rag = {"prompt_tokens_per_request": 1100.0, "tokens_per_request": 1120.0, "shared_prefix_tokens": [0, 0]}
    shown = {**rag, "name": "rag-few-shot", "kind": "retrieval", "prompt_tokens_per_request": 3100.0}
    decision = {
        **DECISION,
        "best_candidate": "rag-few-shot",
        "candidates": [*DECISION["candidates"], {**shown, "tokens_per_request": 3120.0}],
        "finetuned_request_with_passages": rag,
    }
    found = money(decision, TrafficSection(tuned_price_per_million_input_tokens=0.15).model_dump())
    assert row(found, "rag-few-shot", False)["tuned_input_tokens"] == 1100
    assert row(found, "few-shot", False)["tuned_input_tokens"] == 100
    # the examples are saved, the passages are not
    assert row(found, "rag-few-shot", False)["saving_per_1000_requests"] == pytest.approx(2000 * 0.15 / 1000 + 0.012)
    assert found["sensitivity"]["grid"]["tokens_saved"][2] == 2000


def test_sensitivity_halves_and_doubles_what_the_break_even_is_made_of() -> None:
    found = priced(training_cost=0)["sensitivity"]
    inputs = {entry["input"]: entry for entry in found["inputs"]}
    # hosting is all that is paid, and it stands alone above the fraction's line
    assert inputs["hosting"]["double"] == pytest.approx(2 * found["now"], abs=1)
    assert inputs["hosting"]["half"] == pytest.approx(found["now"] / 2, abs=1)
    assert inputs["training"]["half"] == inputs["training"]["double"] == found["now"]
    for name in ("price of input tokens", "tokens of the examples"):
        assert inputs[name]["half"] > found["now"] > inputs[name]["double"]
    grid = found["grid"]
    middle = len(grid["tokens_saved"]) // 2
    assert grid["tokens_saved"][middle] == 2000
    assert grid["requests_per_month"][middle][middle] == found["now"]
    assert grid["requests_per_month"][-1][-1] < grid["requests_per_month"][0][0]


def test_sensitivity_halves_and_doubles_the_price_of_the_finetuned_models_tokens() -> None:
    found = priced(tuned_price_per_million_input_tokens=0.3, tuned_price_per_million_output_tokens=0.9)["sensitivity"]
    (entry,) = (e for e in found["inputs"] if e["input"] == "price of the finetuned model's tokens")
    assert entry["half"] < found["now"] < entry["double"]


def test_sensitivity_is_about_the_best_candidate_or_the_dearest_where_the_best_saves_nothing() -> None:
    assert priced()["sensitivity"]["candidate"] == "few-shot"
    plain = money({**DECISION, "best_candidate": "zero-shot"}, TrafficSection().model_dump())
    assert plain["sensitivity"]["candidate"] == "few-shot"
