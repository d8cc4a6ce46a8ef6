"""Money, bases, tactics and delivery in the report: the numbers, the tornado, hostile names, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.decision.base_facts import BaseFacts
from components.decision.bases import MeasuredBase, compare_bases
from components.decision.money import money
from components.decision.situation import Situation
from components.decision.tactics import choose_tactics
from components.evaluation import charts
from components.evaluation.money_tables import break_even_table, price_lines, sensitivity_table
from components.evaluation.report import render_html
from components.evaluation.summary import render_markdown, render_table
from components.recipe_finetune import FinetuneSection
from components.recipe_sections import TrafficSection

TOKENS = {"prompt_tokens_per_request": 2100.0, "tokens_per_request": 2120.0, "shared_prefix_tokens": [2000, 2000]}
PLAIN = {"prompt_tokens_per_request": 100.0, "tokens_per_request": 120.0, "shared_prefix_tokens": [20, 20]}


def priced(**traffic: Any) -> dict[str, Any]:
    decision = {
        "best_candidate": "few-shot",
        "candidates": [{"name": "zero-shot", **PLAIN}, {"name": "few-shot", **TOKENS}],
        "finetuned_request": PLAIN,
    }
    prices = [
        {"key": f"traffic.{key}", "value": value, "source": "recipe" if key in traffic else "default"}
        for key, value in TrafficSection(**traffic).model_dump().items()
    ]
    return {**money(decision, TrafficSection(**traffic).model_dump()), "prices": prices}


@pytest.fixture
def run() -> dict[str, Any]:
    found = json.loads(Path(__file__).with_name("run_document.json").read_text(encoding="utf-8"))
    base = BaseFacts(135_000_000, 576, True, None, "")
    tactics = choose_tactics(
        Situation(306, 500.0, 60.0, base, 8 * 2**30, "this machine's memory"),
        FinetuneSection(effective_rows=4).model_dump(),
        {"effective_rows": "recipe"},
    )
    measured = [
        MeasuredBase(
            name, parameters, "few-shot", right / 40, 0.0, 1.0, (1.0,) * right + (0.0,) * (40 - right), 90.0, 0.5
        )
        for name, parameters, right in (("small", 10**8, 2), ("middle", 10**9, 30), ("large", 10**10, 31))
    ]
    bases = compare_bases(measured, 30 * 2**30)
    document: dict[str, Any] = json.loads(json.dumps({"money": priced(), "tactics": tactics.to_dict(), "bases": bases}))
    return found | document


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_page_and_markdown_tell_costs_break_even_bases_and_settings(run: dict[str, Any]) -> None:
    page, markdown = text_of(render_html(run)), render_markdown(run)
    few = run["money"]["break_even"][2]
    assert (few["candidate"], few["kind"]) == ("few-shot", "from")
    for shown in (f"{few['requests_per_month']:,}", "few-shot", "chosen by tactics", "finetune.effective_rows = 4"):
        assert shown in page
    assert "Start with middle" in page
    assert f"{few['requests_per_month']:,}" in markdown
    assert "## Which base" in markdown


def test_tornado_spans_what_halving_and_doubling_give_around_the_dashed_present(run: dict[str, Any]) -> None:
    table = sensitivity_table(run)
    found = {row["input"]: row for row in run["money"]["sensitivity"]["inputs"]}
    strips = [str(row[1]) for row in table.rows]
    assert {str(row[0]) for row in table.rows} == set(found)
    for row, strip in zip(table.rows, strips, strict=True):
        assert f"{found[str(row[0])]['half']:,}" in strip
        assert 'class="bound"' in strip
    widths = [float(re.findall(r'class="bar base"[^>]*width="([0-9.]+)%', strip)[0]) for strip in strips]
    # the most telling input comes first
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 5 * widths[-1]


def test_what_never_and_what_always_pays_is_said_in_words(run: dict[str, Any]) -> None:
    never = run | {"money": priced(tuned_price_per_million_input_tokens=9)}
    assert {row[3] for row in break_even_table(never).rows} == {"never"}
    assert "costs more than the prompt" in render_table(break_even_table(never), 200)
    assert "never" in text_of(render_html(never))
    always = run | {"money": priced(hosting_price_per_hour=0, training_cost=0)}
    assert {row[3] for row in break_even_table(always).rows} == {"always"}
    assert text_of(render_html(always)).count("always") >= 4


def test_prices_that_nobody_set_are_said_to_be_defaults(run: dict[str, Any]) -> None:
    said = price_lines({"money": priced(training_cost=500)})
    assert said[0] == "prices and traffic set: training_cost 500"
    assert "hosting_price_per_hour 0.8" in said[1]
    assert "defaults" in said[1]


def test_hostile_names_are_escaped(run: dict[str, Any]) -> None:
    attack = "</style><script>alert(1)</script> \x1b[2J"
    run["bases"]["start_with"] = attack
    run["bases"]["bases"][0] |= {"base": attack, "candidate": attack}
    run["bases"]["reasons"] = run["bases"]["undecided"] = [attack]
    run["tactics"]["settings"][0] |= {"value": attack, "reason": attack, "source": attack, "warning": attack}
    run["tactics"]["warnings"] = [attack]
    run["money"]["candidates"][0]["name"] = attack
    run["money"]["break_even"][0] |= {"candidate": attack, "reason": attack}
    run["money"]["sensitivity"] |= {"candidate": attack}
    run["money"]["sensitivity"]["inputs"][0]["input"] = attack
    run["money"]["prices"][0] = {"key": attack, "value": attack, "source": "recipe"}
    html = render_html(run)
    assert "<script" not in html
    assert "\x1b" not in html


def test_sections_that_are_missing_say_why_and_a_comparison_that_was_not_asked_for_is_named(
    run: dict[str, Any],
) -> None:
    for key in ("money", "tactics", "bases"):
        run[key] = None
    page = text_of(render_html(run))
    assert "the recipe names no bases to compare" in page
    assert render_markdown(run)


def test_decades_hold_every_value_and_nothing_below_zero() -> None:
    scale = charts.decades_for([None, 0, 37_000, 2_100_000])
    assert (scale.low, scale.high) == (4, 7)
    assert charts.decades_for([]).high > charts.decades_for([]).low
