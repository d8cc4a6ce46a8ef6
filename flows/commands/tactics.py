"""`tunewright tactics RECIPE`: finetuning's settings by rules of thumb, each with its reason. Loads no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("tactics")
@recipe_options
@json_option
def command(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    """Say which settings RECIPE finetunes with, what the rules of thumb would take, and why."""
    job = open_recipe(recipe, profile, overrides, home)
    from flows import steps
    from flows.observer import TerminalObserver

    steps.data(job, TerminalObserver())
    emit(job.tactics.to_dict(), as_json, _render)


def _render(found: dict[str, Any]) -> str:
    from components.evaluation.formatting import value

    lines = []
    for row in found["settings"]:
        advised = "" if row["value"] in (row["advised"], "auto") else f", advised {value(row['advised'])}"
        lines += [f"{row['key']:<20}{value(row['value'])}  ({row['source']}{advised})", f"  {row['reason']}"]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in found["warnings"])])
