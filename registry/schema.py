"""The tables as the store uses them. The database's own rules (insert-only triggers) are in the migrations.

State is folded from events: an alias is its newest event, so is a version's state, its evaluation its newest report.
Every table is insert-only, so nothing is ever in two states.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "alias_events",
    "approvals",
    "audit",
    "evaluations",
    "identity",
    "metadata",
    "outbox",
    "protections",
    "runs",
    "version_events",
    "version_parents",
    "versions",
]

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("base_fingerprint", String(64)),
    Column("content_key", String(256)),
    Column("manifest", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("digest", name="uq_versions_digest"),
    UniqueConstraint("name", "number", name="uq_versions_number"),
    UniqueConstraint("name", "content_key", name="uq_versions_content_key"),
    CheckConstraint("number >= 1", name="ck_versions_number"),
    Index("ix_versions_base_fingerprint", "base_fingerprint"),
    sqlite_autoincrement=True,
)

version_parents = Table(
    "version_parents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("child_id", ForeignKey("versions.id"), nullable=False),
    Column("parent_id", ForeignKey("versions.id"), nullable=False),
    Column("role", String(32), nullable=False),
    Column("weight", Float),
    UniqueConstraint("child_id", "parent_id", "role", name="uq_version_parents_edge"),
    # Ids only grow, so an edge always leads to an older version and no cycle can be written.
    CheckConstraint("parent_id < child_id", name="ck_version_parents_older"),
    Index("ix_version_parents_parent", "parent_id"),
    sqlite_autoincrement=True,
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("report", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("ix_evaluations_version", "version_id", "id"),
    sqlite_autoincrement=True,
)

alias_events = Table(
    "alias_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("version_id", ForeignKey("versions.id")),  # nothing: the alias was taken away
    Column("action", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", Text),
    Column("evaluation_id", ForeignKey("evaluations.id")),
    Column("gate", Text),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("name", "alias", "revision", name="uq_alias_events_revision"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("created_at", String(32), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(16), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("hash", name="uq_audit_hash"),
    Index("ix_audit_subject", "action", "subject"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("topic", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("sweep", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("base_fingerprint", String(64), nullable=False),
    Column("content_key", String(256)),
    Column("document", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("digest", name="uq_runs_digest"),
    UniqueConstraint("name", "sweep", "number", name="uq_runs_number"),
    Index("ix_runs_base_fingerprint", "base_fingerprint"),
    Index("ix_runs_content_key", "name", "content_key"),
    sqlite_autoincrement=True,
)

identity = Table(
    "identity",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("registry", String(32), nullable=False),
    Column("created_at", String(32), nullable=False),
    CheckConstraint("id = 1", name="ck_identity_one_row"),
)

version_events = Table(
    "version_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("action", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    CheckConstraint("action IN ('deprecate', 'restore', 'retire')", name="ck_version_events_action"),
    Index("ix_version_events_version", "version_id", "id"),
    sqlite_autoincrement=True,
)

protections = Table(
    "protections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("required", Integer, nullable=False),  # 0: lifted
    Column("self_approval", Integer, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    CheckConstraint("required >= 0", name="ck_protections_required"),
    CheckConstraint("self_approval IN (0, 1)", name="ck_protections_self_approval"),
    Index("ix_protections_alias", "name", "alias", "id"),
    sqlite_autoincrement=True,
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("act", String(16), nullable=False),
    Column("version_id", ForeignKey("versions.id")),  # nothing: the protection itself is to be weakened
    Column("evaluation_id", ForeignKey("evaluations.id")),
    Column("revision", Integer, nullable=False),
    Column("required", Integer),  # what the protection is weakened to
    Column("self_approval", Integer),
    Column("digest", String(64), nullable=False),
    Column("matter", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", Text),
    Column("created_at", String(32), nullable=False),
    CheckConstraint("act IN ('promote', 'demote', 'unprotect')", name="ck_approvals_act"),
    CheckConstraint("action IN ('approve', 'withdraw')", name="ck_approvals_action"),
    CheckConstraint("(act = 'unprotect') = (version_id IS NULL)", name="ck_approvals_version"),
    CheckConstraint(
        "(act = 'unprotect') = (required IS NOT NULL) AND (act = 'unprotect') = (self_approval IS NOT NULL)",
        name="ck_approvals_weaker",
    ),
    Index("ix_approvals_alias", "name", "alias", "id"),
    Index("ix_approvals_digest", "digest", "actor", "id"),
    sqlite_autoincrement=True,
)
