"""Runs that trained something and became no version, or not yet: the trials of a sweep. Insert-only like the rest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its rules; what is there already stays as it is."""
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("sweep", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("base_fingerprint", sa.String(64), nullable=False),
        sa.Column("content_key", sa.String(256)),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("digest", name="uq_runs_digest"),
        sa.UniqueConstraint("name", "sweep", "number", name="uq_runs_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_base_fingerprint", "runs", ["base_fingerprint"])
    op.create_index("ix_runs_content_key", "runs", ["name", "content_key"])
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER runs_no_{event.lower()} BEFORE {event} ON runs "
            "BEGIN SELECT RAISE(ABORT, 'runs is insert-only'); END"
        )
    # INSERT OR REPLACE deletes without firing delete triggers
    op.execute(
        "CREATE TRIGGER runs_no_replace BEFORE INSERT ON runs WHEN EXISTS (SELECT 1 FROM runs WHERE id = NEW.id "
        "OR digest = NEW.digest OR (name = NEW.name AND sweep = NEW.sweep AND number = NEW.number)) "
        "BEGIN SELECT RAISE(ABORT, 'runs is insert-only: this key is taken'); END"
    )


def downgrade() -> None:
    """Refuse: a registry only goes forward."""
    raise NotImplementedError("a registry's schema only goes forward; restore a copy of the folder instead")
