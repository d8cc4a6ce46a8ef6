"""What has become of versions: active, deprecated or retired, folded from their events. Reads only, for look-ups too.

A deprecated version works as before, with a warning, and no alias takes it. A retired one is what people call deleted:
its row, manifest and history stay for ever, its bytes may be collected, and nothing uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.entities import Version
from registry.errors import VersionDeprecated, VersionRetired
from registry.lookup import Query, Statement, by_digest, query_of_each, query_versions, schema_statement

__all__ = [
    "ACTIVE",
    "DEPRECATED",
    "HAS_EVENTS",
    "RETIRED",
    "STATES",
    "Status",
    "has_events",
    "query_status",
    "query_statuses",
    "query_statuses_of",
    "require_promotable",
    "require_usable",
    "retired",
    "status_of",
    "status_statement",
]

ACTIVE, DEPRECATED, RETIRED = "active", "deprecated", "retired"
# What a version's newest event makes of it.
STATES = {"restore": ACTIVE, "deprecate": DEPRECATED, "retire": RETIRED}

# What `has_events` asks.
HAS_EVENTS = schema_statement("0004")
_NEWEST = """SELECT e.version_id, e.action, e.actor, e.reason, e.created_at FROM version_events e
    WHERE e.id = (SELECT max(n.id) FROM version_events n WHERE n.version_id = e.version_id)"""


@dataclass(frozen=True)
class Status:
    """A version's state, and who made it so, why and when; None for one that nothing has befallen."""

    state: str = ACTIVE
    actor: str | None = None
    reason: str | None = None
    changed_at: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain JSON."""
        return {"state": self.state, "actor": self.actor, "reason": self.reason, "changed_at": self.changed_at}

    def warning(self, label: str) -> str | None:
        """Return what whoever uses the version is told, or None."""
        if self.state == ACTIVE:
            return None
        return f"{label} is {self.state} since {str(self.changed_at)[:19]}, by {self.actor}: {self.reason}"


def has_events(query: Query) -> bool:
    """Tell whether there is a table of version events: a registry of an earlier release has none until it is opened."""
    return bool(query(*HAS_EVENTS))


def query_statuses(query: Query, name: str | None = None) -> dict[int, Status]:
    """Return the status of every version that something has befallen, of one model or of all, by the version's id."""
    if not has_events(query):
        return {}
    if name is None:
        rows = query(_NEWEST, ())
    else:
        rows = query(f"{_NEWEST} AND e.version_id IN (SELECT id FROM versions WHERE name = ?)", (name,))
    return {row[0]: _status(*row[1:]) for row in rows}


def query_statuses_of(query: Query, ids: Sequence[int]) -> dict[int, Status]:
    """Return the status of each of these versions that something has befallen, by the version's id."""
    if not has_events(query):
        return {}
    rows = query_of_each(query, _NEWEST + " AND e.version_id IN ({})", ids)
    return {row[0]: _status(*row[1:]) for row in rows}


def query_status(query: Query, version: Version) -> Status:
    """Return a version's status."""
    rows = query(*status_statement(version.digest)) if has_events(query) else ()
    return _status(*rows[0]) if rows else Status()


def status_statement(digest: str) -> Statement:
    """Return what `query_status` asks where there are events: a version's newest one.

    By its digest, which manifests name their parents by: it can be asked for together with the version itself.
    """
    return status_of(by_digest(digest))


def status_of(version: Statement) -> Statement:
    """Return what asks for the newest event of the version whose id a statement finds."""
    found, parameters = version
    return (
        f"SELECT action, actor, reason, created_at FROM version_events WHERE version_id = ({found}) "
        "ORDER BY id DESC LIMIT 1",
        parameters,
    )


def _status(action: str, actor: str, reason: str, at: str) -> Status:
    return Status(STATES[action], actor, reason, at)


def require_usable(query: Query, version: Version, act: str) -> Status:
    """Return the status of a version that may be used.

    Args:
        query: The look-ups' query function.
        version: The version.
        act: What it is wanted for, for the message: `checked out`.

    Raises:
        VersionRetired: It is retired.
    """
    status = query_status(query, version)
    if status.state == RETIRED:
        raise retired(status, version, act, _others(query, version, (ACTIVE, DEPRECATED)))
    return status


def retired(status: Status, version: Version, act: str, others: str) -> VersionRetired:
    """Return the error of an act that a retired version isn't there for; `others` are those that are."""
    return VersionRetired(
        f"{status.warning(version.label)}; it can't be {act}",
        allowed=others,
        next_step=f"tunewright registry restore {version.label} --reason ..., while its bytes are there; after "
        "that, registering the same files again brings it back",
    )


def require_promotable(query: Query, version: Version) -> None:
    """Refuse a version that no alias takes.

    Raises:
        VersionRetired: It is retired.
        VersionDeprecated: It is deprecated.
    """
    status = require_usable(query, version, "promoted")
    if status.state == DEPRECATED:
        raise VersionDeprecated(
            f"{status.warning(version.label)}; it can't be promoted",
            allowed=_others(query, version, (ACTIVE,)),
            next_step=f"promote another version, or tunewright registry restore {version.label} --reason ...",
        )


def _others(query: Query, version: Version, states: tuple[str, ...]) -> str:
    statuses = query_statuses(query, version.name)
    found = [
        other.label
        for other in query_versions(query, version.name)
        if statuses.get(other.id, Status()).state in states and other.id != version.id
    ]
    return ", ".join(found[-5:]) or f"no other version of {version.name!r}"
