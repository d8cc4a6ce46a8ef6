"""Runs that trained something and became no version, or not yet: the trials of a sweep. Insert-only like the rest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry.migrations.rules import insert_only, only_forward, string

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its rules; what is there already stays as it is."""
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", string(128), nullable=False),
        sa.Column("sweep", string(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", string(64), nullable=False),
        sa.Column("base_fingerprint", string(64), nullable=False),
        sa.Column("content_key", string(256)),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.UniqueConstraint("digest", name="uq_runs_digest"),
        sa.UniqueConstraint("name", "sweep", "number", name="uq_runs_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_base_fingerprint", "runs", ["base_fingerprint"])
    op.create_index("ix_runs_content_key", "runs", ["name", "content_key"])
    insert_only(
        "runs",
        "id = NEW.id OR digest = NEW.digest OR (name = NEW.name AND sweep = NEW.sweep AND number = NEW.number)",
    )


downgrade = only_forward
