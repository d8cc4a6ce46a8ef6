"""Aliases that move only with approvals: how many people, set by whom and why. Folded from rows; reads only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from registry.lookup import Query, Statement, has_schema

__all__ = [
    "Protection",
    "has_approvals",
    "protection_statement",
    "query_protection",
    "query_protections",
]

_COLUMNS = "p.id, p.name, p.alias, p.required, p.self_approval, p.actor, p.reason, p.created_at"
_NEWEST = f"""SELECT {_COLUMNS} FROM protections p
    WHERE p.id = (SELECT max(n.id) FROM protections n WHERE n.name = p.name AND n.alias = p.alias)"""


@dataclass(frozen=True)
class Protection:
    """What an alias asks of whoever moves it.

    Attributes:
        id: Of the row that says so.
        required: How many people have to approve; 0 where the protection was lifted.
        self_approval: Whether the approval of whoever registered the version counts.
        actor: Who set it so.
        reason: Why.
        changed_at: When.
    """

    id: int
    name: str
    alias: str
    required: int
    self_approval: bool
    actor: str
    reason: str
    changed_at: str

    def is_weakened_by(self, required: int, self_approval: bool) -> bool:
        """Tell whether that would be a weaker protection, or none."""
        return required < self.required or (required > 0 and self_approval > self.self_approval)

    def to_dict(self) -> dict[str, Any]:
        """Return the protection as plain JSON."""
        return asdict(self)


def has_approvals(query: Query) -> bool:
    """Tell whether there are tables of them: a registry of an earlier release has none until it is opened."""
    return has_schema(query, "0005")


def query_protection(query: Query, name: str, alias: str) -> Protection | None:
    """Return an alias's protection, or None if it has none, or has none any more."""
    rows = query(*protection_statement(name, alias)) if has_approvals(query) else ()
    return next((found for found in map(_protection, rows) if found.required), None)


def protection_statement(name: str, alias: str) -> Statement:
    """Return what `query_protection` asks where there are protections: the alias's newest one."""
    sql = f"SELECT {_COLUMNS} FROM protections p WHERE p.name = ? AND p.alias = ? ORDER BY p.id DESC LIMIT 1"
    return sql, (name, alias)


def query_protections(query: Query, name: str | None = None) -> list[Protection]:
    """Return every protection, or those of one model, by model and alias."""
    if not has_approvals(query):
        return []
    rows = query(_NEWEST, ()) if name is None else query(f"{_NEWEST} AND p.name = ?", (name,))
    found = [one for one in map(_protection, rows) if one.required]
    return sorted(found, key=lambda one: (one.name, one.alias))


def _protection(row: Any) -> Protection:
    number, name, alias, required, self_approval, actor, reason, at = row
    return Protection(number, name, alias, required, bool(self_approval), actor, reason, at)
