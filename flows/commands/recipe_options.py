"""What the commands that read a recipe share: its path, profile, overrides and the state folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from components.recipe import ResolvedRecipe
    from flows.job import Job

__all__ = ["open_recipe", "recipe_options", "state_folder"]


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add RECIPE, --profile, --set and --home to a command."""
    for decorate in (
        click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as finetune.rank=8."),
        click.option("--profile", help="Profile of the recipe, such as smoke; by default the recipe as it stands."),
        click.argument("recipe", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def state_folder(home: Path | None) -> Path:
    """Return the state folder, absolute, and let every part and child process of this command use the same."""
    from components.paths import home as default_home

    folder = (home or default_home()).absolute()
    os.environ["TUNEWRIGHT_HOME"] = str(folder)
    return folder


def open_recipe(
    recipe: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    home: Path | None,
    *,
    begin: Callable[[ResolvedRecipe], None] | None = None,
) -> Job:
    """Return the job of a recipe, ready for its steps.

    Args:
        recipe: The recipe's file.
        profile: Profile laid over it.
        overrides: `section.key=value` texts.
        home: State folder, or None for the default.
        begin: Called with the recipe as soon as it is read, before anything that takes time.
    """
    from components.recipe import load_recipe

    resolved = load_recipe(recipe, profile, overrides)
    if begin is not None:
        begin(resolved)
    from flows.open_job import open_job

    return open_job(resolved, state_folder(home))
