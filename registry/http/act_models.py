"""What the HTTP API answers of aliases, approvals, a version's life and its verification, typed."""

from __future__ import annotations

from typing import Any

from registry.http.models import Answer, Digest, GateModel

__all__ = [
    "AliasChangeModel",
    "AliasModel",
    "AliasPage",
    "ApprovalsModel",
    "CollectionModel",
    "HistoryModel",
    "KeptSignatureModel",
    "ProtectionModel",
    "ProtectionPage",
    "SignaturesModel",
    "StatusModel",
    "StatusPage",
    "VerificationModel",
    "VersionChangeModel",
]


class AliasModel(Answer):
    """Where an alias points now."""

    name: str
    alias: str
    revision: int
    version: int
    digest: Digest
    actor: str
    changed_at: str


class AliasPage(Answer):
    """Aliases by model and alias."""

    items: list[AliasModel]
    next: str | None


class ApprovalModel(Answer):
    """One person's newest word on a matter, and why it doesn't count where it doesn't."""

    actor: str
    at: str
    reason: str | None
    matter: Digest
    counts: bool
    why_not: str | None


class ApprovalsModel(Answer):
    """What a move of an alias needs, and who has approved it."""

    name: str
    alias: str
    act: str
    version: str | None
    digest: Digest | None
    evaluation: Digest | None
    policy: Digest | None
    required: int
    self_approval: bool
    registered_by: str | None
    given: list[str]
    missing: int
    approvals: list[ApprovalModel]
    to_required: int | None
    to_self_approval: bool | None


class ProtectionModel(Answer):
    """How many people have to approve before an alias moves; 0 where the protection was lifted."""

    id: int
    name: str
    alias: str
    required: int
    self_approval: bool
    actor: str
    reason: str
    changed_at: str


class ProtectionPage(Answer):
    """Protected aliases by model and alias."""

    items: list[ProtectionModel]
    next: str | None


class AliasChangeModel(Answer):
    """A step of an alias: done, not needed, or only tried."""

    name: str
    alias: str
    action: str
    revision: int
    version: int | None
    digest: Digest | None
    previous_version: int | None
    previous_digest: str | None
    actor: str
    reason: str | None
    at: str
    changed: bool
    dry_run: bool
    gate: GateModel | None
    approvals: ApprovalsModel | None


class HistoryModel(Answer):
    """An alias's steps, oldest first."""

    steps: list[AliasChangeModel]


class VersionChangeModel(Answer):
    """A step in a version's life; `changed` is false if it was in that state already."""

    name: str
    version: int
    digest: Digest
    action: str
    state: str
    previous_state: str
    actor: str
    reason: str
    at: str
    changed: bool


class StatusModel(Answer):
    """A version's state, and who made it so and why."""

    state: str
    actor: str | None
    reason: str | None
    changed_at: str | None


class VersionStatusModel(StatusModel):
    """A version with its state."""

    name: str
    version: int
    digest: Digest


class StatusPage(Answer):
    """The states of versions by name and number; `next` is the cursor of the page behind, null on the last."""

    items: list[VersionStatusModel]
    next: str | None


class CollectionModel(Answer):
    """What a collection removed, or would remove; `kept` blobs are needed by no version, and too young or in use."""

    blobs: int
    bytes: int
    checkouts: int
    leases: int
    kept: int
    dry_run: bool


class DamageModel(Answer):
    """Something that isn't as it was given."""

    subject: str
    path: str | None
    problem: str


class VerificationModel(Answer):
    """What a verification looked at, and all that was wrong; `audit_head` is the last hash of an unbroken chain."""

    versions: int
    files: int
    bytes: int
    audit_rows: int
    audit_head: str | None
    problems: list[DamageModel]
    intact: bool


class SignaturesModel(Answer):
    """A version's DSSE envelopes, as they are kept."""

    version: str
    digest: Digest
    envelopes: list[dict[str, Any]]


class KeptSignatureModel(Answer):
    """A signature that is kept; `new` is false where it was there already."""

    version: str
    digest: Digest
    key_id: Digest
    new: bool
