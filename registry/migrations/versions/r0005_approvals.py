"""Aliases that only move with the approvals of several people: how many, and who approved what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry.migrations.rules import insert_only, insert_rule, only_forward, string

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What an alias event is about: the version that it points at, or the one that the alias is taken away from.
TARGET = (
    "coalesce(NEW.version_id, (SELECT e.version_id FROM alias_events e "
    "WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.revision = NEW.revision - 1))"
)
# The revision at which the alias last came to that version or left it, which has no version of its own.
LAST = (
    "coalesce((SELECT max(coalesce(l.revision, e.revision)) FROM alias_events e LEFT JOIN alias_events l "
    "ON l.name = e.name AND l.alias = e.alias AND l.revision = e.revision + 1 "
    f"WHERE e.name = NEW.name AND e.alias = NEW.alias AND e.version_id = {TARGET}), 0)"
)
PRESENT = "FROM protections p WHERE p.name = NEW.name AND p.alias = NEW.alias ORDER BY p.id DESC LIMIT 1"
# How many people's approvals stand, of the model and the alias of NEW.
STANDING = (
    "(SELECT count(DISTINCT a.actor) FROM approvals a WHERE a.name = NEW.name AND a.alias = NEW.alias "
    "AND a.action = 'approve' AND {which} AND NOT EXISTS "
    "(SELECT 1 FROM approvals w WHERE w.digest = a.digest AND w.actor = a.actor AND w.id > a.id))"
)


def upgrade() -> None:
    """Create the tables, their rules, and what they mean for aliases."""
    op.create_table(
        "protections",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", string(128), nullable=False),
        sa.Column("alias", string(64), nullable=False),
        sa.Column("required", sa.Integer, nullable=False),
        sa.Column("self_approval", sa.Integer, nullable=False),
        sa.Column("actor", string(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", string(32), nullable=False),
        sa.CheckConstraint("required >= 0", name="ck_protections_required"),
        sa.CheckConstraint("self_approval IN (0, 1)", name="ck_protections_self_approval"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_protections_alias", "protections", ["name", "alias", "id"])
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", string(128), nullable=False),
        sa.Column("alias", string(64), nullable=False),
        sa.Column("act", string(16), nullable=False),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id")),
        sa.Column("evaluation_id", sa.Integer, sa.ForeignKey("evaluations.id")),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("required", sa.Integer),
        sa.Column("self_approval", sa.Integer),
        sa.Column("digest", string(64), nullable=False),
        sa.Column("matter", sa.Text, nullable=False),
        sa.Column("action", string(16), nullable=False),
        sa.Column("actor", string(128), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", string(32), nullable=False),
        sa.CheckConstraint("act IN ('promote', 'demote', 'unprotect')", name="ck_approvals_act"),
        sa.CheckConstraint("action IN ('approve', 'withdraw')", name="ck_approvals_action"),
        sa.CheckConstraint("(act = 'unprotect') = (version_id IS NULL)", name="ck_approvals_version"),
        sa.CheckConstraint(
            "(act = 'unprotect') = (required IS NOT NULL) AND (act = 'unprotect') = (self_approval IS NOT NULL)",
            name="ck_approvals_weaker",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_approvals_alias", "approvals", ["name", "alias", "id"])
    op.create_index("ix_approvals_digest", "approvals", ["digest", "actor", "id"])
    op.create_index("ix_audit_subject", "audit", ["action", "subject"])  # who registered a version
    insert_only("protections", "id = NEW.id")
    insert_only("approvals", "id = NEW.id")
    insert_rule(
        "approvals",
        "own_rows",
        "(NEW.version_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM versions WHERE id = NEW.version_id AND name = NEW.name)) "
        "OR (NEW.evaluation_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM evaluations WHERE id = NEW.evaluation_id AND version_id = NEW.version_id))",
        "approvals: the version is not one of this model, or the evaluation not its own",
    )
    insert_rule(
        "approvals",
        "steps",
        "coalesce((SELECT action FROM approvals WHERE digest = NEW.digest AND actor = NEW.actor "
        "ORDER BY id DESC LIMIT 1), 'withdraw') = NEW.action",
        "approvals: it stands already, or there is none to withdraw",
    )
    lifting = STANDING.format(
        which=f"a.act = 'unprotect' AND a.revision = (SELECT p.id {PRESENT}) "
        "AND a.required = NEW.required AND a.self_approval = NEW.self_approval"
    )
    insert_rule(
        "protections",
        "lifted",
        f"(NEW.required < coalesce((SELECT p.required {PRESENT}), 0) "
        f"OR (NEW.required > 0 AND NEW.self_approval > coalesce((SELECT p.self_approval {PRESENT}), 1))) "
        f"AND {lifting} < coalesce((SELECT p.required {PRESENT}), 0)",
        "protections: approvals are missing to weaken this one",
    )
    moving = STANDING.format(
        which="a.act = CASE WHEN NEW.version_id IS NULL THEN 'demote' ELSE 'promote' END "
        f"AND a.version_id = {TARGET} AND a.revision = {LAST} "
        "AND NOT (a.evaluation_id IS DISTINCT FROM "
        f"(SELECT max(v.id) FROM evaluations v WHERE v.version_id = {TARGET})) "
        f"AND ((SELECT p.self_approval {PRESENT}) = 1 OR NOT EXISTS (SELECT 1 FROM audit r JOIN versions o "
        "ON r.action = 'register' AND r.subject = o.name || ':' || 'v' || o.number "
        "WHERE o.id = a.version_id AND r.actor = a.actor))"
    )
    insert_rule(
        "alias_events",
        "approved",
        f"{moving} < coalesce((SELECT p.required {PRESENT}), 0)",
        "alias_events: the alias is protected, and approvals are missing",
    )


downgrade = only_forward
