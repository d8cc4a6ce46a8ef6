"""Does the registry still say and hold what it was given? Bytes against manifests, rows against the audit chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from registry.audit import verify_chain
from registry.audited_rows import differences_from_audit
from registry.blobs import BlobStore
from registry.canonical import sha256_text
from registry.entities import Version
from registry.errors import AuditBroken, BlobCorrupted, RegistryError
from registry.lookup import Query
from registry.manifest import Manifest
from registry.protection import has_approvals
from registry.runs import query_runs
from registry.status import RETIRED, query_status

__all__ = ["Problem", "Verification", "verify"]


@dataclass(frozen=True)
class Problem:
    """Something that isn't as it was given: where, which file if one, and what."""

    subject: str
    path: str | None
    problem: str


@dataclass(frozen=True)
class Verification:
    """What was looked at and what was wrong; `audit_head` is the last hash of an unbroken chain."""

    versions: int
    files: int
    bytes: int
    audit_rows: int
    audit_head: str | None
    problems: tuple[Problem, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as plain JSON."""
        return {**asdict(self), "problems": [asdict(p) for p in self.problems], "intact": self.intact}


def verify(
    query: Query, snapshot: Callable[[], AbstractContextManager[None]], blobs: BlobStore, versions: Sequence[Version]
) -> Verification:
    """Read every blob of the versions, and hold every row against its digest and the audit chain.

    A retired version's blobs may be gone: they may have been collected.

    Args:
        query: The look-ups' query function.
        snapshot: Lets every query inside see one state, so that what is written meanwhile isn't taken for damage.
        blobs: Where the contents are.
        versions: Whose bytes to read; the audit chain is always verified whole.

    Returns:
        All that is wrong, not just the first.
    """
    problems: list[Problem] = []
    checked: dict[str, tuple[int, str | None]] = {}
    files = 0
    for version in versions:
        manifest = _check_row(query, version, problems)
        entries = {} if manifest is None or query_status(query, version).state == RETIRED else manifest.files
        for path, entry in entries.items():
            files += 1
            if entry.sha256 not in checked:
                checked[entry.sha256] = _check_blob(blobs, entry.sha256)
            wrong = checked[entry.sha256][1]
            # looked at again, since it may have been retired, and collected, meanwhile
            if wrong is not None and query_status(query, version).state != RETIRED:
                problems.append(Problem(version.label, path, wrong))
    for run in query_runs(query):
        if sha256_text(run.document_json) != run.digest:
            problems.append(Problem(run.label, None, "the document doesn't have the run's digest"))
    if has_approvals(query):
        for number, digest, matter in query("SELECT id, digest, matter FROM approvals ORDER BY id", ()):
            if sha256_text(matter) != digest:
                problems.append(Problem(f"approval {number}", None, "what was approved doesn't have its digest"))
    head = None
    with snapshot():
        try:
            head = verify_chain(query)
        except AuditBroken as error:
            problems.append(Problem("audit", None, error.problem))
        problems += [Problem("audit", None, problem) for problem in differences_from_audit(query)]
        audit_rows = query("SELECT count(*) FROM audit", ())[0][0]
    return Verification(
        versions=len(versions),
        files=files,
        bytes=sum(size for size, _ in checked.values()),
        audit_rows=audit_rows,
        audit_head=head,
        problems=tuple(problems),
    )


def _check_blob(blobs: BlobStore, sha256: str) -> tuple[int, str | None]:
    try:
        return blobs.read(sha256), None
    except BlobCorrupted as error:
        return 0, error.problem


def _check_row(query: Query, version: Version, problems: list[Problem]) -> Manifest | None:
    if sha256_text(version.manifest_json) != version.digest:
        problems.append(Problem(version.label, None, "the manifest doesn't have the version's digest"))
        return None
    try:
        manifest = Manifest.from_json(version.manifest_json)  # a row that differs in its kind is one more problem
    except RegistryError as error:
        problems.append(Problem(version.label, None, error.problem))
        return None
    if (manifest.kind, manifest.base_fingerprint) != (version.kind, version.base_fingerprint):
        problems.append(Problem(version.label, None, "kind or base differ between the row and its manifest"))
    rows = query(
        "SELECT v.digest, p.role, p.weight FROM version_parents p JOIN versions v ON v.id = p.parent_id "
        "WHERE p.child_id = ?",
        (version.id,),
    )
    if sorted(map(repr, map(tuple, rows))) != sorted(repr((p.digest, p.role, p.weight)) for p in manifest.parents):
        problems.append(Problem(version.label, None, "the parents differ between the rows and the manifest"))
    for digest, report in query("SELECT digest, report FROM evaluations WHERE version_id = ?", (version.id,)):
        if sha256_text(report) != digest:
            problems.append(Problem(version.label, None, f"evaluation {digest[:12]} was changed"))
    return manifest
