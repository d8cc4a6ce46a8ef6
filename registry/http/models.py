"""What the HTTP API answers, typed; their schema is the OpenAPI's. Of acts: `act_models.py`; what is sent: `bodies`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

__all__ = [
    "AuditPage",
    "BlobModel",
    "EvaluationModel",
    "EvaluationPage",
    "FileModel",
    "FilesModel",
    "GateModel",
    "HealthModel",
    "LineageModel",
    "ModelPage",
    "OutboxPage",
    "Problem",
    "RunModel",
    "RunPage",
    "StandingModel",
    "UploadModel",
    "VersionModel",
    "VersionPage",
    "WhoModel",
]


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Answer(BaseModel):
    """What is answered; a later release may add members."""


class Problem(Answer):
    """RFC 9457, with the project's own members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    allowed: str | None = None
    next_step: str | None = None
    exit_status: int
    current_revision: int | None = None
    reasons: list[str] | None = None
    missing: list[str] | None = None
    offset: int | None = None
    gate: GateModel | None = None


class VersionModel(Answer):
    """A registered version with its manifest."""

    id: int
    name: str
    version: int
    digest: Digest
    kind: str
    base: str | None
    created_at: str
    manifest: dict[str, Any]


class VersionPage(Answer):
    """Versions by name and number; `next` is the cursor of the page behind, null on the last."""

    items: list[VersionModel]
    next: str | None


class ModelModel(Answer):
    """A model's name with its newest version's number."""

    name: str
    versions: int
    newest: int
    changed_at: str


class ModelPage(Answer):
    """Models by name."""

    items: list[ModelModel]
    next: str | None


class FileModel(Answer):
    """A version's file, and where its content is."""

    path: str
    size: int
    sha256: Digest
    url: str


class FilesModel(Answer):
    """A version's files."""

    version: str
    digest: Digest
    files: list[FileModel]


class NodeModel(Answer):
    """A version, a run, or a data file."""

    id: str
    type: str
    label: str
    kind: str | None
    base: str | None
    direction: str
    aliases: list[str]
    decision_override: str | None
    state: str | None


class EdgeModel(Answer):
    """`source` went into `target`."""

    source: str
    target: str
    role: str
    weight: int | float | None


class LineageModel(Answer):
    """A lineage graph."""

    nodes: list[NodeModel]
    edges: list[EdgeModel]


class EvaluationModel(Answer):
    """A report on exactly one version's weights."""

    id: int
    version_digest: Digest
    digest: Digest
    created_at: str
    report: dict[str, Any]


class EvaluationPage(Answer):
    """Reports, newest first."""

    items: list[EvaluationModel]
    next: str | None


class CheckModel(Answer):
    """One condition of the gate."""

    name: str
    passed: bool
    value: int | float | None
    bound: int | float | None
    reason: str | None


class GateModel(Answer):
    """The gate's verdict."""

    passed: bool
    reasons: list[str]
    checks: list[CheckModel]


class StandingModel(Answer):
    """Whether a version is proven, and by what; and whose signatures its policies ask for where it is served."""

    proven: bool
    basis: str
    reasons: list[str]
    required_keys: list[Digest]


class BlobModel(Answer):
    """A stored content; `created` is false where it was there already, intact."""

    sha256: Digest
    size: int
    created: bool


class UploadModel(Answer):
    """How far an upload has come."""

    sha256: Digest
    offset: int
    complete: bool


class AuditModel(Answer):
    """A row of the audit's hash chain; its hash is taken over `payload_json` as it stands."""

    sequence: int
    at: str
    actor: str
    action: str
    subject: str
    payload_json: str
    previous_hash: str
    hash: str


class AuditPage(Answer):
    """Audit rows, oldest first; `next` is what to ask for as `after`."""

    items: list[AuditModel]
    next: int | None


class OutboxModel(Answer):
    """An event."""

    id: int
    at: str
    topic: str
    payload: dict[str, Any]


class OutboxPage(Answer):
    """Events, oldest first; `next` is what to ask for as `after`."""

    items: list[OutboxModel]
    next: int | None


class RunModel(Answer):
    """A trial of a sweep."""

    id: int
    name: str
    sweep: str
    number: int
    digest: Digest
    base_fingerprint: str
    content_key: str | None
    created_at: str
    document: dict[str, Any]


class RunPage(Answer):
    """Runs, oldest first; `next` is what to ask for as `after`."""

    items: list[RunModel]
    next: int | None


class HealthModel(Answer):
    """The server answers, and its database can be read."""

    status: Literal["ok"]
    version: str


class WhoModel(Answer):
    """Who the server takes the caller for."""

    name: str
    role: str


Problem.model_rebuild()
