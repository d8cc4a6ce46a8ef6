"""`tunewright bundle REF`: package a registered version with BentoML. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from components.paths import home as default_home
from flows.commands.output import emit, json_option, note

__all__ = ["command"]


@click.command()
@click.argument("ref")
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=default_home,
    show_default="$TUNEWRIGHT_HOME, else .tunewright",
    help="The state folder that holds the registry; the bundle goes to bentoml/ in it.",
)
@click.option("--unproven", is_flag=True, help="Package it although the gate says no, or nothing was measured.")
@json_option
def command(ref: str, home: Path, unproven: bool, as_json: bool) -> None:
    """Package a registered version with BentoML.

    REF is name (its newest version), name:vN, name@alias, or at least 12 hex digits of a version digest. A version
    that is bundled already is not bundled again; one that no alias points at and that doesn't pass its gate is refused,
    unless --unproven is given; a base needs no proof, since nothing was trained into it.
    """
    from deploy.bundle import build_bundle
    from deploy.from_registry import version_files
    from deploy.staging import stage_model
    from registry.store import Registry

    with Registry.open(home / "registry", create=False) as registry:
        files = version_files(registry, ref, proven=not unproven)
    if files.warning:
        note(f"warning: {files.warning}")
    note(f"bundling {files.label}")
    bundle = build_bundle(stage_model(files, out_home=home), out_home=home)
    document = {
        "version": files.label,
        "digest": bundle.digest,
        "tag": bundle.tag,
        "path": str(bundle.path),
        "bytes": bundle.bytes,
        "seconds": round(bundle.seconds, 3),
        "reused": bundle.reused,
    }
    emit(document, as_json, _render)


def _render(document: dict[str, Any]) -> str:
    how = "was there already" if document["reused"] else f"built in {document['seconds']:.1f} s"
    return (
        f"{document['tag']}  {document['bytes'] / 1e6:.0f} MB, {how}\n"
        f"  {document['path']}\n"
        f"  next: tunewright serve {document['version']} --engine bento"
    )
