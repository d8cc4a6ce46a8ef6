"""What a person is told of a version (where it came from, what was measured, what the gate says) and of an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import interval, percent, points
from registry.names import one_line

__all__ = ["gate_notes", "render_change", "render_version"]

# checks whose value counts rows, suites or people, and the one whose value is a score; the others gain or lose points
COUNTED = ("task_rows", "suites", "approvals")
SCORED = "champion"


def render_version(document: dict[str, Any]) -> str:
    """Return the text of a version.

    Args:
        document: What `registry show --json` prints.
    """
    manifest = document["manifest"]
    lines = [f"{document['name']}:v{document['version']}  {document['kind']}  {document['digest']}"]
    if document["state"] != "active":
        status = document["status"]
        lines.append(f"  {status['state']} since {status['changed_at'][:19]} by {status['actor']}: {status['reason']}")
    lines += [f"  @{a['alias']} since {a['changed_at'][:19]} (revision {a['revision']})" for a in document["aliases"]]
    lines += [f"  parent  {p['role']:8} {p['digest'][:12]}" for p in manifest["parents"]]
    lines += [f"  data    {digest[:12]}  {path}" for path, digest in manifest["data_digests"].items()]
    lines += [f"  file    {f['sha256'][:12]}  {f['size']:>12}  {path}" for path, f in manifest["files"].items()]
    for key in ("base_fingerprint", "licence", "seed", "code_revision", "flow_run_id", "content_key"):
        if manifest[key] is not None:
            lines.append(f"  {key}: {manifest[key]}")
    kept = "kept; `registry verify-signature` says with the key whether it holds"
    lines += [f"  signature of the key {key[:12]} {kept}" for key in document["signatures"]]
    lines += [f"  served only with a signature of the key {key[:12]}" for key in document["required_keys"] or ()]
    lines.append(f"  evaluations: {len(document['evaluations'])}")
    if document["evaluations"]:
        lines += _measured(document["evaluations"][0])
    if document["kind"] == "base" and not document["evaluations"]:
        lines.append("  gate: a base needs no proof to be served: nothing was trained into it")
        return "\n".join(lines)
    lines.append("  gate: " + ("passes" if document["gate"]["passed"] else "refuses"))
    lines += [f"    {_check(check)}" for check in document["gate"]["checks"]]
    lines += [f"    {note}" for note in gate_notes(document["gate"])]
    return "\n".join(lines)


def render_change(document: dict[str, Any]) -> str:
    """Return the text of an alias's step.

    Args:
        document: What `registry promote --json` prints.
    """
    subject = f"{document['name']}@{document['alias']}"
    gate = document["gate"]
    if gate is not None and not gate["passed"]:
        return "\n".join([f"{subject} would be refused {document['current']}:", *(f"  - {r}" for r in gate["reasons"])])
    asked = document["approvals"]
    if document["dry_run"] and asked is not None and asked["missing"]:
        what = document["current"] or "to point at nothing"
        return (
            f"{subject} would be refused {what}:\n"
            f"  - {len(asked['given'])} of {asked['required']} approvals: {asked['missing']} missing"
        )
    if not document["changed"]:
        return f"{subject} points at {document['current']} already (revision {document['revision']})"
    verb = "would point" if document["dry_run"] else "points"
    if document["current"] is None:
        return f"{subject} {verb} at nothing (revision {document['revision']}, before {document['previous']})"
    before = f", before {document['previous']}" if document["previous"] else ""
    line = f"{subject} {verb} at {document['current']} (revision {document['revision']}{before})"
    return "\n".join([line, *(f"  {note}" for note in gate_notes(gate))])


def gate_notes(gate: Mapping[str, Any] | None) -> list[str]:
    """Say what passed without being measured: a champion that could not be compared with."""
    return [f"note: {c['reason']}" for c in (gate or {}).get("checks", ()) if c["passed"] and c["reason"]]


def _measured(evaluation: Mapping[str, Any]) -> list[str]:
    """Tell the newest evaluation's scores; a report may be anybody's, and lack any of them."""
    report = evaluation["report"]
    task = report.get("task")
    lines = [f"  newest, of {evaluation['created_at'][:19]}:"]
    if isinstance(task, Mapping):
        lines.append(f"    task {_text(task.get('metric'))}, {_compared(task)}")
    tax = report.get("tax")
    for suite in tax if isinstance(tax, list) else ():
        if isinstance(suite, Mapping):
            lines.append(f"    suite {_text(suite.get('suite'))}, {_compared(suite)}")
    return lines


def _text(value: object) -> str:
    """Return a name on one line; an earlier release took any."""
    return one_line(str(value or ""), 256) or ""


def _compared(found: Mapping[str, Any]) -> str:
    between = interval(found.get("low"), found.get("high"), signed=True)
    return (
        f"n={found.get('n', '?')}: base {percent(found.get('base'))}, tuned {percent(found.get('tuned'))}, "
        f"{points(found.get('delta'))} points (95 % interval {between})"
    )


def _check(check: Mapping[str, Any]) -> str:
    told = points if check["name"] not in (*COUNTED, SCORED) else percent if check["name"] == SCORED else str
    value, bound = (None if check[key] is None else told(check[key]) for key in ("value", "bound"))
    numbers = f" {value}" if value is not None else ""
    numbers += f", at least {bound} asked" if bound is not None else ""
    failed = "" if check["passed"] else f": {check['reason']}"
    return f"{'passed' if check['passed'] else 'FAILED'}  {check['name']}{numbers}{failed}"
