"""What becomes of a version after its registration: deprecated, restored, retired. And aliases that are taken away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry.migrations.rules import insert_only, insert_rule, only_forward, string

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def newest(version: str) -> str:
    """Return the SQL of a version's newest action; NULL where it has none."""
    return f"(SELECT action FROM version_events WHERE version_id = {version} ORDER BY id DESC LIMIT 1)"


def upgrade() -> None:
    """Create the table, its rules, and what they mean for aliases and parents."""
    op.create_table(
        "version_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("action", string(16), nullable=False),
        sa.Column("actor", string(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.CheckConstraint("action IN ('deprecate', 'restore', 'retire')", name="ck_version_events_action"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_version_events_version", "version_events", ["version_id", "id"])
    insert_only("version_events", "id = NEW.id")
    state = f"coalesce({newest('NEW.version_id')}, 'restore')"
    insert_rule(
        "version_events",
        "steps",
        f"(NEW.action = 'deprecate' AND {state} <> 'restore') OR (NEW.action <> 'deprecate' AND {state} = NEW.action)",
        "version_events: the version is in another state",
    )
    insert_rule(
        "version_events",
        "held",
        "NEW.action = 'retire' AND (EXISTS (SELECT 1 FROM alias_events WHERE version_id = NEW.version_id) OR EXISTS "
        "(SELECT 1 FROM version_parents p WHERE p.parent_id = NEW.version_id "
        f"AND coalesce({newest('p.child_id')}, 'restore') <> 'retire'))",
        "version_events: an alias or a version that is not retired needs it",
    )
    insert_rule(
        "version_events",
        "parents",
        "NEW.action = 'restore' AND EXISTS (SELECT 1 FROM version_parents p WHERE p.child_id = NEW.version_id "
        f"AND {newest('p.parent_id')} = 'retire')",
        "version_events: a parent is retired",
    )
    insert_rule(
        "version_parents",
        "not_retired",
        f"{newest('NEW.parent_id')} = 'retire'",
        "version_parents: the parent is retired",
    )
    insert_rule(
        "alias_events",
        "not_retired",
        f"coalesce({newest('NEW.version_id')}, 'restore') = 'retire' "
        f"OR (NEW.action = 'promote' AND {newest('NEW.version_id')} = 'deprecate')",
        "alias_events: the version is retired or deprecated",
    )
    insert_rule(
        "alias_events",
        "demotions",
        "(NEW.version_id IS NULL) <> (NEW.action = 'demote')",
        "alias_events: a demotion, and nothing else, points at nothing",
    )


downgrade = only_forward
