"""`tunewright multitask RECIPE`: several tasks at once, in turn, and apart, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import recipe_options, state_folder


@click.command("multitask")
@recipe_options
@json_option
def command(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    """Train the tasks of RECIPE's data.tasks mixed, in turn with replay, and with an adapter for each, on equal tokens.

    Every task is measured in each way; nothing is registered. Go on with the same command where it was stopped.
    """
    from components.recipe import load_recipe
    from flows.multitask import multitask
    from flows.observer import TerminalObserver

    resolved = load_recipe(recipe, profile, overrides)
    emit(multitask(resolved, state_folder(home), TerminalObserver()), as_json, _render)


def _render(document: dict[str, Any]) -> str:
    from components.evaluation.multitask_table import multitask_table
    from components.evaluation.summary import render_table

    return render_table(multitask_table(document), width=200)
