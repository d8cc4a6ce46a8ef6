"""Deprecating, restoring and retiring a version: refused or written, inside the caller's one write transaction.

The migration's triggers hold the same rules against every client of the database; here they are told with what helps.
"""

from __future__ import annotations

from registry import audit
from registry.entities import Version, VersionChange
from registry.errors import ReasonMissing, VersionHeld, VersionRetired
from registry.lookup import Query, query_aliases
from registry.promotion import emit
from registry.schema import version_events
from registry.status import RETIRED, STATES, Status, query_status, query_statuses_of
from registry.writer import Writer

__all__ = ["change_state", "check_reason", "check_restorable", "holders"]


def check_reason(act: str, reason: str | None) -> None:
    """Refuse an act that comes without a reason.

    Raises:
        ReasonMissing: There is none, or white space.
    """
    if not reason or not reason.strip():
        raise ReasonMissing(f"{act} without a reason", allowed="a text that says why", next_step="--reason")


def holders(query: Query, version: Version) -> list[str]:
    """Say what a version can't be retired for: aliases, their histories, and versions that were made from it.

    An adapter has its base among its parents, so that a base is held by everything that needs its weights.
    """
    present = {state.alias for state in query_aliases(query, version.name) if state.digest == version.digest}
    past = [
        row[0]
        for row in query(
            "SELECT DISTINCT alias FROM alias_events WHERE name = ? AND version_id = ? ORDER BY alias",
            (version.name, version.id),
        )
    ]
    found = [
        f"{version.name}@{alias} " + ("points at it" if alias in present else "pointed at it before") for alias in past
    ]
    children = query(
        "SELECT DISTINCT v.id, v.name, v.number FROM version_parents p JOIN versions v ON v.id = p.child_id "
        "WHERE p.parent_id = ? ORDER BY v.id",
        (version.id,),
    )
    statuses = query_statuses_of(query, [row[0] for row in children])
    for child, name, number in children:
        if statuses.get(child, Status()).state != RETIRED:
            found.append(f"{name}:v{number} was made from it")
    return found


def check_restorable(query: Query, version: Version) -> None:
    """Refuse to bring a version back whose parents are retired.

    Raises:
        VersionRetired: A parent is.
    """
    parents = query(
        "SELECT DISTINCT v.id, v.name, v.number FROM version_parents p JOIN versions v ON v.id = p.parent_id "
        "WHERE p.child_id = ? ORDER BY v.id",
        (version.id,),
    )
    statuses = query_statuses_of(query, [row[0] for row in parents])
    retired = [
        f"{name}:v{number}" for parent, name, number in parents if statuses.get(parent, Status()).state == RETIRED
    ]
    if retired:
        raise VersionRetired(
            f"{version.label} was made from {', '.join(retired)}, which is retired",
            allowed="a version whose parents are not retired",
            next_step=f"tunewright registry restore {retired[0]} --reason ... first",
        )


def change_state(writer: Writer, version: Version, action: str, *, actor: str, reason: str) -> VersionChange:
    """Write a version's event with its audit row and its outbox row, if it isn't in that state already.

    Args:
        writer: Of the write transaction.
        version: The version.
        action: deprecate, restore or retire. Whoever restores a retired version has looked that its bytes are there.
        actor: Who does it.
        reason: Why.

    Raises:
        VersionRetired: A retired version can't be deprecated, nor one restored whose parent is retired.
        VersionHeld: What is to be retired is needed; names by what.
    """
    query = writer.query
    before = query_status(query, version)
    at = audit.now()
    change = VersionChange(
        version.name, version.version, version.digest, action, STATES[action], before.state, actor, reason, at
    )
    if not change.changed:
        return change
    _check(query, version, action, before.state)
    writer.insert(
        version_events,
        {"version_id": version.id, "action": action, "actor": actor, "reason": reason, "created_at": at},
    )
    payload = {"name": version.name, "version": version.version, "digest": version.digest, "reason": reason}
    text = audit.append(writer, at=at, actor=actor, action=action, subject=version.label, payload=payload)
    emit(writer, at, f"version.{action}", text)
    return change


def _check(query: Query, version: Version, action: str, state: str) -> None:
    if action == "deprecate" and state == RETIRED:
        raise VersionRetired(
            f"{version.label} is retired, which says more than deprecated",
            allowed="an active version",
            next_step=f"tunewright registry restore {version.label} --reason ... first",
        )
    if action == "restore":
        check_restorable(query, version)
    if action == "retire" and (held := holders(query, version)):
        raise VersionHeld(
            f"{version.label} can't be retired: "
            + "; ".join(held[:5])
            + (f"; and {len(held) - 5} more" if len(held) > 5 else ""),
            allowed="a version that no alias points at or ever pointed at, and that no version was made from that "
            "isn't retired itself",
            next_step=f"tunewright registry deprecate {version.label} --reason ... keeps aliases from it"
            if any("pointed" in one or "points" in one for one in held)
            else f"tunewright registry lineage {version.label} shows what was made from it; retire that first",
        )
