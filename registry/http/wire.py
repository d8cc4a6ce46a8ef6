"""From the API's documents back to the registry's own values, each held against its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.approvals import Approval, Approvals
from registry.canonical import canonical_json
from registry.collection import Collection
from registry.entities import (
    AliasChange,
    AliasState,
    AuditEntry,
    Evaluation,
    OutboxEvent,
    Version,
    VersionChange,
    as_recorded,
)
from registry.http.problems import gate_of
from registry.lineage import Edge, Lineage, Node
from registry.protection import Protection
from registry.runs import Run
from registry.status import Status
from registry.verification import Problem, Verification

__all__ = [
    "alias_of",
    "approvals_of",
    "audit_of",
    "change_of",
    "collection_of",
    "evaluation_of",
    "event_of",
    "lineage_of",
    "protection_of",
    "run_of",
    "status_of",
    "verification_of",
    "version_change_of",
    "version_of",
]


def _text(document: Any, digest: str, what: str) -> str:
    return as_recorded(canonical_json(document), digest, what)


def version_of(document: Mapping[str, Any]) -> Version:
    """Return a version.

    Raises:
        RecordDamaged: The manifest doesn't have the version's digest.
    """
    return Version(
        id=document["id"],
        name=document["name"],
        version=document["version"],
        digest=document["digest"],
        kind=document["kind"],
        base_fingerprint=document["base"],
        manifest_json=_text(document["manifest"], document["digest"], f"the manifest of {document['name']}"),
        created_at=document["created_at"],
    )


def evaluation_of(document: Mapping[str, Any]) -> Evaluation:
    """Return an evaluation.

    Raises:
        RecordDamaged: The report doesn't have the evaluation's digest.
    """
    return Evaluation(
        id=document["id"],
        version_digest=document["version_digest"],
        digest=document["digest"],
        report_json=_text(document["report"], document["digest"], "the report"),
        created_at=document["created_at"],
    )


def run_of(document: Mapping[str, Any]) -> Run:
    """Return a run.

    Raises:
        RecordDamaged: The document doesn't have the run's digest.
    """
    names = ("id", "name", "sweep", "number", "digest", "base_fingerprint", "content_key", "created_at")
    text = _text(document["document"], document["digest"], "the run's document")
    return Run(**{name: document[name] for name in names}, document_json=text)


def alias_of(document: Mapping[str, Any]) -> AliasState:
    """Return where an alias points."""
    return AliasState(**document)


def change_of(document: Mapping[str, Any]) -> AliasChange:
    """Return a step of an alias."""
    found = document["approvals"]
    asked = None if found is None else approvals_of(found)
    return AliasChange(**{**document, "gate": gate_of(document["gate"]), "approvals": asked})


def approvals_of(document: Mapping[str, Any]) -> Approvals:
    """Return what a move needs and who has approved it."""
    told = {key: value for key, value in document.items() if key not in ("approvals", "given", "missing")}
    return Approvals(**told, approvals=tuple(Approval(**one) for one in document["approvals"]))


def protection_of(document: Mapping[str, Any]) -> Protection:
    """Return an alias's protection."""
    return Protection(**document)


def version_change_of(document: Mapping[str, Any]) -> VersionChange:
    """Return a step in a version's life."""
    return VersionChange(**{key: value for key, value in document.items() if key != "changed"})


def status_of(document: Mapping[str, Any]) -> Status:
    """Return a version's state."""
    return Status(**document)


def verification_of(document: Mapping[str, Any]) -> Verification:
    """Return what a verification looked at, and what was wrong."""
    told = {key: value for key, value in document.items() if key not in ("intact", "problems")}
    return Verification(**told, problems=tuple(Problem(**one) for one in document["problems"]))


def collection_of(document: Mapping[str, Any]) -> Collection:
    """Return what a collection removed."""
    return Collection(**document)


def audit_of(document: Mapping[str, Any]) -> AuditEntry:
    """Return an audit row; `registry.audit` says how its hash is taken."""
    return AuditEntry(**document)


def event_of(document: Mapping[str, Any]) -> OutboxEvent:
    """Return an event."""
    return OutboxEvent(**document)


def lineage_of(document: Mapping[str, Any]) -> Lineage:
    """Return a lineage graph."""
    nodes = tuple(Node(**{**node, "aliases": tuple(node["aliases"])}) for node in document["nodes"])
    return Lineage(nodes, tuple(Edge(**edge) for edge in document["edges"]))
