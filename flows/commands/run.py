"""`tunewright run RECIPE`: the whole chain, under Prefect or plainly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--profile", help="Profile of the recipe, such as smoke; the recipe as it stands by default.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, such as finetune.rank=8."
)
@click.option("--no-prefect", is_flag=True, help="Call the steps as plain functions, without a server.")
@click.option(
    "--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright by default."
)
@json_option
def command(
    recipe: Path, profile: str | None, overrides: tuple[str, ...], no_prefect: bool, home: Path | None, as_json: bool
) -> None:
    """Run RECIPE: materialise data, decide, plan, finetune, evaluate, gate, register, promote, bundle, serve.

    What hasn't changed since an earlier run is kept. Exit status 3 when the decision, the memory plan or the gate says
    no; the report is written all the same.
    """
    from components.recipe import load_recipe
    from components.runtime import prepare_process

    # parsed before anything slow is imported, so that a mistake in it is told at once
    resolved = load_recipe(recipe, profile, overrides)
    prepare_process(resolved.recipe.memory.threads)
    from components.paths import home as default_home

    state = (home or default_home()).absolute()
    run = _plainly(resolved, state) if no_prefect else _under_prefect(recipe, profile, overrides, state)
    from components.errors import VerdictError
    from components.evaluation.summary import render_text
    from flows.chain import exit_reason

    emit(run, as_json, lambda document: render_text(document, color=sys.stdout.isatty()))
    reason = exit_reason(run)
    if reason is not None:
        raise VerdictError(reason, next_step=f"see {run['report']}")


def _plainly(resolved: Any, home: Path) -> dict[str, Any]:
    from flows.chain import run_chain
    from flows.job import open_job
    from flows.observer import TerminalObserver

    def call(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    return run_chain(open_job(resolved, home), TerminalObserver(), call)


def _under_prefect(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path) -> dict[str, Any]:
    from flows.prefect_settings import use_embedded_server

    use_embedded_server(home)
    from flows.finetune import finetune

    state = finetune(str(recipe), profile, overrides, str(home), return_state=True)
    # a Failed state that carries a document is a verdict; one that carries an exception is raised here
    document: dict[str, Any] = state.result(raise_on_failure=True) if not _carries_document(state) else state.data
    return document


def _carries_document(state: Any) -> bool:
    return isinstance(state.data, dict)
