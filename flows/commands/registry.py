"""`tunewright registry`: look up, promote, roll back and verify model versions. Parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.commands import (
    registry_approvals,
    registry_files,
    registry_mirror,
    registry_search,
    registry_serve,
    registry_signing,
    registry_token,
    registry_upkeep,
    registry_webhook,
)
from flows.commands.group import VerbGroup
from flows.commands.option_types import WORDS
from flows.commands.output import emit, json_option, note
from flows.commands.registry_options import (
    actor_option,
    dry_run_option,
    home_option,
    open_registry,
    open_to_read,
    policy_option,
    read_policy,
    reason_option,
    revision_option,
)
from flows.commands.version_text import render_change, render_version

__all__ = ["command"]


@click.group(cls=VerbGroup)
def command() -> None:
    """Look up, promote, roll back and verify model versions.

    REF is name (its newest version), name:vN, name@alias, or at least 12 hex digits of a version digest.
    """


for verb in (
    registry_files.import_command,
    registry_files.export_command,
    registry_files.card_command,
    registry_signing.sign_command,
    registry_signing.verify_signature_command,
    registry_search.search_command,
    registry_search.trained_on_command,
    registry_serve.serve_command,
    registry_token.token_group,
    registry_webhook.webhook_group,
    registry_mirror.mirror_command,
    registry_upkeep.deprecate_command,
    registry_upkeep.restore_command,
    registry_upkeep.retire_command,
    registry_upkeep.demote_command,
    registry_upkeep.collect_command,
    registry_approvals.protect_command,
    registry_approvals.unprotect_command,
    registry_approvals.approve_command,
    registry_approvals.withdraw_command,
    registry_approvals.approvals_command,
):
    command.add_command(verb)


@command.command("ls")
@click.argument("ref", required=False)
@home_option
@json_option
def list_versions(ref: str | None, home: Path, as_json: bool) -> None:
    """List versions with their aliases: all, those of one model by its name, or the one that REF names."""
    from registry.lookup import Lookup
    from registry.status import Status, query_statuses

    aliases: dict[str, list[str]] = {}
    with Lookup(home / "registry") as lookup:
        # an unknown name is an error that says what exists
        named = None if ref is None else lookup.resolve(ref)
        name = None if named is None else named.name
        for state in lookup.aliases(name):
            aliases.setdefault(state.digest, []).append(state.alias)
        versions = [named] if named is not None and ref != name else lookup.versions(name)
        statuses = query_statuses(lookup.query, name)
    rows = [
        {**v.to_dict(), "state": statuses.get(v.id, Status()).state, "aliases": aliases.get(v.digest, [])}
        for v in versions
    ]
    emit({"versions": rows}, as_json, _render_versions)


@command.command("resolve")
@click.argument("ref")
@click.option("--checkout", is_flag=True, help="Lay the files out, verified, if they aren't yet.")
@home_option
@json_option
def resolve(ref: str, checkout: bool, home: Path, as_json: bool) -> None:
    """Say which version REF names, and where its files are checked out."""
    from registry.lookup import Lookup
    from registry.status import RETIRED, query_status

    with Lookup(home / "registry") as lookup:
        version = lookup.resolve(ref)
        status = query_status(lookup.query, version)
    if checkout:
        with open_registry(home) as registry:
            registry.checkout(version.digest)
    path = None if status.state == RETIRED else lookup.checkout_path(version)
    if warning := status.warning(version.label):
        note(f"warning: {warning}")
    document = {**version.to_dict(), "state": status.state, "path": None if path is None else str(path)}
    emit(document, as_json, _render_resolved)


@command.command("show")
@click.argument("ref")
@click.option(
    "--alias", default="champion", show_default=True, help="The gate compares REF with what this alias holds, too."
)
@home_option
@json_option
def show(ref: str, alias: str, home: Path, as_json: bool) -> None:
    """Show REF's manifest, aliases, evaluations, and what the gate says of it."""
    from registry.errors import PolicyInvalid
    from registry.gate import Check, GateResult, effective_policy
    from registry.signatures import required_keys, signing_keys

    with open_to_read(home) as registry:
        version = registry.resolve(ref)
        reports = registry.evaluations(version.digest)
        policy, asked = None, None
        try:
            asked = required_keys(registry, version)
            policy = effective_policy(None, reports[0].report if reports else None)
            gate = registry.check_gate(version.digest, policy, alias)
        except PolicyInvalid as error:  # what no promotion gets past is still to be seen
            gate = GateResult(False, (error.problem,), (Check("policy", False, None, None, error.problem),))
        status = registry.status(version.digest)
        document = {
            **version.to_dict(),
            "state": status.state,
            "status": status.to_dict(),
            "aliases": [a.to_dict() for a in registry.aliases(version.name) if a.digest == version.digest],
            "manifest": version.manifest.to_dict(),
            "evaluations": [e.to_dict() for e in reports],
            "policy": None if policy is None else policy.to_dict(),
            "gate": gate.to_dict(),
            "signatures": signing_keys(registry, version),
            "required_keys": asked,
        }
    if warning := status.warning(version.label):
        note(f"warning: {warning}")
    emit(document, as_json, render_version)


@command.command("promote")
@click.argument("ref")
@click.option("--alias", required=True, help="The alias to move, `champion` for instance.")
@policy_option
@revision_option
@actor_option
@click.option("--reason", type=WORDS, default=None, help="Why, for the audit trail.")
@dry_run_option
@home_option
@json_option
def promote(
    ref: str,
    alias: str,
    policy_file: Path | None,
    expected_revision: int | None,
    actor: str | None,
    reason: str | None,
    dry_run: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Let an alias point at REF, if its newest evaluation satisfies the policy and holds against what is there."""
    from registry.audit import login_name

    with open_registry(home) as registry:
        change = registry.promote(
            ref,
            alias,
            policy=read_policy(policy_file),
            actor=actor or login_name(),
            reason=reason,
            expected_revision=expected_revision,
            dry_run=dry_run,
        )
    if policy_file is not None and not change.changed and not change.dry_run:
        note(
            f"note: {change.name}@{change.alias} points at it already: nothing was recorded, {policy_file} neither; "
            "what it asks for holds once a promotion under it moves the alias"
        )
    emit(change.to_dict(), as_json, render_change)
    if change.gate is not None and not change.gate.passed:
        sys.exit(3)


@command.command("rollback")
@click.argument("name")
@click.option("--alias", default="champion", show_default=True, help="The alias to move back.")
@click.option("--to", default=None, help="vN or a REF that held the alias.  [default: the one before]")
@reason_option
@revision_option
@actor_option
@dry_run_option
@home_option
@json_option
def rollback(
    name: str,
    alias: str,
    to: str | None,
    reason: str,
    expected_revision: int | None,
    actor: str | None,
    dry_run: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Move NAME's alias back to a version that held it before; nothing is evaluated again."""
    from registry.audit import login_name

    with open_registry(home) as registry:
        change = registry.rollback(
            name,
            alias,
            to=to,
            actor=actor or login_name(),
            reason=reason,
            expected_revision=expected_revision,
            dry_run=dry_run,
        )
    emit(change.to_dict(), as_json, render_change)
    if dry_run and not change.changed:
        sys.exit(3)


@command.command("lineage")
@click.argument("ref")
@click.option(
    "--direction",
    type=click.Choice(["both", "up", "down"]),
    default="both",
    show_default=True,
    help="Up: what it was made from. Down: what was made from it.",
)
@home_option
@json_option
def lineage(ref: str, direction: str, home: Path, as_json: bool) -> None:
    """Show what REF was made from, and what was made from it."""
    from registry.lineage import trace
    from registry.lookup import Lookup

    with Lookup(home / "registry") as lookup:
        found = trace(lookup.query, lookup.resolve(ref)).towards(direction)
    emit(found.to_dict(), as_json, _render_lineage)


@command.command("runs")
@click.argument("name", required=False)
@home_option
@json_option
def runs(name: str | None, home: Path, as_json: bool) -> None:
    """List the trials of sweeps: all, or those for the model NAME."""
    from registry.errors import VersionNotFound
    from registry.lookup import Lookup
    from registry.runs import EVERY, query_runs

    where = (EVERY, ()) if name is None else ("name = ?", (name,))
    with Lookup(home / "registry") as lookup:
        found = query_runs(lookup.query, *where)
        if name is not None and not found:
            swept = sorted({run.name for run in query_runs(lookup.query)})
            raise VersionNotFound(
                f"no runs of {name!r}",
                allowed=", ".join(swept) or "nothing: there are no runs yet",
                next_step="name one of these, or make some with `tunewright sweep RECIPE`",
            )
    emit({"runs": [run.to_dict() for run in found]}, as_json, _render_runs)


@command.command("verify")
@click.argument("ref", required=False)
@home_option
@json_option
def verify(ref: str | None, home: Path, as_json: bool) -> None:
    """Read every byte of REF, or of every version, and the whole audit chain. Exit status 3 if anything is damaged.

    Signatures are looked at by `verify-signature` alone, which is told whose key is trusted.
    """
    with open_to_read(home) as registry:
        found = registry.verify(ref)
    emit(found.to_dict(), as_json, _render_verification)
    if not found.intact:
        sys.exit(3)


@command.command("audit")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only rows above this sequence number.")
@home_option
@json_option
def audit(after: int, home: Path, as_json: bool) -> None:
    """Show who did what, oldest first; the chain is verified first."""
    from registry.audit import read_chain, verify_chain
    from registry.lookup import Lookup

    with Lookup(home / "registry") as lookup, lookup.snapshot():
        head = verify_chain(lookup.query)
        rows = [entry.to_dict() for entry in read_chain(lookup.query, after=after)]
    emit({"head": head, "entries": rows}, as_json, _render_audit)


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _render_versions(document: dict[str, Any]) -> str:
    if not document["versions"]:
        return "no versions yet"
    rows = [["version", "kind", "digest", "base", "created", "state", "aliases"]]
    for v in document["versions"]:
        label = f"{v['name']}:v{v['version']}"
        base = (v["base"] or "-")[:12]
        marks = ", ".join(v["aliases"]) or "-"
        rows.append([label, v["kind"], v["digest"][:12], base, v["created_at"][:19], v["state"], marks])
    return _table(rows)


def _render_resolved(document: dict[str, Any]) -> str:
    path = document["path"] or ("none" if document["state"] == "retired" else "not checked out; add --checkout")
    rows = [[key, str(document[key])] for key in ("name", "version", "digest", "kind", "base", "state")]
    return _table([*rows, ["path", path]])


def _render_lineage(document: dict[str, Any]) -> str:
    labels = {node["id"]: node["label"] for node in document["nodes"]}
    lines = []
    for node in document["nodes"]:
        marks = " ".join(f"@{alias}" for alias in node["aliases"])
        where = {"self": "*", "up": "^", "down": "v"}[node["direction"]]
        if node["state"] not in (None, "active"):
            marks = f"{marks} ({node['state']})".strip()
        lines.append(f"{where} {node['label']}  {node['kind'] or 'data'}  {node['id'][:12]}  {marks}".rstrip())
        if node["decision_override"]:
            lines.append(f"    trained against the verdict: {node['decision_override']}")
        incoming = [edge for edge in document["edges"] if edge["target"] == node["id"]]
        lines += [f"    <- {labels[edge['source']]} ({edge['role']}{_weight(edge)})" for edge in incoming]
    return "\n".join(lines)


def _render_runs(document: dict[str, Any]) -> str:
    if not document["runs"]:
        return "no runs yet; `tunewright sweep RECIPE` makes some"
    rows = [["model", "sweep", "trial", "digest", "base", "created", "what"]]
    for run in document["runs"]:
        rows.append([run["name"], run["sweep"][:12], str(run["number"]), run["digest"][:12], run["base"][:12],
                     run["created_at"][:19], str(run["document"].get("summary", ""))])  # fmt: skip
    return _table(rows)


def _weight(edge: dict[str, Any]) -> str:
    return "" if edge["weight"] is None else f", weight {edge['weight']}"


def _render_verification(document: dict[str, Any]) -> str:
    looked = (
        f"{document['versions']} versions, {document['files']} files, {document['bytes']} bytes, "
        f"{document['audit_rows']} audit rows"
    )
    if document["intact"]:
        return f"intact: {looked}; audit head {document['audit_head']}"
    lines = [f"{p['subject']}{' ' + p['path'] if p['path'] else ''}: {p['problem']}" for p in document["problems"]]
    return "\n".join([f"DAMAGED: {looked}", *(f"  - {line}" for line in lines)])


def _render_audit(document: dict[str, Any]) -> str:
    rows = [["#", "at", "actor", "action", "subject", "hash"]]
    for e in document["entries"]:
        rows.append([str(e["sequence"]), e["at"][:19], e["actor"], e["action"], e["subject"], e["hash"][:12]])
    return _table(rows)
