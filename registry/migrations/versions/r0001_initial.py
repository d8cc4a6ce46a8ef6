"""The first schema: versions, parents, evaluations, alias events, audit chain, outbox, and their triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSERT_ONLY = ("versions", "version_parents", "evaluations", "alias_events", "audit", "outbox")

# INSERT OR REPLACE deletes without firing delete triggers, so a second row on any key is refused before that.
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
    for table in INSERT_ONLY:
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END"
            )
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {TAKEN[table]}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only: this key is taken'); END"
        )
    op.execute(
        "CREATE TRIGGER alias_events_one_chain BEFORE INSERT ON alias_events WHEN NEW.revision IS NOT 1 + "
        "(SELECT coalesce(max(revision), 0) FROM alias_events WHERE name = NEW.name AND alias = NEW.alias) "
        "BEGIN SELECT RAISE(ABORT, 'alias_events: revision is not the next one'); END"
    )
    op.execute(
        "CREATE TRIGGER alias_events_own_versions BEFORE INSERT ON alias_events WHEN NEW.version_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name) "
        "BEGIN SELECT RAISE(ABORT, 'alias_events: the version is not one of this model'); END"
    )
    op.execute(
        "CREATE TRIGGER audit_one_chain BEFORE INSERT ON audit WHEN NEW.sequence IS NOT 1 + "
        "(SELECT coalesce(max(sequence), 0) FROM audit) OR NEW.previous_hash IS NOT coalesce("
        "(SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), "
        "'0000000000000000000000000000000000000000000000000000000000000000') "
        "BEGIN SELECT RAISE(ABORT, 'audit: the row does not continue the chain'); END"
    )


def _create_tables() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("base_fingerprint", sa.String(64)),
        sa.Column("content_key", sa.String(256)),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
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
        sa.Column("role", sa.String(32), nullable=False),
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
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_evaluations_version", "evaluations", ["version_id", "id"])
    op.create_table(
        "alias_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id")),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("evaluation_id", sa.Integer, sa.ForeignKey("evaluations.id")),
        sa.Column("gate", sa.Text),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("name", "alias", "revision", name="uq_alias_events_revision"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.UniqueConstraint("hash", name="uq_audit_hash"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Refuse: a registry only goes forward."""
    raise NotImplementedError("a registry's schema only goes forward; restore a copy of the folder instead")
