"""Does the database have what the audit chain tells of, and nothing else? Each row is held against its own audit row.

One pass over the chain and one over each table, so that a registry of any size is asked as often as a small one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from registry.audit import read_chain
from registry.entities import AuditEntry
from registry.lookup import Query
from registry.protection import has_approvals
from registry.runs import has_runs
from registry.status import STATES, has_events

__all__ = ["differences_from_audit"]

# What each table says of its rows in the words of `_said_by`, the time last; of one that earlier releases hadn't, with
# what tells whether it is there.
_HELD: dict[str, tuple[str, Callable[[Query], bool] | None]] = {
    "register": ("SELECT name || ':v' || number || ' ' || digest || ' ' || created_at FROM versions", None),
    "evaluate": (
        "SELECT v.digest || ' ' || e.digest || ' ' || e.created_at "
        "FROM evaluations e JOIN versions v ON v.id = e.version_id",
        None,
    ),
    "alias": (
        "SELECT e.name || '@' || e.alias || ' ' || e.revision || ' ' || coalesce(v.digest, 'nothing') || ' ' "
        "|| e.action || ' ' || e.created_at FROM alias_events e LEFT JOIN versions v ON v.id = e.version_id",
        None,
    ),
    "run": (
        "SELECT name || ' ' || sweep || ' ' || number || ' ' || digest || ' ' || created_at FROM runs",
        has_runs,
    ),
    "state": (
        "SELECT v.name || ':v' || v.number || ' ' || v.digest || ' ' || e.action || ' ' || e.created_at "
        "FROM version_events e JOIN versions v ON v.id = e.version_id",
        has_events,
    ),
    "approval": (
        "SELECT digest || ' ' || action || ' ' || actor || ' ' || created_at FROM approvals",
        has_approvals,
    ),
    "protection": (
        "SELECT name || '@' || alias || ' ' || required || ' ' || self_approval || ' ' || actor || ' ' || created_at "
        "FROM protections",
        has_approvals,
    ),
}


def differences_from_audit(query: Query) -> Iterator[str]:
    """Say where rows and the audit chain differ.

    Every version, report, run, step of an alias or of a version, approval and protection has one audit row that says
    the same, with the same time; and the reverse. Whether the chain itself holds is `verify_chain`'s to say.

    Args:
        query: The look-ups' query function, in one snapshot.
    """
    told: dict[str, Counter[str]] = {kind: Counter() for kind in _HELD}
    for entry in read_chain(query):
        try:
            said = _said_by(entry)
        except (ValueError, KeyError, TypeError):
            yield f"row {entry.sequence} can't be read"
            continue
        if said is not None:
            kind, what = said
            told[kind][f"{what} {entry.at}"] += 1
    for kind, (sql, has_table) in _HELD.items():
        rows = query(sql, ()) if has_table is None or has_table(query) else ()
        yield from _differences(kind, (str(row[0]) for row in rows), told[kind])


def _said_by(entry: AuditEntry) -> tuple[str, str] | None:
    """Return which rows an audit row tells of and what it says of its own, but for the time; None where of none.

    Raises:
        ValueError, KeyError, TypeError: The payload isn't one of this action.
    """
    p = json.loads(entry.payload_json)
    if entry.action == "register":
        return "register", f"{p['name']}:v{p['version']} {p['digest']}"
    if entry.action == "evaluate":
        return "evaluate", f"{p['digest']} {p['evaluation']}"
    if entry.action == "run":
        return "run", f"{p['name']} {p['sweep']} {p['number']} {p['digest']}"
    if entry.action in ("promote", "rollback", "demote"):
        return "alias", f"{p['name']}@{p['alias']} {p['revision']} {p['digest'] or 'nothing'} {entry.action}"
    if entry.action in STATES:
        return "state", f"{p['name']}:v{p['version']} {p['digest']} {entry.action}"
    if entry.action in ("approve", "withdraw"):
        return "approval", f"{p['matter']} {entry.action} {entry.actor}"
    if entry.action in ("protect", "unprotect"):
        told = f"{p['name']}@{p['alias']} {p['required']} {int(p['self_approval'])} {entry.actor}"
        return "protection", told
    return None


def _differences(kind: str, have: Iterable[str], said: Counter[str]) -> Iterator[str]:
    """Say what rows and their audit rows don't have in common; `said` is used up."""
    extra = []
    for one in have:
        if said[one]:
            said[one] -= 1
        else:
            extra.append(one)
    gone: dict[str, list[str]] = {}
    for one in sorted(said.elements()):
        what, _, at = one.rpartition(" ")
        gone.setdefault(what, []).append(at)
    for one in sorted(extra):
        what, _, at = one.rpartition(" ")
        if gone.get(what):
            yield f"{what}: written at {at} as the database has it, at {gone[what].pop(0)} as the audit has it"
        else:
            yield f"{one}: in the database, without its {kind} row in the audit"
    for what, times in gone.items():
        for at in times:
            yield f"{what} {at}: in the audit, gone from the database"
