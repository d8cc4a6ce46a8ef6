"""`tunewright sweep RECIPE`: the recipe's training with other values, trial after trial, and which were the best."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("sweep")
@recipe_options
@json_option
def command(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    """Train RECIPE with values from its `sweep` section, and say which were best on the dev rows.

    Go on with the same command where it was stopped; with more sweep.trials it goes on behind those that are there.
    Exit status 3 when no trial came to its end.
    """
    from flows.observer import TerminalObserver

    job = open_recipe(recipe, profile, overrides, home)
    from flows.sweep import run_sweep

    document = run_sweep(job, TerminalObserver())
    given = [str(recipe), *(["--profile", profile] if profile else []), *(f"--set={value}" for value in overrides)]
    if document["best"] is not None:
        given += [f"--set={value}" for value in document["best"]["set"]]
        given += [f"--home={home}"] if home is not None else []
        document["best"]["command"] = shlex.join(["tunewright", "run", *given])
    emit(document, as_json, _render)
    if document["best"] is None:
        from components.errors import VerdictError

        raise VerdictError(
            f"none of the {len(document['trials'])} trials came to its end",
            next_step="their reasons stand above; give other ranges, or more memory",
        )


def _render(document: dict[str, Any]) -> str:
    from components.evaluation.summary import render_table
    from components.evaluation.sweep_table import importance_table, sweep_table

    parts = [render_table(sweep_table(document), width=200), document["ended"]]
    if document["importance"]:
        parts.append(render_table(importance_table(document)))
    best = document["best"]
    if best is not None:
        parts.append(
            f"best: trial {best['number']}, {document['objective'].replace('_', ' ')} {best['value']:.4f}\n"
            f"  {best['command']}\nor in the recipe:\n{best['recipe'].rstrip()}"
        )
    return "\n\n".join(parts)
