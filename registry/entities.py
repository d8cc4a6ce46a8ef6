"""What the registry tells: versions, aliases, changes, evaluations and audit rows, as frozen values without I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from registry.canonical import sha256_text
from registry.errors import RecordDamaged

if TYPE_CHECKING:
    from registry.approvals import Approvals
    from registry.gate import GateResult
    from registry.manifest import FileEntry, Manifest

__all__ = [
    "AliasChange",
    "AliasState",
    "AuditEntry",
    "Evaluation",
    "OutboxEvent",
    "Version",
    "VersionChange",
    "as_recorded",
    "left_by_last_step",
]


def as_recorded(text: str, digest: str, what: str) -> str:
    """Return a document's canonical text, if it is what was recorded under its digest.

    Args:
        text: What the database, or a server, says was recorded.
        digest: Its hex sha256 when it was.
        what: Whose document it is, for the message.

    Raises:
        RecordDamaged: It is something else: the database was changed from outside, or its disk has lost bits.
    """
    try:
        if sha256_text(text) == digest:
            return text
    except ValueError:  # half of a surrogate pair, which nothing that was recorded has
        pass
    raise RecordDamaged(
        f"{what} is not what was recorded: it doesn't have the digest {digest[:12]}",
        allowed="the very text that was recorded",
        next_step="`tunewright registry verify`, where the registry lies, lists the damage; put the database back from "
        "a copy",
    )


@dataclass(frozen=True)
class Version:
    """A registered version. Its manifest stays text until somebody asks, which keeps look-ups fast."""

    id: int
    name: str
    version: int
    digest: str
    kind: str
    base_fingerprint: str | None
    manifest_json: str
    created_at: str

    @property
    def label(self) -> str:
        """The version as people write it: `name:vN`."""
        return f"{self.name}:v{self.version}"

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, held against the version's digest, parsed and validated.

        Raises:
            RecordDamaged: It isn't what was registered, or not of the row's kind and base.
        """
        from registry.manifest import Manifest  # a bare look-up has no need of it

        manifest = Manifest.from_json(self._manifest_text)
        if (manifest.kind, manifest.base_fingerprint) != (self.kind, self.base_fingerprint):
            raise RecordDamaged(
                f"kind or base of {self.label} differ between its row and its manifest",
                next_step="`tunewright registry verify` lists the damage; put the database back from a copy",
            )
        return manifest

    @property
    def files(self) -> dict[str, FileEntry]:
        """The manifest's files, without the rest of it: a fifth of its time.

        Raises:
            RecordDamaged: The manifest isn't what was registered.
        """
        from registry.manifest import registered_files

        return registered_files(self._manifest_text)

    @property
    def _manifest_text(self) -> str:
        return as_recorded(self.manifest_json, self.digest, f"the manifest of {self.label}")

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that `registry ls` and `registry resolve` print."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "kind": self.kind,
            "base": self.base_fingerprint,
            "created_at": self.created_at,
        }


@dataclass(frozen=True)
class Evaluation:
    """A stored report, tied to the digest of exactly the weights that it measured."""

    id: int
    version_digest: str
    digest: str
    report_json: str
    created_at: str

    @cached_property
    def report(self) -> dict[str, Any]:
        """The report as it was recorded.

        Raises:
            RecordDamaged: It isn't what was.
        """
        what = f"a report on the version with digest {self.version_digest[:12]}"
        document: dict[str, Any] = json.loads(as_recorded(self.report_json, self.digest, what))
        return document

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation with its whole report."""
        return {"digest": self.digest, "created_at": self.created_at, "report": self.report}


@dataclass(frozen=True)
class AliasState:
    """Where an alias points now; `revision` is what a compare-and-swap has to name."""

    name: str
    alias: str
    revision: int
    version: int
    digest: str
    actor: str
    changed_at: str

    @property
    def label(self) -> str:
        """The version that it points at, as people write it: `name:vN`."""
        return f"{self.name}:v{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Return the alias as plain JSON."""
        return {
            "name": self.name,
            "alias": self.alias,
            "revision": self.revision,
            "version": self.label,
            "digest": self.digest,
            "actor": self.actor,
            "changed_at": self.changed_at,
        }


@dataclass(frozen=True)
class AliasChange:
    """One step of an alias: done (`changed`), not needed because it points there already, or only tried (`dry_run`)."""

    name: str
    alias: str
    action: str
    revision: int
    version: int | None  # None: the alias was taken away
    digest: str | None
    previous_version: int | None
    previous_digest: str | None
    actor: str
    reason: str | None
    at: str
    gate: GateResult | None = None
    approvals: Approvals | None = None  # where the act that made this step asked for some
    changed: bool = True
    dry_run: bool = False

    @property
    def current(self) -> str | None:
        """What the alias points at after the change, as `name:vN`, or None."""
        return None if self.version is None else f"{self.name}:v{self.version}"

    @property
    def previous(self) -> str | None:
        """What the alias pointed at before, as `name:vN`, or None."""
        return None if self.previous_version is None else f"{self.name}:v{self.previous_version}"

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain JSON."""
        return {
            "name": self.name,
            "alias": self.alias,
            "action": self.action,
            "revision": self.revision,
            "current": self.current,
            "digest": self.digest,
            "previous": self.previous,
            "previous_digest": self.previous_digest,
            "actor": self.actor,
            "reason": self.reason,
            "at": self.at,
            "changed": self.changed,
            "dry_run": self.dry_run,
            "gate": None if self.gate is None else self.gate.to_dict(),
            "approvals": None if self.approvals is None else self.approvals.to_dict(),
        }


def left_by_last_step(steps: Sequence[AliasChange], digest: str) -> bool:
    """Say whether the newest of an alias's steps, oldest first, is a roll-back or a demotion of the version."""
    return bool(steps) and steps[-1].action in ("rollback", "demote") and steps[-1].previous_digest == digest


@dataclass(frozen=True)
class VersionChange:
    """A step in a version's life: deprecate, restore or retire."""

    name: str
    version: int
    digest: str
    action: str
    state: str
    previous_state: str
    actor: str
    reason: str
    at: str

    @property
    def changed(self) -> bool:
        """Whether anything was written; False if the version was in this state already."""
        return self.state != self.previous_state

    def to_dict(self) -> dict[str, Any]:
        """Return the step as plain JSON."""
        return {**asdict(self), "changed": self.changed}


@dataclass(frozen=True)
class AuditEntry:
    """A row of the hash chain: who did what to what, and the hash that binds it to every row before."""

    sequence: int
    at: str
    actor: str
    action: str
    subject: str
    payload_json: str
    previous_hash: str
    hash: str

    @cached_property
    def payload(self) -> dict[str, Any]:
        """What was done, in full."""
        document: dict[str, Any] = json.loads(self.payload_json)
        return document

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON."""
        return {
            "sequence": self.sequence,
            "at": self.at,
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "payload": self.payload,
            "previous_hash": self.previous_hash,
            "hash": self.hash,
        }


@dataclass(frozen=True)
class OutboxEvent:
    """Something that other systems may want to hear of, in the order in which it was committed."""

    id: int
    at: str
    topic: str
    payload: dict[str, Any]
