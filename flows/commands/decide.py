"""`tunewright decide RECIPE`: measure what prompting reaches, say whether to finetune, what it costs, on which base."""

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
    """Measure the prompting candidates of RECIPE on a dev sample and give a verdict with its reasons.

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
    text = "\n".join([*lines, *(f"  {reason}" for reason in decision["reasons"])])
    return f"{text}\n\n{_advice(decision)}"


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
