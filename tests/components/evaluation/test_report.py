"""The HTML report: self-contained, escaped, complete, and rendered for runs that ended early."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError
from components.evaluation.report import FOLDER, SECTIONS, render_html, write_report
from components.evaluation.result_tables import allowed_drop
from components.evaluation.summary import render_markdown, render_text

RUN_SECTIONS = (
    *("recipe", "data", "base", "decision", "plan", "training", "task", "tax", "gate", "promotion", "bundle"),
    *("endpoint", "commands", "environment", "steps"),
)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects what a test asks about, and checks that every tag is closed where it must be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.comments: list[str] = []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("run_document.json").read_text(encoding="utf-8"))


def ended_at_decision(run: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "profile", "seed", "seconds", "started_at", "recipe", "data", "decision", "environment", "steps")
    short = {key: run[key] for key in kept} | {key: None for key in RUN_SECTIONS if key not in kept}
    short["decision"] |= {"verdict": "prompt", "reasons": ["Few-shot prompting scores 61 %, above the 50 % asked for."]}
    return short | {"trained": False, "version": None}


def refused(run: dict[str, Any]) -> dict[str, Any]:
    run["gate"] |= {"passed": False, "reasons": ["suite arithmetic may have lost as much as 12.0 points"]}
    run["gate"]["checks"][4] |= {"passed": False, "value": -0.12, "reason": run["gate"]["reasons"][0]}
    return run | {"promotion": None, "bundle": None, "endpoint": None}


def test_page_loads_nothing(run: dict[str, Any]) -> None:
    html = render_html(run)
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
            if name in attributes:
                assert tag == "a", f"<{tag} {name}> may load something"
                assert str(attributes[name]).startswith("#")
        assert not [name for name in attributes if name.startswith("on")], "an inline handler is a script"
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "foreignobject"} & {
        t for t, _ in page.tags
    }
    assert "url(" not in html
    assert "@import" not in html
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_markup_is_sound(run: dict[str, Any]) -> None:
    page = Page(render_html(run))
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = [a["href"] for a in page.all("a")] + [f"#{a['aria-labelledby']}" for a in page.all("section")]
    assert {str(target).removeprefix("#") for target in referred} <= set(ids)
    assert [tag for tag, _ in page.tags if tag in ("h1", "main")] == ["h1", "main"]
    assert len(page.all("caption")) == len(page.all("table")) >= 10
    pictures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(pictures) >= 25
    assert all(svg["aria-label"] for svg in pictures)
    nested = [svg for svg in page.all("svg") if "viewbox" in svg]
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg") if svg not in pictures and svg not in nested)


def test_hostile_text_is_escaped(run: dict[str, Any]) -> None:
    attack = (
        "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' {{ 7*7 }} \x00\x1b[2J\u202e"
    )
    for key in ("name", "version", "digest", "profile", "started_at", "report"):
        run[key] = attack
    case = run["task"]["examples"]["won"][0]
    for key in case:
        case[key] = attack
    run["task"] |= {"metric": attack, "baseline": attack}
    run["task"]["subsets"][0]["subset"] = attack
    run["tax"][0] |= {"suite": attack, "digest": attack, "metric": attack}
    run["decision"] |= {"reasons": [attack], "override_reason": attack}
    run["decision"]["candidates"][0]["name"] = attack
    run["plan"] |= {"method": attack, "dtype": attack, "device": attack}
    run["plan"]["alternatives"][1] |= {"method": attack, "why_not": attack}
    run["gate"]["reasons"] = [attack]
    run["recipe"][0] = {"key": attack, "value": [attack, {attack: attack}], "source": attack}
    run["endpoint"] |= {"question": attack, "answer": attack, "gold": attack, "url": attack, "canary": {attack: attack}}
    run["commands"]["query"] = attack
    run["environment"]["versions"][attack] = attack
    run["data"]["files"][0]["path"] = attack
    run["data"]["splits"][attack] = {"rows": 1, "groups": [attack]}
    run["steps"][0]["name"] = attack
    html = render_html(run)
    page = Page(html)
    assert page.open == []
    assert not page.all("script")
    assert not page.all("img")
    assert not [a for _, a in page.tags if {"onerror", "onload"} & a.keys()]
    assert "{{ 7*7 }}" in page.text
    assert not re.search(r"[\x00\x1b\u202e\ud800]", html)


def percent(fraction: float) -> str:
    return f"{fraction * 100:.1f} %"


def signed(fraction: float) -> str:
    return "0.0" if round(fraction * 100, 1) == 0 else f"{fraction * 100:+.1f}".replace("-", "−")


def test_every_number_of_task_tax_and_gate_is_there(run: dict[str, Any]) -> None:
    text = Page(render_html(run)).text
    for row in [run["task"], *run["task"]["subsets"], *run["tax"]]:
        named = row.get("suite") or row.get("subset") or "all"
        metric = f"{row['metric']} " if "suite" in row else ""
        cells = f"{percent(row['base'])} {percent(row['tuned'])} {signed(row['delta'])}"
        span = f"{signed(row['low'])} to {signed(row['high'])}"
        # What is drawn between the sample size and the scores says the same numbers again.
        assert re.search(rf"\b{named} {metric}{row['n']} .*?n = {row['n']} {re.escape(f'{cells} {span}')}", text), named
    for row in run["tax"]:
        assert f"{row['suite']} {row['n']} {row['digest']}" in text
    for check in run["gate"]["checks"]:
        value, bound = (
            f"{signed(one)} points" if isinstance(one, float) else str(one) for one in (check["value"], check["bound"])
        )
        assert f"{check['name']} ✓ passed {value} {bound}" in text
    assert "allowed drop 5.0 points" in text


def test_decision_memory_training_and_provenance_are_told(run: dict[str, Any]) -> None:
    text = Page(render_html(run)).text
    expected = [
        *("Promoted", "text2sql:v1 is now champion", "Verdict: finetune"),
        *run["decision"]["reasons"],
        *("n = 256 asked, 61 won and 5 lost", "form", "72 63.2 %", "10.9 % 6.6 to 17.5 % 128 611.3 1.07 s"),
        *("2.41 GiB", "2.58 GiB", "Measured over predicted: 1.07 (one run of 60 steps)", "activations 1.47 GiB 61.0 %"),
        *("5.3 GiB above the budget", "fits, but the recipe prefers an adapter"),
        *("60 1.23 epochs", "151,872 tokens", "609.2 tokens/s", "4,884,480", "3.5 % of 139,399,488"),
        *("dev from 0.941 to 0.519", run["digest"], run["base"]["fingerprint"], "torch 2.13.0", "CC-BY-4.0"),
        *(file["sha256"] for file in run["data"]["files"]),
        *("finetuning.rank 16 set by the user", "finetuning.method lora chosen by the plan"),
        *("materialise data", "cached", "4 min 09 s ran"),
        *("advising, atis", "402 rows", "17 chunks in 1.94 s", "the digest that was registered"),
        *run["commands"].values(),
    ]
    assert [piece for piece in expected if piece not in text] == []


def test_learned_deltas_are_told_by_matrix(run: dict[str, Any]) -> None:
    matrices = [
        {"layer": layer, "matrix": "q_proj", "norm": norm, "effective_rank": rank, "energy_rank": 2, "rank": 16}
        for layer, norm, rank in ((0, 0.5, 4.0), (1, 2.5, 6.0), (2, 1.0, 8.0), (3, None, None))
    ]
    run["training"]["deltas"] = {"matrices": matrices, "hint": "rank 8 is likely to learn as much"}
    page = render_html(run)
    assert "rank 8 is likely to learn as much" in page
    cells = re.search(r"<caption>Learned deltas.*?<tbody[^>]*>(.*?)</tbody>", page, re.DOTALL)
    assert cells is not None
    assert [*re.findall(r">([^<>\n]+)<", cells[1])] == ["q_proj", "3", "1", "2.5 (layer 1)", "6 of 16"]


def test_why_training_ended_and_whose_weights_are_kept_is_told(run: dict[str, Any]) -> None:
    ended = "stopped early after step 45 of 60: 2 measurements brought nothing better than step 15 with dev loss 0.5"
    run["training"] |= {
        "steps": 45,
        "planned_steps": 60,
        "ended": ended,
        "kept_step": 15,
        "kept_reason": "the best of 3",
    }
    run["training"]["dev"] = [{"step": 15 * n, "loss": 1.0, "score": 0.25 * n} for n in (1, 2, 3)]
    text = Page(render_html(run)).text
    assert ended in text
    assert "Weights of step 15 the best of 3" in text
    assert "Score of dev answers, 25.0 % at first, 75.0 % at last" in text
    summary = render_markdown(run)
    assert f"; {ended}; the weights of step 15 are kept" in summary


def test_undecided_task_says_how_many_rows_it_needs(run: dict[str, Any]) -> None:
    run["task"] |= {"low": -0.01, "high": 0.02, "pairs_needed": 1840}
    text = Page(render_html(run)).text
    assert "Undecided : the interval holds zero; a difference of this size needs about 1,840 rows" in text


def test_allowed_drop_is_taken_from_wherever_the_run_says_it(run: dict[str, Any]) -> None:
    for row in run["tax"]:
        del row["max_drop"]
    assert allowed_drop(run) == 0.05
    run["recipe"] = []
    assert allowed_drop(run) == 0.05
    run["gate"] = None
    assert allowed_drop(run) is None
    assert 'class="bound"' not in render_html(run)


def test_run_that_ended_at_the_decision(run: dict[str, Any]) -> None:
    page = Page(render_html(ended_at_decision(run)))
    assert "Not finetuned" in page.text
    assert "Verdict: prompting is enough" in page.text
    reason = "Not run : the decision was 'prompt' (prompting is enough), so the run ended there"
    assert page.text.count(reason) == len(
        {"plan", "training", "task", "tax", "gate", "examples", "promotion", "commands"}
    )
    assert [section["id"] for section in page.all("section")] == [name for name, _ in SECTIONS]


def test_run_that_the_gate_refused(run: dict[str, Any]) -> None:
    text = Page(render_html(refused(run))).text
    assert "Gate refused" in text
    assert "Registered, not promotable: suite arithmetic may have lost as much as 12.0 points" in text
    assert "suite:arithmetic ✗ refused −12.0 points −5.0 points" in text
    assert "Not run : the gate refused this version" in text


def test_run_that_found_its_version_trained(run: dict[str, Any]) -> None:
    text = Page(render_html(run | {"trained": False, "training": None})).text
    assert "Nothing was trained in this run" in text
    assert "Not run : the same data, recipe and base were trained before" in text


def test_memory_that_does_not_fit(run: dict[str, Any]) -> None:
    stopped = run | dict.fromkeys(("training", "task", "tax", "gate", "promotion", "bundle", "endpoint"))
    stopped["plan"] |= {"fits": False}
    text = Page(render_html(stopped)).text
    assert "Does not fit" in text
    assert "Not run : no finetuning method fits the memory budget" in text


@pytest.mark.parametrize("name", RUN_SECTIONS)
@pytest.mark.parametrize("empty", [None, "absent", {}, []], ids=["null", "absent", "object", "array"])
def test_any_section_may_be_missing(run: dict[str, Any], name: str, empty: object) -> None:
    if empty == "absent":
        del run[name]
    else:
        run[name] = empty
    assert Page(render_html(run)).open == []


def test_empty_document_renders() -> None:
    page = Page(render_html({}))
    assert "The run ended before anything was measured" in page.text
    assert "None" not in page.text
    assert "Tunewright run report Run" in page.text
    assert "Undefined" not in page.text


def paths(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from paths(inner, (*at, key))
    elif isinstance(value, list) and value:
        yield (*at, 0)
        yield from paths(value[0], (*at, 0))


def test_any_value_may_be_null(run: dict[str, Any]) -> None:
    for path in paths(run):
        broken = copy.deepcopy(run)
        inner: Any = broken
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = None
        try:
            rendered = render_html(broken), render_markdown(broken), render_text(broken)
        except Exception as error:
            raise AssertionError(f"null at {path}") from error
        assert all(rendered)


def test_equal_documents_give_equal_bytes(run: dict[str, Any], tmp_path: Path) -> None:
    first = write_report(run, tmp_path / "deep" / "a.html")
    second = write_report(json.loads(json.dumps(run)), tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<!doctype html>")


def test_long_runs_stay_small_and_fast(run: dict[str, Any]) -> None:
    one = run["training"]["losses"][0]
    run["training"]["losses"] = [one | {"step": step, "loss": 2 / (1 + step)} for step in range(1, 50_001)]
    started = time.perf_counter()
    html = render_html(run)
    assert time.perf_counter() - started < 5
    assert len(html) < 250_000
    assert "step 50000" in html


def test_folder_that_cannot_be_written_is_bad_input(run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_report(run, tmp_path / "file" / "report.html")


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_contrast(theme: str) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what a chart draws."""
    themes = re.findall(r":root \{(.*?)\n\s*\}", (FOLDER / "report_style.css").read_text(encoding="utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", theme_)) for theme_ in themes[:2])
    colours = light if theme == "light" else light | dark
    for text in ("ink", "soft", "accent", "good", "bad"):
        assert contrast(colours[text], colours["page"]) >= 4.5, text
    for text in ("ink", "soft"):
        assert contrast(colours[text], colours["panel"]) >= 4.5, text
    assert contrast(colours["good"], colours["good-panel"]) >= 4.5
    assert contrast(colours["bad"], colours["bad-panel"]) >= 4.5
    for drawn in ("tuned", "base", "whisker", "weights", "gradients", "optimizer", "activations", "other"):
        assert contrast(colours[drawn], colours["page"]) >= 3, drawn
