"""`tunewright compare-methods RECIPE`: methods of finetuning side by side, in one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("compare-methods")
@recipe_options
@click.option(
    "--methods",
    help="Which, parted by commas; LoRA's variants as lora+dora, lora+pissa, qlora+loftq. [default: every method once]",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw score over trained parameters.")
@json_option
def command(
    recipe: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    home: Path | None,
    methods: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Train RECIPE by several methods and measure each on the same rows; nothing is registered.

    Go on with the same command where it was stopped.
    """
    from flows.method_comparison import DEFAULT_METHODS, compare_methods, overrides_of

    names = DEFAULT_METHODS if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip())
    from components.errors import InputError

    if not names:
        raise InputError("--methods names none", allowed="such as full,lora,prefix_tuning")
    for name in names:
        overrides_of(name)
    if plot is not None:
        from components.evaluation.method_table import check_plot_file

        check_plot_file(plot)
    from flows.observer import TerminalObserver

    given = [str(recipe), *(["--profile", profile] if profile else []), *(f"--set={value}" for value in overrides)]
    document = compare_methods(
        lambda more: open_recipe(recipe, profile, (*overrides, *more), home), given, names, TerminalObserver()
    )
    if plot is not None:
        from components.evaluation.method_table import write_plot

        write_plot(document, plot)
    emit(document, as_json, _render)


def _render(document: dict[str, Any]) -> str:
    from components.evaluation.method_table import method_table
    from components.evaluation.summary import render_table

    return render_table(method_table(document), width=200)
