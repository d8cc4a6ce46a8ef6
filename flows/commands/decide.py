"""`tunewright decide RECIPE`: measure what prompting reaches, and say whether to finetune."""

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
    """Measure the prompting candidates of RECIPE on a dev sample and give a verdict with its reasons."""
    job = open_recipe(recipe, profile, overrides, home)
    from flows import steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    found = steps.decide(job, steps.data(job, observer), observer)
    emit(found.document, as_json, _render)


def _render(decision: dict[str, Any]) -> str:
    lines = [f"{'candidate':<22}{'score':>8}   {'95 % interval':<18}{'n':>4}{'tokens/request':>16}"]
    for c in decision["candidates"]:
        interval = f"{100 * c['low']:.1f} to {100 * c['high']:.1f} %"
        lines.append(
            f"{c['name']:<22}{100 * c['score']:>6.1f} %   {interval:<18}{c['n']:>4}{c['tokens_per_request']:>16.0f}"
        )
    subsets = f" of {', '.join(decision['subsets'])}" if decision["subsets"] else ""
    lines.append(f"measured on {decision['n']} dev rows{subsets}")
    failures = ", ".join(f"{count} {kind}" for kind, count in decision["failures"].items())
    lines += [f"failures of {decision['best_candidate']}: {failures}", f"verdict: {decision['verdict']}"]
    return "\n".join([*lines, *(f"  {reason}" for reason in decision["reasons"])])
