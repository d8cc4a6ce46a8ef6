"""`tunewright registry import`, and later its siblings: versions from folders and to folders. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.option_types import WORDS
from flows.commands.output import emit, json_option
from flows.commands.registry_options import actor_option, home_option

__all__ = ["import_command"]


@click.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name of the model.")
@click.option(
    "--kind",
    type=click.Choice(["base", "full", "adapter", "merged"]),
    help="What it is.  [default: adapter by its adapter_config.json, full with --base, else base]",
)
@click.option("--base", metavar="REF", help="The registered base of an adapter, or what whole weights were made from.")
@click.option("--licence", type=WORDS, help="Licence of the weights.  [default: as the folder's README.md states it]")
@actor_option
@home_option
@json_option
def import_command(
    folder: Path,
    name: str,
    kind: str | None,
    base: str | None,
    licence: str | None,
    actor: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Register a folder in Hugging Face's form: whole weights, or a peft adapter. Only safetensors.

    All of it is judged before anything is stored: links, pickles, code, headers that lie, numbers that are NaN or
    infinite, hostile chat templates. An import proves nothing: only a base may be served without an evaluation.
    """
    from flows.registry_import import import_folder
    from registry.audit import login_name
    from registry.store import Registry

    with Registry.open(home / "registry") as registry:
        document = import_folder(
            registry, folder, name=name, kind=kind, base=base, licence=licence, actor=actor or login_name()
        )
    emit(document, as_json, _render_import)


def _render_import(document: dict[str, Any]) -> str:
    standing = document["standing"]
    lines = [
        f"{document['version']}  {document['kind']}  {document['digest'][:12]}  licence {document['licence']}",
        f"  {document['files']} files, {document['bytes']} bytes, {document['parameters']:,} numbers, all finite; "
        f"{len(document['templates'])} chat templates rendered",
    ]
    if document["left_out"]:
        lines.append(f"  not stored: {', '.join(document['left_out'])}")
    if standing["basis"] == "base":
        lines.append("  a base: it may be served and trained on; an alias wants an evaluation")
    elif standing["proven"]:
        lines.append(f"  it was there already, and is proven: {standing['basis']}")
    else:
        lines.append(f"  not proven: {'; '.join(standing['reasons'])}")
    return "\n".join(lines)
