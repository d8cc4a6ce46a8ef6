"""The part of the registry's door that takes in what was made and measured: versions, runs and reports.

Bytes go first and rows second, so that a crash never leaves a version without its bytes; every row of one act is in
one transaction, so that a crash never leaves half an act.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry import audit
from registry.canonical import canonical_json, sha256_text
from registry.database import writing
from registry.entities import Evaluation, Version
from registry.errors import (
    BlobCorrupted,
    BlobsMissing,
    EvaluationMismatch,
    ManifestInvalid,
    ReferenceInvalid,
    RegistryBusy,
    ReportInvalid,
)
from registry.lookup import reference_statement, resolve_digest
from registry.manifest import Manifest, open_regular, require_files
from registry.names import check_name, check_text, is_digest
from registry.opened import Opened
from registry.promotion import emit
from registry.registration import (
    check_of_today,
    check_stored,
    expected_reads,
    find_existing,
    find_parents,
    first_reads,
    insert_version,
)
from registry.reports import check_document, check_report, newest_evaluation, reports_statement
from registry.runs import LARGEST_NUMBER, Run, insert_run
from registry.scan import scan
from registry.schema import evaluations
from registry.status import RETIRED, query_status
from registry.writer import next_id

__all__ = ["Recording"]

# With a lease none is lost between storing and the row, unless a collection can't see the lease.
STORE_ATTEMPTS = 3
# Hashed in some 0.1 s: before anybody misses an answer about the manifest.
SOON_BYTES = 64 << 20


class Recording(Opened):
    """What `registry.store.Registry` has for versions, runs and reports that come in."""

    def register(
        self,
        name: str,
        manifest: Manifest,
        files: Mapping[str, Path],
        *,
        actor: str | None = None,
        progress: Callable[[int, int], object] = lambda _done, _total: None,
    ) -> Version:
        """Store a version's files and then its row.

        Args:
            name: The model's name.
            manifest: What the version is; `files` in it are measured with `registry.manifest.describe_files`.
            files: Path inside the version -> file on disk, for the same paths.
            actor: Who registers, for the audit trail; the login name by default.
            progress: Told the bytes that are stored, and how many there are. A call that was cut off is gone on with.

        Returns:
            The new version, or the one that is there with this content key or this digest: nothing is stored twice,
            and what was damaged or lost of its files is put back. One that was retired is active again.

        Raises:
            ReferenceInvalid, ManifestInvalid, FileRefused, BaseMismatch: What was given can't be used.
            ParentNotFound, VersionRetired: A parent isn't registered, or is retired.
            DigestTaken: The same manifest is registered under another name.
            ContentKeyTaken: The version with this content key holds other files.
            RegistryPathError: The store can't be written.
            RegistryBusy: The write lock was held for too long, or its files were removed again and again.
        """
        check_name(name)
        actor = audit.acting(actor)
        check_text("content_key", manifest.content_key, 256)
        require_files(manifest, files)
        # where all are there, they are scanned there alone, and a lease would hold nothing that isn't looked for again
        stored = self.blobs.is_local and not self._gone(manifest)
        soon = stored and sum(entry.size for entry in manifest.files.values()) <= SOON_BYTES
        parents: list[Version] | None = None
        # over a network it is asked with the lock, unless contents would have to be hashed for long before the answer
        if not (soon and self._is_writer_far and _is_of_today(manifest)):
            query = self._lookup.ahead(first_reads(name, manifest))
            existing = find_existing(query, name, manifest)
            if existing is None:
                check_of_today(manifest)
            elif query_status(self._lookup.query, existing).state != RETIRED:
                self._store_files(manifest, files, progress)  # the same files: puts back what was damaged or lost
                return existing
            parents = None if soon else find_parents(query, manifest)
        if not stored:
            for path in manifest.files:  # before the first is stored
                with open_regular(path, Path(files[path])) as stream:
                    scan(path, stream, os.fstat(stream.fileno()).st_size, manifest.files)
        for attempt in range(STORE_ATTEMPTS):
            needed = () if stored and attempt == 0 else manifest.file_digests.values()
            with self.leases.hold(needed):
                try:
                    self._store_files(manifest, files, progress)
                except BlobCorrupted:  # collected just after it was stored
                    continue
                with writing(self._engine, expected_reads(name, manifest, parents)) as writer:
                    # under the lock, so that a collection has taken what it takes, or will see the row
                    if not self._gone(manifest):
                        return insert_version(writer, name, manifest, parents, actor)
        raise RegistryBusy(
            f"files of {name!r} were removed {STORE_ATTEMPTS} times while they were registered",
            allowed="collections that heed leases, of this release or a newer one",
            next_step="find out who removes files from the registry's folder, then run the command again",
        )

    def register_stored(self, name: str, manifest: Manifest, *, actor: str | None = None) -> Version:
        """Register a version whose contents are in the blob store already, as a server's callers sent them.

        Args:
            name: The model's name.
            manifest: What the version is.
            actor: Who registers, for the audit trail; the login name by default.

        Returns:
            As `register`.

        Raises:
            BlobsMissing: Contents aren't stored, or are damaged; `missing` names them.
            As `register` otherwise.
        """
        check_name(name)
        actor = audit.acting(actor)
        check_text("content_key", manifest.content_key, 256)
        query = self._lookup.ahead(first_reads(name, manifest))
        existing = find_existing(query, name, manifest)
        parents: list[Version] = []
        if existing is None:
            check_of_today(manifest)
            parents = find_parents(query, manifest)
        self.blobs.owner.claim()
        with self.leases.hold(manifest.file_digests.values()):
            check_stored(self.blobs, manifest)
            if existing is not None and query_status(self._lookup.query, existing).state != RETIRED:
                return existing
            with writing(self._engine, expected_reads(name, manifest, parents)) as writer:
                # under the lock, so that a collection has taken what it takes, or will see the row
                gone = self._gone(manifest)
                if gone:
                    raise BlobsMissing(
                        f"contents that the manifest names were collected: {len(gone)} of {len(manifest.files)}",
                        missing=sorted(gone),
                        next_step="send them, then register again",
                    )
                return insert_version(writer, name, manifest, parents, actor)

    def _gone(self, manifest: Manifest) -> set[str]:
        """Return the contents that were there and aren't; under the write lock no collection takes one."""
        sizes = {entry.sha256: entry.size for entry in manifest.files.values()}
        return {sha256 for sha256, size in sizes.items() if self.blobs.size(sha256) != size}

    def _store_files(
        self, manifest: Manifest, files: Mapping[str, Path], progress: Callable[[int, int], object]
    ) -> None:
        self.blobs.sweep_now_and_then()
        done, total = 0, sum(entry.size for entry in manifest.files.values())
        for path, entry in manifest.files.items():
            with open_regular(path, Path(files[path])) as stream:
                self.blobs.put(stream, entry.sha256, entry.size, _behind(done, total, progress))
            done += entry.size
            with self.blobs.open(entry.sha256) as stored:
                # again, on the bytes that will be served: the source may have changed between the two
                scan(path, stored, entry.size, manifest.files)

    def record_run(
        self,
        name: str,
        sweep: str,
        number: int,
        *,
        base_fingerprint: str,
        content_key: str | None,
        document: Mapping[str, Any],
        actor: str | None = None,
    ) -> Run:
        """Record a run that is no version, once: a second call with the same document returns what is there.

        Args:
            name: Name of the model that it was a trial for.
            sweep: Key of the sweep.
            number: Of the run in its sweep, from 0 on.
            base_fingerprint: Of the base that was trained.
            content_key: Of the training that came to its end, as a version's manifest has it, or None.
            document: What it was made of and came to, plain JSON; lineage shows its `summary`.
            actor: Who ran it.

        Raises:
            ReferenceInvalid: No name of a model, or no number of a run.
            ReportInvalid: The document is not plain JSON, or NaN is in it.
            RunTaken: The run is recorded with another document, base or content key.
        """
        check_name(name)
        actor = audit.acting(actor)
        check_text("sweep", sweep, 64)
        if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
            raise ReferenceInvalid(
                f"run number {number!r} can't be kept", allowed=f"a whole number, 0 to {LARGEST_NUMBER}"
            )
        check_text("base_fingerprint", base_fingerprint, 64)
        check_text("content_key", content_key, 256)
        with writing(self._engine) as writer:
            return insert_run(
                writer,
                name=name,
                sweep=sweep,
                number=number,
                base_fingerprint=base_fingerprint,
                content_key=content_key,
                document=document,
                actor=actor,
            )

    def record_evaluation(
        self, version_digest: str, report: Mapping[str, Any], *, actor: str | None = None, over_newest: bool = False
    ) -> Evaluation:
        """Tie a report to exactly these weights. The newest report is the one that the gate reads.

        Args:
            version_digest: The whole digest of a registered version (a REF of any other form is refused).
            report: Plain JSON; `task`, `tax` and optionally `policy` are read by the gate. `files`, where it is there,
                says what was measured: path -> hex sha256, as `Manifest.file_digests`.
            actor: Who measured.
            over_newest: Lay the report over the newest one: what it does not hold is taken from there, in the same
                transaction, so that what somebody else records at the same time is not lost.

        Returns:
            The stored evaluation; the newest one again if it is this very report.

        Raises:
            VersionNotFound: No version has this digest.
            ReportInvalid: Not a mapping of plain JSON, NaN in it, or what the gate reads has another type.
            PolicyInvalid: The policy in it can't be used.
            EvaluationMismatch: The report's `files` are not the version's.
        """
        actor = audit.acting(actor)
        check_document("evaluation report", report)
        check_report(report)
        expected = [audit.LAST, next_id(evaluations)]
        if is_digest(version_digest):
            expected += reference_statement(version_digest), reports_statement(version_digest, newest_only=True)
        with writing(self._engine, expected) as writer:
            query = writer.query
            version = resolve_digest(query, version_digest)
            newest = newest_evaluation(query, version.digest)
            try:
                whole = {**newest.report, **report} if over_newest and newest is not None else dict(report)
                text = canonical_json(whole)
                digest = sha256_text(text)  # of no text with half of a surrogate pair in it
            except (TypeError, ValueError) as error:
                raise ReportInvalid(f"evaluation report: {error}", allowed="plain JSON values, no NaN") from error
            if "files" in whole:
                _check_measured(version, whole["files"])
            if newest is not None and newest.digest == digest:
                return newest
            at = audit.now()
            number = writer.insert_numbered(
                evaluations, {"version_id": version.id, "digest": digest, "report": text, "created_at": at}
            )
            payload = {"digest": version.digest, "evaluation": digest}
            audit.append(writer, at=at, actor=actor, action="evaluate", subject=version.label, payload=payload)
            named = {"name": version.name, "version": version.version}
            emit(writer, at, "version.evaluated", canonical_json({**named, **payload}))
            return Evaluation(number, version.digest, digest, text, at)


def _is_of_today(manifest: Manifest) -> bool:
    try:
        check_of_today(manifest)
    except (ReferenceInvalid, ManifestInvalid):
        return False
    return True


def _behind(before: int, total: int, progress: Callable[[int, int], object]) -> Callable[[int], object]:
    return lambda there: progress(before + there, total)


def _check_measured(version: Version, measured: object) -> None:
    if not isinstance(measured, Mapping):
        raise ReportInvalid(
            f"evaluation report: files is {measured!r}", allowed="a mapping of path -> hex sha256 of what was measured"
        )
    held = version.manifest.file_digests
    odd = sorted(str(path) for path in {*held, *measured} if held.get(path) != measured.get(path))
    if odd:
        raise EvaluationMismatch(
            f"the report measured other files than those of {version.label}: "
            + ", ".join(odd[:3])
            + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""),
            allowed="a report on exactly the version's files",
            next_step=f"measure what `tunewright registry resolve {version.label} --checkout` lays out, or register "
            "what was measured as a version of its own",
        )
