"""`tunewright run RECIPE`: the whole chain, under Prefect or plainly."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.output import emit, json_option, note
from flows.commands.recipe_options import open_recipe, recipe_options

if TYPE_CHECKING:
    from components.recipe import ResolvedRecipe
    from flows.job import Job


@click.command("run")
@recipe_options
@click.option("--no-prefect", is_flag=True, help="Call the steps as plain functions, without a server.")
@json_option
def command(
    recipe: Path, profile: str | None, overrides: tuple[str, ...], no_prefect: bool, home: Path | None, as_json: bool
) -> None:
    """Run RECIPE: materialise data, decide, plan, finetune, evaluate, gate, register, promote, bundle, serve.

    What hasn't changed since an earlier run is kept. Exit status 3 when the decision, the memory plan or the gate says
    no; the report is written all the same.
    """
    # what is wrong with the base, the metric, the folders or the rows is told before a server is started
    job = open_recipe(recipe, profile, overrides, home, begin=_say_recipe)
    run = _plainly(job) if no_prefect else _under_prefect(recipe, profile, overrides, job.home)
    from components.errors import VerdictError
    from components.evaluation.summary import render_text
    from flows.chain import exit_reason

    emit(run, as_json, lambda document: render_text(document, color=sys.stdout.isatty()))
    reason = exit_reason(run)
    if reason is not None:
        raise VerdictError(reason, next_step=f"see {run['report']}")


def _say_recipe(resolved: ResolvedRecipe) -> None:
    """Tell at once what is run: the frameworks and the server take a while to come up on a busy machine."""
    laid_over = f", profile {resolved.profile}" if resolved.profile else ""
    note(f"{resolved.recipe.name}: {resolved.path}{laid_over}, base {resolved.recipe.base}")
    for row in resolved.rows():
        if row["source"] != "default":
            note(f"  {row['key']} = {row['value']}  ({row['source']})")


def _plainly(job: Job) -> dict[str, Any]:
    from flows.chain import run_chain
    from flows.observer import TerminalObserver

    return run_chain(job, TerminalObserver(), lambda step, *arguments: step(*arguments))


def _under_prefect(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path) -> dict[str, Any]:
    from flows.prefect_settings import use_embedded_server

    use_embedded_server(home)
    if "PREFECT_API_URL" not in os.environ:
        note("starting Prefect's embedded server ... (--no-prefect does without)")
    from flows.finetune import finetune

    state = finetune(str(recipe), profile, overrides, str(home), return_state=True)
    # a verdict's no is a Failed state that carries the run document; any other failure carries what was raised
    document: dict[str, Any] | BaseException = state.result(raise_on_failure=False)
    if isinstance(document, BaseException):
        raise document
    return document
