"""What may be sent to the HTTP API, typed: nothing that the server doesn't know, and no text that UTF-8 can't hold."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from registry.collection import GRACE_SECONDS
from registry.gate import MOST_APPROVALS
from registry.http.models import Digest
from registry.manifest import KINDS, FileEntry, Manifest, Parent
from registry.matters import ACTS
from registry.runs import LARGEST_NUMBER

__all__ = [
    "ApprovalRequest",
    "CollectionRequest",
    "DemotionRequest",
    "EvaluationRequest",
    "ManifestModel",
    "PromotionRequest",
    "ProtectionRequest",
    "RegisterRequest",
    "RollbackRequest",
    "RunRequest",
    "SignatureRequest",
    "StateRequest",
    "UnprotectionRequest",
    "VerificationRequest",
    "WithdrawalRequest",
]


def _encodable(value: Any) -> Any:
    """Refuse what JSON's text allows and no UTF-8 has: halves of a surrogate pair."""
    json.dumps(value, ensure_ascii=False).encode()  # raises a ValueError, which becomes a validation error
    return value


# Bounded in the schema alone: the registry's own grammar refuses the others, with its words and its class.
Ref = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 256})]
Name = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 128})]
Alias = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 64})]
# The schema has the whole rule; what breaks lines or is no text is refused by the registry, with its words.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000, pattern=r"[^\x00-\x20\x7f]"),
    Field(json_schema_extra={"pattern": rf"^[^{_CONTROLS}]*[^ {_CONTROLS}][^{_CONTROLS}]*$"}),
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_encodable)]
Document = Annotated[dict[str, Any], AfterValidator(_encodable)]
Texts = Annotated[dict[str, str], AfterValidator(_encodable)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Request(BaseModel):
    """What may be sent: nothing that the server doesn't know, and no text or number that stands for another kind."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FileEntryModel(Request):
    """Size in bytes and sha256 of a file."""

    size: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Digest


class ParentModel(Request):
    """A registered version that this one was made from."""

    digest: Digest
    role: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    # as it was written: 1 and 1.0 are other texts, and would give other digests
    weight: int | Number | None = None


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
    seed: int | None = None
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


class EvaluationRequest(Request):
    """A report to record; `over_newest` lays it over the newest one."""

    report: Document
    over_newest: bool = False


Revision = Annotated[int, Field(ge=0, le=2**31)]


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
    dry_run: bool = False


class DemotionRequest(Request):
    """Take an alias away; its history stays."""

    name: Name
    alias: Alias
    reason: Reason
    expected_revision: Revision | None = None
    dry_run: bool = False


class StateRequest(Request):
    """Deprecate, restore or retire a version."""

    ref: Ref
    reason: Reason


class ProtectionRequest(Request):
    """Let an alias move only with the approvals of several people."""

    name: Name
    alias: Alias
    required: Annotated[int, Field(ge=1, le=MOST_APPROVALS)] = 2
    self_approval: bool = False
    reason: Reason


class UnprotectionRequest(Request):
    """Lift an alias's protection, with the approvals of that which it asks for."""

    name: Name
    alias: Alias
    reason: Reason


class ApprovalRequest(Request):
    """Approve that an alias moves, in the token's name; without a policy, that of the version's newest report.

    `required` and `self_approval` are what an unprotection weakens the protection to, 0: lifts it.
    """

    ref: Ref
    alias: Alias
    act: Literal[*ACTS] = "promote"  # type: ignore[valid-type]
    policy: Document | None = None
    required: Annotated[int, Field(ge=0, le=MOST_APPROVALS)] = 0
    self_approval: bool = False
    reason: Reason | None = None


class WithdrawalRequest(Request):
    """Take the token's own approval back."""

    ref: Ref
    alias: Alias
    act: Literal[*ACTS] = "promote"  # type: ignore[valid-type]
    reason: Reason | None = None


class SignatureRequest(Request):
    """A DSSE envelope over a version, and the ed25519 public key in PEM that it is checked with."""

    envelope: Document
    public_key: Annotated[str, StringConstraints(min_length=1, max_length=10_000), AfterValidator(_encodable)]


class CollectionRequest(Request):
    """Remove what no version needs: written, and its version retired, at least so many seconds ago; a week by default.

    Contents that were sent and belong to no version yet are younger than a grace period that leaves time for that.
    """

    grace_seconds: Annotated[Number, Field(ge=0)] = GRACE_SECONDS
    dry_run: bool = False


class VerificationRequest(Request):
    """Read every byte of one version, or of all, and the whole audit chain."""

    ref: Ref | None = None


class RegisterRequest(Request):
    """A version to register; its contents are sent first, as blobs or uploads."""

    name: Name
    manifest: ManifestModel


class RunRequest(Request):
    """A run to record."""

    name: Name
    sweep: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    # bounded in the schema alone, as names are
    number: Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": LARGEST_NUMBER})]
    base_fingerprint: Digest
    content_key: Key | None = None
    document: Document
