"""The registry's id, which its folder has too where the database lies elsewhere. One row, insert-only like the rest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry.migrations.rules import insert_only, only_forward, string

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its rules; whoever migrates puts the row in."""
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("registry", string(32), nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_identity_one_row"),
    )
    insert_only("identity", "id = NEW.id")


downgrade = only_forward
