"""`tunewright decide RECIPE`: what prompts and retrieval reach, whether to finetune, what it costs, on which base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("decide")
@recipe_options
@click.option("--bases", metavar="A,B,C", help="Bases to compare on the same dev rows, instead of decision.bases.")
@json_option
def command(
    recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, bases: str | None, as_json: bool
) -> None:
    """Measure prompts, retrieval and champion of RECIPE on a dev sample; give a verdict with its reasons.

    With --bases (or decision.bases in the recipe) each of them is measured on the same rows, and it is said which to
    start with. What was measured before is kept.
    """
    job = open_recipe(recipe, profile, overrides, home)
    from flows import decision_steps, steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    names = job.recipe.decision.bases if bases is None else tuple(name.strip() for name in bases.split(","))
    decision_steps.open_bases(job, names)
    data = steps.data(job, observer)
    decision = steps.decide(job, data, observer).document
    document = {**decision, "money": decision_steps.money(job, decision)}
    if names:
        document["bases"] = decision_steps.compare_bases(job, data, names, observer)
    emit(document, as_json, _render)


def _render(decision: dict[str, Any]) -> str:
    return "\n".join(
        [
            *_candidate_lines(decision),
            "",
            *_failure_lines(decision),
            *_curve_lines(decision),
            f"verdict: {decision['verdict']}",
            *(f"  {number}. {reason}" for number, reason in enumerate(decision["reasons"], start=1)),
            "",
            _advice(decision),
        ]
    )


def _candidate_lines(decision: dict[str, Any]) -> list[str]:
    against = f"against {decision['best_simple']}, 95 %"
    lines = [f"{'candidate':<20}{'score':>8}   {'95 % interval':<16}{against:<36}{'tokens':>8}{'seconds':>9}"]
    for c in decision["candidates"]:
        interval = f"{100 * c['low']:.1f} to {100 * c['high']:.1f} %"
        gain = "the best simple prompt"
        if c["delta"] is not None:
            span = f"{100 * c['delta_low']:+.1f} to {100 * c['delta_high']:+.1f}"
            gain = f"{100 * c['delta']:+.1f} points ({span})"
        lines.append(
            f"{c['name']:<20}{100 * c['score']:>6.1f} %   {interval:<16}{gain:<36}{c['tokens_per_request']:>8.0f}"
            f"{c['seconds_per_request']:>9.2f}"
        )
    subsets = f" of {', '.join(decision['subsets'])}" if decision["subsets"] else ""
    return [
        *lines,
        f"measured on {decision['n']} dev rows{subsets}; tokens and seconds are those of a request",
        "intervals are each taken by themselves; those of the verdict hold for all candidates at once",
    ]


def _failure_lines(decision: dict[str, Any]) -> list[str]:
    failures = ", ".join(f"{count} {kind}" for kind, count in decision["failures"].items())
    lines = [f"failures of {decision['best_simple']}: {failures}"]
    for found in decision["failure_examples"]:
        # one line each: a model's answer may hold line breaks and control characters
        keys = [key for key in ("question", "gold", "answer", "with_context") if key in found]
        shown = " | ".join(f"{key} {found[key]!r}" for key in keys)
        lines.append(f"  {found['kind']}: {shown}")
    return lines


def _curve_lines(decision: dict[str, Any]) -> list[str]:
    curve = decision["learning_curve"]
    if curve is None:
        return []
    points = ", ".join(f"{p['rows']} rows {100 * p['score']:.1f} %" for p in curve["points"])
    slope = curve["slope"]
    if slope is None:
        return [f"probe: {points}"]
    span = f"{100 * slope['low']:+.1f} to {100 * slope['high']:+.1f}"
    return [f"probe: {points}; {100 * slope['delta']:+.1f} points a doubling of the rows ({span})"]


def _advice(document: dict[str, Any]) -> str:
    from components.evaluation.advice_tables import bases_table
    from components.evaluation.money_tables import money_tables, price_lines
    from components.evaluation.summary import render_table

    width = max(120, shutil.get_terminal_size().columns)
    blocks = [render_table(table, width) for table in money_tables(document)]
    blocks.append("\n".join(price_lines(document)))
    if bases := document.get("bases"):
        said = [f"start with: {bases['start_with']}", *bases["reasons"], *bases["undecided"]]
        blocks += [render_table(bases_table(document), width), "\n  ".join(said)]
    return "\n\n".join(block for block in blocks if block)
