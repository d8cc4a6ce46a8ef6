"""`tunewright registry import|export|card`: versions from folders and to folders. Parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.commands.option_types import WORDS
from flows.commands.output import emit, json_option
from flows.commands.registry_options import actor_option, home_option, open_to_read

__all__ = ["card_command", "export_command", "import_command"]


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
    from flows.observer import TerminalObserver, stored_in_mib
    from flows.registry_import import import_folder
    from registry.audit import login_name
    from registry.store import Registry

    def quiet(_done: int, _total: int) -> None:
        """Tell nothing: a document, or a log, has no use of a line that moves."""

    with Registry.open(home / "registry") as registry:
        document = import_folder(
            registry,
            folder,
            name=name,
            kind=kind,
            base=base,
            licence=licence,
            actor=actor or login_name(),
            progress=quiet if as_json or not sys.stderr.isatty() else stored_in_mib(TerminalObserver()),
        )
    emit(document, as_json, _render_import)


@click.command("export")
@click.argument("ref")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["hf", "peft", "vllm", "oci", "gguf"]),
    required=True,
    help="hf: weights for transformers; peft: an adapter; vllm: with the command that serves it; oci: an OCI image "
    "layout; gguf: by llama.cpp's converter, where it is on the PATH.",
)
@click.option(
    "--base-name",
    type=WORDS,
    help="What peft takes for the adapter's base.  [default: its id on the hub, else its registered name]",
)
@home_option
@json_option
def export_command(ref: str, destination: Path, form: str, base_name: str | None, home: Path, as_json: bool) -> None:
    """Write REF to DEST, a new or empty folder, in the form that another tool takes.

    Every byte is verified on the way, and DEST is there whole or not at all. A model card goes with it. An adapter is
    merged into its base for hf, and for vllm where vLLM can't serve it beside its base.
    """
    from flows.registry_export import export_version

    with open_to_read(home) as registry:
        document = export_version(registry, ref, destination, form, base_name=base_name)
    emit(document, as_json, _render_export)


@click.command("card")
@click.argument("ref")
@home_option
@json_option
def card_command(ref: str, home: Path, as_json: bool) -> None:
    """Print REF's model card: README.md in Hugging Face's form, from its manifest and its newest evaluation."""
    from registry.card import card_of

    with open_to_read(home) as registry:
        version = registry.resolve(ref)
        document = {"version": version.label, "digest": version.digest, "card": card_of(registry, version)}
    emit(document, as_json, lambda found: str(found["card"]).rstrip())


def _render_export(document: dict[str, Any]) -> str:
    form = document["format"] + (", merged" if document["merged"] else "")
    return "\n".join(
        [
            f"{document['version']}  {document['digest'][:12]}  as {form}",
            f"  {document['files']} files, {document['bytes']} bytes",
            f"  {document['path']}",
            *(f"  note: {note}" for note in document["notes"]),
            f"  next, from inside it: {document['command']}",
        ]
    )


def _render_import(document: dict[str, Any]) -> str:
    standing = document["standing"]
    lines = [
        f"{document['version']}  {document['kind']}  {document['digest'][:12]}  licence {document['licence']}",
        f"  {document['files']} files, {document['bytes']} bytes, {document['parameters']:,} numbers, all finite; "
        f"{len(document['templates'])} chat template{'' if len(document['templates']) == 1 else 's'} rendered",
    ]
    if document["same_bases"]:
        lines.append(
            f"  its base is {document['base_version']}; registered with the same fingerprints: "
            f"{', '.join(document['same_bases'])}; --base REF takes one of these"
        )
    if document["left_out"]:
        lines.append(f"  not stored: {', '.join(document['left_out'])}")
    if standing["basis"] == "base":
        lines.append("  a base: it may be served and trained on; an alias wants an evaluation")
    elif standing["proven"]:
        lines.append(f"  it was there already, and is proven: {standing['basis']}")
    else:
        lines.append(f"  not proven: {'; '.join(standing['reasons'])}")
    return "\n".join(lines)
