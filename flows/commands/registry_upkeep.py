"""`tunewright registry deprecate|restore|retire|demote|collect`: the life of versions. Parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.commands.option_types import DURATION
from flows.commands.output import emit, json_option
from flows.commands.registry_options import (
    actor_option,
    dry_run_option,
    home_option,
    open_registry,
    reason_option,
    revision_option,
)
from flows.commands.version_text import render_change

__all__ = ["collect_command", "demote_command", "deprecate_command", "restore_command", "retire_command"]


@click.command("deprecate")
@click.argument("ref")
@reason_option
@actor_option
@home_option
@json_option
def deprecate_command(ref: str, reason: str, actor: str | None, home: Path, as_json: bool) -> None:
    """Advise against REF: it is found and served as before, with a warning, and no alias takes it any more."""
    _change_state("deprecate", ref, reason, actor, home, as_json)


@click.command("restore")
@click.argument("ref")
@reason_option
@actor_option
@home_option
@json_option
def restore_command(ref: str, reason: str, actor: str | None, home: Path, as_json: bool) -> None:
    """Make REF active again. A retired version can be restored until its bytes are collected.

    After that, registering the same files again brings it back under its own number.
    """
    _change_state("restore", ref, reason, actor, home, as_json)


@click.command("retire")
@click.argument("ref")
@reason_option
@actor_option
@home_option
@json_option
def retire_command(ref: str, reason: str, actor: str | None, home: Path, as_json: bool) -> None:
    """Take REF out of use for good: it is served, checked out and promoted no more, and its bytes may be collected.

    Its row, manifest, reports and history stay. Refused (exit status 4) while an alias points at it or ever pointed
    at it, and while a version that isn't retired was made from it.
    """
    _change_state("retire", ref, reason, actor, home, as_json)


def _change_state(action: str, ref: str, reason: str, actor: str | None, home: Path, as_json: bool) -> None:
    from registry.audit import login_name

    with open_registry(home) as registry:
        change = getattr(registry, action)(ref, actor=actor or login_name(), reason=reason)
    emit(change.to_dict(), as_json, _render_state)


@click.command("demote")
@click.argument("name")
@click.option("--alias", required=True, help="The alias to take away.")
@reason_option
@revision_option
@actor_option
@dry_run_option
@home_option
@json_option
def demote_command(
    name: str,
    alias: str,
    reason: str,
    expected_revision: int | None,
    actor: str | None,
    dry_run: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Take NAME's alias away. Its history stays, and a later promotion goes on with the next revision."""
    from registry.audit import login_name

    with open_registry(home) as registry:
        change = registry.demote(
            name,
            alias,
            actor=actor or login_name(),
            reason=reason,
            expected_revision=expected_revision,
            dry_run=dry_run,
        )
    emit(change.to_dict(), as_json, render_change)
    if dry_run and not change.changed:
        sys.exit(3)


@click.command("collect")
@click.option(
    "--grace",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long ago it was written, and its version retired: 7d, 12h, 30m, 45s or 0.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@actor_option
@home_option
@json_option
def collect_command(grace: float, dry_run: bool, actor: str | None, home: Path, as_json: bool) -> None:
    """Remove bytes that no version needs any more: of retired versions, and what was never registered.

    Never a byte of a version that isn't retired, or that an alias's history reaches. Safe while others register.
    """
    with open_registry(home) as registry:
        found = registry.collect(actor=actor, grace_seconds=grace, dry_run=dry_run)
    emit(found.to_dict(), as_json, _render_collection)


def _render_collection(document: dict[str, Any]) -> str:
    verb = "would be removed" if document["dry_run"] else "removed"
    text = f"{verb}: {document['blobs']} blobs, {document['bytes']} bytes; {document['checkouts']} checkouts"
    if document["kept"]:
        text += f"\n  {document['kept']} blobs are needed by no version, and younger than the grace period or in use"
    return text


def _render_state(document: dict[str, Any]) -> str:
    label = f"{document['name']}:v{document['version']}"
    if not document["changed"]:
        return f"{label} is {document['state']} already"
    text = f"{label} is {document['state']}, before {document['previous_state']}"
    if document["state"] == "retired":
        text += "; `tunewright registry collect` frees its bytes after the grace period"
    return text
