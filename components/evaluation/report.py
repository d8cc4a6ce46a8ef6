"""The HTML report of a run: one self-contained file, from the run document alone. The last step of the main job.

No script, font, image or address is loaded: a policy in the page forbids it, and the styles and charts are inline.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from components.evaluation import (
    advice_tables,
    charts,
    decision_tables,
    money_tables,
    planning_tables,
    record_tables,
    report_facts,
    result_tables,
)
from components.evaluation.formatting import ABSENT, count, number, percent, plain, ratio, size, unbroken, value
from components.evaluation.run_document import VERDICT_TEXT, missing_reason, outcome, section
from components.evaluation.table import rows_of
from components.files import write_atomic

if TYPE_CHECKING:
    import jinja2

__all__ = ["render_html", "write_report"]

FOLDER = Path(__file__).parent
# Sections in reading order: key in the run document, heading.
SECTIONS = (
    ("decision", "Decision"),
    ("money", "Money"),
    ("bases", "Which base"),
    ("tactics", "Tactics"),
    ("plan", "Memory"),
    ("training", "Training"),
    ("task", "Task score"),
    ("tax", "Alignment tax"),
    ("gate", "Gate"),
    ("examples", "Won and lost"),
    ("promotion", "Serving"),
    ("commands", "Commands"),
    ("provenance", "Provenance"),
    ("steps", "Steps"),
    ("recipe", "Recipe"),
)


def _memory_chart(run: Mapping[str, Any]) -> dict[str, Any]:
    plan, training = section(run, "plan"), section(run, "training")
    breakdown, budget = section(plan, "breakdown"), plan.get("budget_bytes")
    predicted = training.get("predicted_peak_bytes") or plan.get("peak_bytes")
    measured = training.get("peak_bytes")
    parts = [(breakdown.get(name) or 0, name) for name in planning_tables.MEMORY_PARTS]
    whole = max(sum(amount for amount, _ in parts), predicted or 0, measured or 0, budget or 0)
    split = ", ".join(f"{name} {size(amount)}" for amount, name in parts)
    bars = [("Predicted", size(predicted), charts.stacked_bar(parts, whole, limit=budget, description=split))]
    if measured:
        said = f"Measured peak {size(measured)}, predicted {size(predicted)}, budget {size(budget)}"
        drawn = charts.stacked_bar([(measured, "measured")], whole, limit=budget, description=said)
        bars.append(("Measured", size(measured), drawn))
    return {
        "bars": bars,
        "keys": [(name, size(amount), percent(amount / (sum(a for a, _ in parts) or 1))) for amount, name in parts],
        "budget": size(budget),
        "ratio": ratio(measured, predicted) if measured else ABSENT,
    }


def _points_of(rows: object, key: str) -> tuple[tuple[float, float], ...]:
    known = [row for row in rows_of(rows) if row.get("step") is not None and row.get(key) is not None]
    return tuple((float(row["step"]), float(row[key])) for row in known)


def _curves(run: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    training = section(run, "training")
    losses = _points_of(training.get("losses"), "loss")
    held_out = _points_of(training.get("dev"), "loss")
    said = f"Loss over {len(losses)} logged steps"
    if losses:
        said += f": training from {losses[0][1]:.3f} to {losses[-1][1]:.3f}"
    if held_out:
        said += f"; dev from {held_out[0][1]:.3f} to {held_out[-1][1]:.3f}"
    lines = [
        charts.Series("training", "raw" if held_out else "tuned", losses),
        charts.Series("dev", "tuned", held_out, marked=True),
    ]
    drawn = [(said, charts.curve(lines, label=lambda tick: f"{tick:g}", description=said))]
    scores = _points_of(training.get("dev"), "score")
    if scores:
        title = f"Score of dev answers, {percent(scores[0][1])} at first, {percent(scores[-1][1])} at last"
        line = charts.Series("dev score", "tuned", scores, marked=True)
        drawn.append((title, charts.curve([line], label=_tick, description=title, height=90)))
    for key, name in (("learning_rate", "Learning rate"), ("tokens_per_second", "Tokens per second")):
        series = _points_of(training.get("losses"), key)
        if series:
            title = f"{name}, {number(series[0][1])} at the first logged step, {number(series[-1][1])} at the last"
            line = charts.Series(name, "raw", series)
            drawn.append((title, charts.curve([line], label=_tick, description=title, height=90)))
    return [pair for pair in drawn if pair[1]]


def _tick(tick: float) -> str:
    return f"{tick:.1e}".replace(".0e", "e").replace("e-0", "e-") if 0 < abs(tick) < 0.01 else f"{tick:g}"


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value that the template prints loses its control characters; our own markup has none.
        finalize=lambda shown: shown if isinstance(shown, Markup) else "" if shown is None else plain(shown),
    )
    environment.filters |= {
        "count": count,
        "value": lambda shown: value(None if isinstance(shown, jinja2.Undefined) else shown),
        "unbroken": unbroken,
    }
    return environment.get_template("report_template.html.jinja")


def _eyebrow(run: Mapping[str, Any]) -> str:
    named = [("", "name"), ("profile ", "profile"), ("seed ", "seed"), ("", "started_at")]
    parts = [f"{label}{plain(run[key])}" for label, key in named if run.get(key) is not None]
    return " · ".join(["Tunewright run report", *parts])


def render_html(run: Mapping[str, Any]) -> str:
    """Render a run as one self-contained HTML page.

    Args:
        run: The run document; any section may be missing or null.

    Returns:
        The page; equal documents give equal text.
    """
    tables = {
        "candidates": planning_tables.candidates_table(run),
        "failures": planning_tables.failures_table(run),
        "money": money_tables.money_tables(run),
        "bases": advice_tables.bases_table(run),
        "tactics": advice_tables.tactics_table(run),
        "rules": decision_tables.rules_table(run),
        "failure_examples": decision_tables.failure_examples_table(run),
        "learning_curve": decision_tables.curve_table(run),
        "alternatives": planning_tables.alternatives_table(run),
        "task": result_tables.task_table(run),
        "summaries": result_tables.summaries_table(run),
        "tax": result_tables.tax_table(run),
        "gate": result_tables.gate_table(run),
        "data": record_tables.data_table(run),
        "suites": record_tables.suites_table(run),
        "steps": record_tables.steps_table(run),
        "deltas": record_tables.deltas_table(run),
        "recipe": record_tables.recipe_table(run),
    }
    facts = {
        "headline": report_facts.headline_facts(run),
        "memory": report_facts.memory_facts(run),
        "training": report_facts.training_facts(run),
        "provenance": report_facts.provenance_facts(run),
        "serving": report_facts.serving_facts(run),
    }
    examples = section(section(run, "task"), "examples")
    present = {name for name, _ in SECTIONS if run.get(name)} | {"provenance"} | ({"examples"} if examples else set())
    return _template().render(
        run=run,
        tax_note=result_tables.tax_note(run),
        eyebrow=_eyebrow(run),
        outcome=outcome(run),
        verdict=VERDICT_TEXT,
        sections=SECTIONS,
        present=present,
        missing={name: missing_reason(run, "task" if name == "examples" else name) for name, _ in SECTIONS}
        | {name: missing_reason(run, name) for name in ("bundle", "endpoint")},
        tables=tables,
        facts=facts,
        examples=examples,
        memory=_memory_chart(run),
        curves=_curves(run),
        prices=money_tables.price_lines(run),
        style=Markup((FOLDER / "report_style.css").read_text(encoding="utf-8")),
    )


def write_report(run: Mapping[str, Any], path: Path) -> Path:
    """Write the HTML report whole or not at all.

    Args:
        run: The run document.
        path: Where to; missing folders are made.

    Returns:
        The path.

    Raises:
        InputError: The folder can't be written.
    """
    write_atomic(path, render_html(run))
    return path
