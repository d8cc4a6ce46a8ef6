"""`tunewright quantize REF`: a registered version's weights as integers, measured against it, its child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, state_folder


@click.command("quantize")
@click.argument("ref")
@click.option("--to", required=True, type=click.Choice(["int8", "int4"]), help="Integers that the weights become.")
@click.option(
    "--recipe",
    required=True,
    type=click.Path(path_type=Path),
    help="Recipe whose base, test rows, metric, suites and gate the version is measured by.",
)
@click.option("--profile", help="Profile of the recipe, such as smoke; by default the recipe as it stands.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as evaluation.test_rows=60.")
@click.option(
    "--beside",
    multiple=True,
    metavar="REF",
    help="Another version for the table, such as one that was trained for integers; repeat for several.",
)
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
def command(
    ref: str,
    to: str,
    recipe: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    beside: tuple[str, ...],
    home: Path | None,
    as_json: bool,
) -> None:
    """Quantize the weights of REF after training, and register the result as a version with REF as its parent.

    An adapter is merged into its base first. The new version is measured on the recipe's test rows and suites as `run`
    measures, and held against the same gate; no alias is moved. Exit status 3 when the gate says no: the version is
    registered all the same.
    """
    from registry.lookup import Lookup

    # what is misspelt is told before the base is read and frameworks are loaded
    with Lookup(state_folder(home) / "registry") as lookup:
        for name in (ref, *beside):
            lookup.resolve(name)
    from components.models.quantize import check_torchao

    check_torchao()
    job = open_recipe(recipe, profile, overrides, home)
    from components.errors import VerdictError
    from flows.observer import TerminalObserver
    from flows.quantization import quantize_version

    document = quantize_version(job, ref, to, beside, TerminalObserver())
    emit(document, as_json, _render)
    if not document["gate"]["passed"]:
        raise VerdictError(
            f"the gate refused {document['version']}: " + "; ".join(document["gate"]["reasons"]),
            next_step=f"it is registered all the same: tunewright registry show {document['version']}",
        )


def _render(document: dict[str, Any]) -> str:
    from components.evaluation.quantization_table import quantization_table
    from components.evaluation.summary import render_table

    gate = "passes the gate" if document["gate"]["passed"] else "does not pass the gate"
    first = f"{document['version']}  {document['digest'][:12]}  {gate}"
    return f"{first}\n{render_table(quantization_table(document), width=200)}"
