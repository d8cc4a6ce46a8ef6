"""The registry's error tree; every class is one failure, its branch says the exit status.

RegistryError (exit 1)
├── ServerUnavailable         the registry's server can't be reached, or answers what no registry answers
├── BlobCorrupted             stored bytes aren't what their digest says, or are gone
├── AuditBroken               the audit chain, or a row that it vouches for, was changed from outside
├── RecordDamaged             a manifest, report or run in the database doesn't have its digest
├── RegistryInputError (exit 2)
│   ├── RegistryPathError     the registry's folder, or a checkout's, can't be made, read or written
│   ├── SchemaUnsupported     the database was written by another release
│   ├── DatabaseAddressInvalid   no address of a PostgreSQL database, or a password where it may be noted down
│   ├── DriverMissing         psycopg isn't installed
│   ├── MlflowMissing         MLflow isn't installed
│   ├── S3Missing             s3fs isn't installed
│   ├── BlobsUnreachable      where the blobs are can't be reached, or refuses
│   ├── WrongBlobs            what lies where the contents are to be is another registry's
│   ├── WrongDatabase         the database isn't the one that the folder belongs to, or holds something else
│   ├── DatabaseUnreachable   the database server can't be reached, lets nobody in, or went away
│   ├── DatabaseRefused       the database server refuses to do it: rights, room, read-only
│   ├── RegistryClosed        a look-up after it, or its registry, was closed
│   ├── ReferenceInvalid      a name, an alias or a REF doesn't follow the grammar
│   ├── ManifestInvalid       a manifest contradicts itself
│   ├── FileRefused           a file may not enter: its path, its suffix or its content
│   ├── PolicyInvalid         a gate policy has unknown keys or impossible values
│   ├── ReportInvalid         an evaluation report isn't plain JSON
│   ├── BaseMismatch          an adapter's base isn't the base that it names as parent
│   ├── EvaluationMismatch    a report measured other files than those of the version that it is recorded for
│   ├── KeyUnusable           a file holds no ed25519 key in PEM, or its password is missing or wrong
│   ├── ExportRefused         a version can't be laid out in the form that was asked for
│   ├── RequestInvalid        a request to the server doesn't follow its schema, or is too large or too slow
│   ├── TokenInvalid          the server asks for a token, and the one that was sent is none of its tokens
│   ├── RoleInsufficient      the token's role doesn't include this act
│   ├── CallerRefused         a server without tokens was asked under another machine's name, or by a web page
│   ├── WebhookRefused        a webhook's URL, events or host can't be used
│   ├── ApprovalRefused       an approval that nothing could use: of one's own version, or of what isn't there
│   ├── ReasonMissing         an act that somebody has to answer for came without a reason
│   └── RollbackRefused       the target never held this alias, holds it already, or no reason was given
├── GateRefused (exit 3)      the policy isn't satisfied by the newest evaluation of exactly this digest
│   └── ApprovalsMissing      the alias, or the policy, asks for approvals of more people
├── SignatureRefused (exit 3) a version is not signed by the key that was given, or not as it is
├── MissingError (exit 4)
│   ├── RegistryNotFound      there is no registry at this path
│   ├── VersionNotFound       no version has this name, number or digest
│   ├── AliasNotFound         this model has no such alias
│   ├── BlobsMissing          a manifest names contents that aren't stored, or are damaged; lists them
│   ├── ApprovalNotFound      nobody of this name has approved it
│   ├── TokenNotFound         no token has this name
│   ├── WebhookNotFound       no webhook has this id
│   └── ParentNotFound        a manifest names a parent that isn't registered
└── ClashError (exit 4)
    ├── AliasConflict         the alias moved since the caller looked; names the current revision
    ├── AmbiguousReference    a digest prefix fits several versions
    ├── MirrorConflict        a mirror holds a model that others write, too
    ├── NameTaken             a token of this name is there already
    ├── UploadConflict        an upload isn't where the caller thinks; names the offset to go on at
    ├── ContentKeyTaken       a version with this content key holds other files
    ├── RunTaken              a run of this name, sweep and number has another document
    ├── DigestTaken           the same manifest is registered under another name
    ├── VersionDeprecated     no alias takes a deprecated version
    ├── VersionRetired        a retired version can't be used; its bytes may be gone
    ├── VersionHeld           an alias, its history or another version needs what was to be retired
    └── RegistryBusy          another process held the write lock too long, or a server has too many requests
"""

# ruff: noqa: N818 - a name that says the failure reads better than one that ends in Error for its sake
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.gate import GateResult

__all__ = [
    "AliasConflict", "AliasNotFound", "AmbiguousReference", "ApprovalNotFound", "ApprovalRefused", "ApprovalsMissing",
    "AuditBroken", "BaseMismatch", "BlobCorrupted", "BlobsMissing", "BlobsUnreachable", "CallerRefused", "ClashError",
    "ContentKeyTaken", "DatabaseAddressInvalid", "DatabaseRefused", "DatabaseUnreachable", "DigestTaken",
    "DriverMissing", "EvaluationMismatch", "ExportRefused", "FileRefused", "GateRefused", "KeyUnusable",
    "ManifestInvalid", "MirrorConflict", "MissingError", "MlflowMissing", "NameTaken", "ParentNotFound",
    "PolicyInvalid", "ReasonMissing", "RecordDamaged", "ReferenceInvalid", "RegistryBusy", "RegistryClosed",
    "RegistryError", "RegistryInputError", "RegistryNotFound", "RegistryPathError", "ReportInvalid", "RequestInvalid",
    "RoleInsufficient", "RollbackRefused", "RunTaken", "S3Missing", "SchemaUnsupported", "ServerUnavailable",
    "SignatureRefused", "TokenInvalid", "TokenNotFound", "UploadConflict", "VersionDeprecated", "VersionHeld",
    "VersionNotFound", "VersionRetired", "WebhookNotFound", "WebhookRefused", "WrongBlobs", "WrongDatabase",
]  # fmt: skip


class RegistryError(Exception):
    """Something went wrong in the registry.

    Every error carries what was given, what is allowed and what to do next. The docstring's first line is the title
    that callers over HTTP are told.

    Args:
        problem: What is wrong, naming what was given.
        allowed: What would have been accepted.
        next_step: The command or change that helps.
    """

    exit_status = 1

    def __init__(self, problem: str, *, allowed: str | None = None, next_step: str | None = None) -> None:
        self.problem = problem
        self.allowed = allowed
        self.next_step = next_step
        lines = [problem]
        if allowed:
            lines.append(f"  allowed: {allowed}")
        if next_step:
            lines.append(f"  next: {next_step}")
        super().__init__("\n".join(lines))


class ServerUnavailable(RegistryError):
    """The registry's server can't be reached, or answers what no registry answers."""


class BlobCorrupted(RegistryError):
    """Stored bytes are not what their digest says, or are gone."""


class RecordDamaged(RegistryError):
    """What the database says was registered is not what was registered."""


class AuditBroken(RegistryError):
    """The audit chain, or a row that it vouches for, was changed from outside."""


class RegistryInputError(RegistryError):
    """What was given can't be used."""

    exit_status = 2


class RegistryPathError(RegistryInputError):
    """A folder can't be made, read or written."""


class SchemaUnsupported(RegistryInputError):
    """The database was written by another release."""


class DatabaseAddressInvalid(RegistryInputError):
    """What was given is no address of a PostgreSQL database, or has a password where it may be noted down."""


class DriverMissing(RegistryInputError):
    """The library that speaks to PostgreSQL is not installed."""


class MlflowMissing(RegistryInputError):
    """The library that speaks to MLflow is not installed."""


class S3Missing(RegistryInputError):
    """The library that speaks to S3 is not installed."""


class BlobsUnreachable(RegistryInputError):
    """Where the blobs are can't be reached, or refuses."""


class WrongBlobs(RegistryInputError):
    """What lies where the contents are to be is another registry's."""


class WrongDatabase(RegistryInputError):
    """The database is not the one that the folder belongs to, or it holds something else."""


class DatabaseUnreachable(RegistryInputError):
    """The database server can't be reached, lets nobody in, or went away."""


class DatabaseRefused(RegistryInputError):
    """The database server refuses to do what was asked."""


class RegistryClosed(RegistryInputError):
    """A look-up was asked after it, or its registry, was closed."""

    def __init__(
        self,
        problem: str = "the registry's look-up has been closed",
        *,
        allowed: str | None = None,
        next_step: str | None = "open the registry again, or close it after its last use",
    ) -> None:
        super().__init__(problem, allowed=allowed, next_step=next_step)


class ReferenceInvalid(RegistryInputError):
    """A name, an alias or a REF does not follow the grammar."""


class ManifestInvalid(RegistryInputError):
    """A manifest contradicts itself."""


class FileRefused(RegistryInputError):
    """A file may not enter the registry."""


class PolicyInvalid(RegistryInputError):
    """A gate policy has unknown keys or impossible values."""


class ReportInvalid(RegistryInputError):
    """An evaluation report is not plain JSON."""


class BaseMismatch(RegistryInputError):
    """An adapter's base is not the base that it names as parent."""


class EvaluationMismatch(RegistryInputError):
    """A report measured other files than those of the version that it is recorded for."""


class KeyUnusable(RegistryInputError):
    """A file holds no key that can be used."""


class ExportRefused(RegistryInputError):
    """A version can't be laid out in the form that was asked for."""


class RequestInvalid(RegistryInputError):
    """A request to the server does not follow its schema, or is too large or too slow."""


class TokenInvalid(RegistryInputError):
    """The server asks for a token, and the one that was sent is none of its tokens."""


class RoleInsufficient(RegistryInputError):
    """The token's role does not include this act."""


class CallerRefused(RegistryInputError):
    """A server without tokens answers its own machine only, by its own name, and no web page."""


class WebhookRefused(RegistryInputError):
    """A webhook's URL, events or host can't be used."""


class ApprovalRefused(RegistryInputError):
    """An approval that nothing could use: of one's own version, or of what is not there."""


class ReasonMissing(RegistryInputError):
    """An act that somebody has to answer for came without a reason."""


class RollbackRefused(RegistryInputError):
    """A roll-back's target or reason can't be used."""


class GateRefused(RegistryError):
    """The policy is not satisfied; `gate` is the verdict that the transaction came to, `reasons` its failed checks."""

    exit_status = 3

    def __init__(
        self,
        problem: str,
        *,
        reasons: Sequence[str] = (),
        gate: GateResult | None = None,
        allowed: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.reasons = tuple(reasons)
        self.gate = gate
        super().__init__("\n".join([problem, *(f"  - {r}" for r in reasons)]), allowed=allowed, next_step=next_step)


class ApprovalsMissing(GateRefused):
    """The alias, or the policy, asks for approvals of more people."""


class SignatureRefused(RegistryError):
    """A version is not signed by the key that was given, or not as it is."""

    exit_status = 3


class MissingError(RegistryError):
    """What was named does not exist."""

    exit_status = 4


class RegistryNotFound(MissingError):
    """There is no registry at this path."""


class VersionNotFound(MissingError):
    """No version has this name, number or digest."""


class AliasNotFound(MissingError):
    """This model has no such alias."""


class BlobsMissing(MissingError):
    """A manifest names contents that are not stored, or are damaged; `missing` has their sha256, sorted."""

    def __init__(
        self, problem: str, *, missing: Sequence[str] = (), allowed: str | None = None, next_step: str | None = None
    ) -> None:
        self.missing = tuple(missing)
        super().__init__(problem, allowed=allowed, next_step=next_step)


class ApprovalNotFound(MissingError):
    """Nobody of this name has approved it."""


class TokenNotFound(MissingError):
    """No token has this name."""


class WebhookNotFound(MissingError):
    """No webhook has this id."""


class ParentNotFound(MissingError):
    """A manifest names a parent that is not registered."""


class ClashError(RegistryError):
    """What was named is held, or was changed, by somebody else."""

    exit_status = 4


class AliasConflict(ClashError):
    """The alias moved since the caller looked; `current_revision` says where it is now."""

    def __init__(
        self, problem: str, *, current_revision: int = 0, allowed: str | None = None, next_step: str | None = None
    ) -> None:
        self.current_revision = current_revision
        super().__init__(problem, allowed=allowed, next_step=next_step)


class AmbiguousReference(ClashError):
    """A digest prefix fits several versions."""


class MirrorConflict(ClashError):
    """A mirror holds a model that others write, too."""


class NameTaken(ClashError):
    """A token of this name is there already."""


class UploadConflict(ClashError):
    """An upload is not where the caller thinks; `offset` says how many bytes are there."""

    def __init__(
        self, problem: str, *, offset: int = 0, allowed: str | None = None, next_step: str | None = None
    ) -> None:
        self.offset = offset
        super().__init__(problem, allowed=allowed, next_step=next_step)


class ContentKeyTaken(ClashError):
    """A version with this content key holds other files."""


class RunTaken(ClashError):
    """A run of this name, sweep and number is recorded with another document."""


class DigestTaken(ClashError):
    """The same manifest is registered under another name."""


class VersionDeprecated(ClashError):
    """No alias takes a deprecated version."""


class VersionRetired(ClashError):
    """A retired version can't be used; its bytes may be gone."""


class VersionHeld(ClashError):
    """An alias, its history or another version needs what was to be retired."""


class RegistryBusy(ClashError):
    """Another process held the write lock too long, or the server is answering too many requests."""
