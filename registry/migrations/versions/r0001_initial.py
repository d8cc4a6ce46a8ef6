"""The first schema: versions, parents, evaluations, alias events, audit chain, outbox, and their triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry.migrations.rules import insert_only, insert_rule, only_forward, prepare_rules, string

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSERT_ONLY = ("versions", "version_parents", "evaluations", "alias_events", "audit", "outbox")

# What makes a row a second one on a key that is taken.
TAKEN = {
    "versions": "id = NEW.id OR digest = NEW.digest OR (name = NEW.name AND number = NEW.number)"
    " OR (name = NEW.name AND content_key = NEW.content_key)",
    "version_parents": "id = NEW.id OR (child_id = NEW.child_id AND parent_id = NEW.parent_id AND role = NEW.role)",
    "evaluations": "id = NEW.id",
    "alias_events": "id = NEW.id OR (name = NEW.name AND alias = NEW.alias AND revision = NEW.revision)",
    "audit": "sequence = NEW.sequence OR hash = NEW.hash",
    "outbox": "id = NEW.id",
}


def upgrade() -> None:
    """Create the tables, then the rules that hold against every client of the database."""
    _create_tables()
    prepare_rules()
    for table in INSERT_ONLY:
        insert_only(table, TAKEN[table])
    insert_rule(
        "alias_events",
        "one_chain",
        "NEW.revision IS DISTINCT FROM 1 + "
        "(SELECT coalesce(max(revision), 0) FROM alias_events WHERE name = NEW.name AND alias = NEW.alias)",
        "alias_events: revision is not the next one",
    )
    insert_rule(
        "alias_events",
        "own_versions",
        "NEW.version_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name)",
        "alias_events: the version is not one of this model",
    )
    insert_rule(
        "audit",
        "one_chain",
        "NEW.sequence IS DISTINCT FROM 1 + "
        "(SELECT coalesce(max(sequence), 0) FROM audit) OR NEW.previous_hash IS DISTINCT FROM coalesce("
        "(SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), "
        "'0000000000000000000000000000000000000000000000000000000000000000')",
        "audit: the row does not continue the chain",
    )


def _create_tables() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", string(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", string(64), nullable=False),
        sa.Column("kind", string(16), nullable=False),
        sa.Column("base_fingerprint", string(64)),
        sa.Column("content_key", string(256)),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.UniqueConstraint("digest", name="uq_versions_digest"),
        sa.UniqueConstraint("name", "number", name="uq_versions_number"),
        sa.UniqueConstraint("name", "content_key", name="uq_versions_content_key"),
        sa.CheckConstraint("number >= 1", name="ck_versions_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_versions_base_fingerprint", "versions", ["base_fingerprint"])
    op.create_table(
        "version_parents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("child_id", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("role", string(32), nullable=False),
        sa.Column("weight", sa.Float),
        sa.UniqueConstraint("child_id", "parent_id", "role", name="uq_version_parents_edge"),
        sa.CheckConstraint("parent_id < child_id", name="ck_version_parents_older"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_version_parents_parent", "version_parents", ["parent_id"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("digest", string(64), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_evaluations_version", "evaluations", ["version_id", "id"])
    op.create_table(
        "alias_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", string(128), nullable=False),
        sa.Column("alias", string(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id")),
        sa.Column("action", string(16), nullable=False),
        sa.Column("actor", string(128), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("evaluation_id", sa.Integer, sa.ForeignKey("evaluations.id")),
        sa.Column("gate", sa.Text),
        sa.Column("created_at", string(32), nullable=False),
        sa.UniqueConstraint("name", "alias", "revision", name="uq_alias_events_revision"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.Column("actor", string(128), nullable=False),
        sa.Column("action", string(16), nullable=False),
        sa.Column("subject", string(256), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("previous_hash", string(64), nullable=False),
        sa.Column("hash", string(64), nullable=False),
        sa.UniqueConstraint("hash", name="uq_audit_hash"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("created_at", string(32), nullable=False),
        sa.Column("topic", string(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


downgrade = only_forward
