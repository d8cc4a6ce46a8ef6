"""`tunewright evaluate REF`: general suites on a registered version, and the alignment tax against a baseline."""

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
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
def command(
    ref: str,
    baseline: str | None,
    suites: tuple[str, ...],
    rows: int,
    seed: int,
    max_drop: float,
    home: Path | None,
    as_json: bool,
) -> None:
    """Score REF on general suites; with --baseline, compare both on the same rows."""
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
