"""`tunewright evaluate REF`: general suites on a registered version, and the alignment tax against a baseline; with
`--recipe` its task too, recorded for the gate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from components.errors import InputError
from flows.commands.option_types import FRACTION
from flows.commands.output import emit, json_option
from flows.commands.recipe_options import state_folder


@click.command("evaluate")
@click.argument("ref")
@click.option("--baseline", metavar="REF", help="Compare with this version and give the alignment tax.")
@click.option("--suite", "suites", multiple=True, help="Suite to run; repeat for several. [default: all]")
@click.option("--rows", default=100, show_default=True, type=click.IntRange(1), help="Rows sampled of each suite.")
@click.option("--seed", default=17, show_default=True, help="Seed of the sample.")
@click.option(
    "--max-drop",
    default=0.1,
    show_default=True,
    type=FRACTION,
    help="Largest loss of a suite that passes, from 0 to 1.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="Measure on this recipe's test rows and suites against its base, and record the report for the gate.",
)
@click.option("--profile", help="Profile of the recipe, such as smoke; by default the recipe as it stands.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as evaluation.test_rows=60.")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    ref: str,
    baseline: str | None,
    suites: tuple[str, ...],
    rows: int,
    seed: int,
    max_drop: float,
    recipe: Path | None,
    profile: str | None,
    overrides: tuple[str, ...],
    home: Path | None,
    as_json: bool,
) -> None:
    """Score REF on general suites; with --baseline, compare both on the same rows.

    With --recipe the report is recorded for exactly REF's bytes, and says which policy it is held to: an imported
    version comes to its proof so. Exit status 3 when the gate says no; the report is recorded all the same.
    """
    _check_options(context, recipe)
    if recipe is not None:
        _by_recipe(ref, recipe, profile, overrides, home, as_json)
        return
    from components.evaluation.suites import check_suites

    # what is misspelt is told before files are checked out and frameworks loaded
    check_suites(suites)
    from registry.lookup import Lookup

    with Lookup(state_folder(home) / "registry") as lookup:
        for name in (ref, *([baseline] if baseline else [])):
            lookup.resolve(name)
    from registry.store import Registry

    with Registry.open(state_folder(home) / "registry", create=False) as registry:
        from deploy.from_registry import version_files

        models = {name: version_files(registry, name) for name in (ref, *([baseline] if baseline else []))}
    for files in models.values():
        if files.manifest["kind"] == "head":
            raise InputError(
                f"{files.label} is a head, which answers labels or numbers, and suites want likelihoods of texts",
                allowed="versions that write; a head leaves its base's own scores as they are",
                next_step="evaluate its base: `tunewright registry lineage` names it",
            )
    from components.runtime import prepare_process

    prepare_process()
    from components.evaluation.suites import known_suites, load_suite, run_suite
    from components.evaluation.tax import compare
    from components.models.load import load_as_served
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    loaded = [load_suite(name, rows, seed) for name in suites or known_suites()]
    found: dict[str, list[Any]] = {}
    for name, files in models.items():
        model, tokenizer = load_as_served(
            files.base_folder, adapter=files.adapter_folder, quantization=files.quantization
        )
        found[name] = [
            run_suite(
                model,
                tokenizer,
                suite,
                progress=lambda done, total, what=f"{name}: {suite.name}": observer.progress(what, done, total),  # type: ignore[misc]
            )
            for suite in loaded
        ]
    document: dict[str, Any] = {
        "model": models[ref].label,
        "digest": models[ref].digest,
        "seed": seed,
        "suites": [result.to_dict() for result in found[ref]],
    }
    if baseline:
        document["baseline"] = models[baseline].label
        document["tax"] = compare(found[baseline], found[ref], max_drop=max_drop)
    emit(document, as_json, _render)


def _check_options(context: click.Context, recipe: Path | None) -> None:
    """Refuse what the recipe says itself beside one, and what is a recipe's without one."""
    from click.core import ParameterSource

    own, of_recipes = ("baseline", "suites", "rows", "seed", "max_drop"), ("profile", "overrides")
    wrong = own if recipe is not None else of_recipes
    names = {"suites": "--suite", "overrides": "--set", "max_drop": "--max-drop"}
    given = [name for name in wrong if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        option = names.get(given[0], f"--{given[0]}")
        raise InputError(
            f"{option} {'beside' if recipe is not None else 'without'} --recipe",
            allowed="--recipe with --profile and --set, or --baseline, --suite, --rows, --seed and --max-drop",
            next_step="set evaluation and gate in the recipe, or with --set" if recipe is not None else "add --recipe",
        )


def _by_recipe(
    ref: str, recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool
) -> None:
    from components.errors import VerdictError
    from registry.lookup import Lookup

    # what is misspelt is told before the base is read and frameworks are loaded
    with Lookup(state_folder(home) / "registry") as lookup:
        lookup.resolve(ref)
    from flows.commands.recipe_options import open_recipe
    from flows.observer import TerminalObserver
    from flows.version_evaluation import evaluate_version

    document = evaluate_version(open_recipe(recipe, profile, overrides, home), ref, TerminalObserver())
    emit(document, as_json, _render_report)
    if not document["gate"]["passed"]:
        raise VerdictError(
            f"the gate refused {document['model']}: " + "; ".join(document["gate"]["reasons"]),
            next_step=f"the report is recorded all the same: tunewright registry show {document['model']}",
        )


def _render_report(document: dict[str, Any]) -> str:
    from components.evaluation.result_tables import task_table, tax_table
    from components.evaluation.summary import render_table

    gate = "passes the gate" if document["gate"]["passed"] else "does not pass the gate"
    tables = (render_table(table(document)) for table in (task_table, tax_table))
    return "\n".join([f"{document['model']}  {document['digest'][:12]}  {gate}", *(one for one in tables if one)])


def _render(document: dict[str, Any]) -> str:
    lines = [f"{document['model']}  {document['digest'][:12]}"]
    for s in document["suites"]:
        lines.append(
            f"  {s['suite']:<16}{100 * s['score']:>6.1f} %  ({100 * s['low']:.1f} to {100 * s['high']:.1f}, n={s['n']})"
        )
    for t in document.get("tax", []):
        verdict = "passed" if t["passed"] else "failed"
        lines.append(
            f"  {t['suite']:<16}{100 * t['delta']:>+6.1f} points against {document['baseline']}  "
            f"({100 * t['low']:+.1f} to {100 * t['high']:+.1f}, n={t['n']}): {verdict}"
        )
    return "\n".join(lines)
