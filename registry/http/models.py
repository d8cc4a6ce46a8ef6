"""The JSON documents of the HTTP API, typed: what is answered, and what may be sent. Their schema is the OpenAPI's."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from registry.manifest import KINDS, FileEntry, Manifest, Parent

__all__ = [
    "AliasChangeModel",
    "AliasModel",
    "AliasPage",
    "AuditPage",
    "BlobModel",
    "EvaluationModel",
    "EvaluationPage",
    "EvaluationRequest",
    "FileModel",
    "FilesModel",
    "GateModel",
    "HealthModel",
    "HistoryModel",
    "LineageModel",
    "ModelPage",
    "OutboxPage",
    "Problem",
    "PromotionRequest",
    "RegisterRequest",
    "RollbackRequest",
    "RunModel",
    "RunPage",
    "RunRequest",
    "StandingModel",
    "UploadModel",
    "VersionModel",
    "VersionPage",
    "WhoModel",
]


def _encodable(value: Any) -> Any:
    """Refuse what JSON's text allows and no UTF-8 has: halves of a surrogate pair."""
    json.dumps(value, ensure_ascii=False).encode()  # raises a ValueError, which becomes a validation error
    return value


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Alias = Annotated[str, StringConstraints(min_length=1, max_length=64)]
# no control characters, which would forge lines where it is printed, and no half of a surrogate pair
Reason = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"), AfterValidator(_encodable)]  # fmt: skip  # noqa: E501
Key = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_encodable)]
Document = Annotated[dict[str, Any], AfterValidator(_encodable)]
Texts = Annotated[dict[str, str], AfterValidator(_encodable)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Answer(BaseModel):
    """What is answered; a later release may add members."""


class Request(BaseModel):
    """What may be sent: nothing that the server doesn't know."""

    model_config = ConfigDict(extra="forbid")


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


class FileEntryModel(Request):
    """Size in bytes and sha256 of a file."""

    size: Annotated[StrictInt, Field(ge=0, le=2**53)]
    sha256: Digest


class ParentModel(Request):
    """A registered version that this one was made from."""

    digest: Digest
    role: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    # as it was written: 1 and 1.0 are other texts, and would give other digests
    weight: StrictInt | Number | None = None


class ManifestModel(Request):
    """What a version is and was made from; `registry.manifest.Manifest` in full."""

    format: Literal[1] = 1
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    files: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+/-]*$")], FileEntryModel],
        Field(min_length=1),
    ]
    base_fingerprint: Digest | None = None
    tokenizer_digest: Digest | None = None
    template_digest: Digest | None = None
    quantization: Document | None = None
    peft_config: Document | None = None
    data_digests: Annotated[dict[str, Digest], AfterValidator(_encodable)] = {}
    parents: list[ParentModel] = []
    seed: StrictInt | None = None
    library_versions: Texts = {}
    code_revision: Key | None = None
    flow_run_id: Key | None = None
    decision_digest: Digest | None = None
    plan_digest: Digest | None = None
    content_key: Key | None = None
    licence: Key | None = None
    metadata: Document = {}

    def manifest(self) -> Manifest:
        """Return the registry's own manifest.

        Raises:
            ManifestInvalid, FileRefused: Fields contradict each other, or a path can't be used.
        """
        values = self.model_dump(exclude={"format", "files", "parents"})
        files = {path: FileEntry(entry.size, entry.sha256) for path, entry in self.files.items()}
        parents = tuple(Parent(parent.digest, parent.role, parent.weight) for parent in self.parents)
        return Manifest(files=files, parents=parents, **values)


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


class EvaluationRequest(Request):
    """A report to record; `over_newest` lays it over the newest one."""

    report: Document
    over_newest: bool = False


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
    """Whether a version is proven, and by what."""

    proven: bool
    basis: str
    reasons: list[str]


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


class AliasChangeModel(Answer):
    """A step of an alias: done, not needed, or only tried."""

    name: str
    alias: str
    action: str
    revision: int
    version: int
    digest: Digest
    previous_version: int | None
    previous_digest: str | None
    actor: str
    reason: str | None
    at: str
    changed: bool
    dry_run: bool
    gate: GateModel | None


class HistoryModel(Answer):
    """An alias's steps, oldest first."""

    steps: list[AliasChangeModel]


Revision = Annotated[StrictInt, Field(ge=0, le=2**31)]


class PromotionRequest(Request):
    """Let an alias point at a version; without a policy, that of the version's newest report counts."""

    ref: Ref
    alias: Alias
    policy: Document | None = None
    reason: Reason | None = None
    expected_revision: Revision | None = None
    dry_run: bool = False


class RollbackRequest(Request):
    """Move an alias back to a version that it held before: `vN` or a REF, or the one before the present one."""

    name: Name
    alias: Alias
    to: Ref | None = None
    reason: Reason
    expected_revision: Revision | None = None


class RegisterRequest(Request):
    """A version to register; its contents are sent first, as blobs or uploads."""

    name: Name
    manifest: ManifestModel


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


class RunRequest(Request):
    """A run to record."""

    name: Name
    sweep: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    number: Annotated[StrictInt, Field(ge=0, le=2**31)]
    base_fingerprint: Digest
    content_key: Key | None = None
    document: Document


class HealthModel(Answer):
    """The server answers, and its database can be read."""

    status: Literal["ok"]
    version: str


class WhoModel(Answer):
    """Who the server takes the caller for."""

    name: str
    role: str


Problem.model_rebuild()
