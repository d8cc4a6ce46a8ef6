"""`tunewright decide RECIPE`: measure what prompting and retrieval reach, and say whether to finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("decide")
@recipe_options
@json_option
def command(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    """Measure prompts, retrieval and champion of RECIPE on a dev sample; give a verdict with its reasons."""
    job = open_recipe(recipe, profile, overrides, home)
    from flows import steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    found = steps.decide(job, steps.data(job, observer), observer)
    emit(found.document, as_json, _render)


def _render(decision: dict[str, Any]) -> str:
    return "\n".join(
        [
            *_candidate_lines(decision),
            "",
            *_failure_lines(decision),
            *_curve_lines(decision),
            f"verdict: {decision['verdict']}",
            *(f"  {number}. {reason}" for number, reason in enumerate(decision["reasons"], start=1)),
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
    return [*lines, f"measured on {decision['n']} dev rows{subsets}; tokens and seconds are those of a request"]


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
