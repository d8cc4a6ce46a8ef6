"""The registry's one door: register, evaluate, promote, roll back, look up, check out, verify; and `upkeep.py`.

Bytes go first and rows second, so that a crash never leaves a version without its bytes; every row of one act is in
one transaction, so that a crash never leaves half an act.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from registry import audit, promotion
from registry.blob_place import open_blobs
from registry.canonical import canonical_json, sha256_text
from registry.checkout import check_out
from registry.database import open_engine, query_on, writing
from registry.entities import AliasChange, AliasState, AuditEntry, Evaluation, OutboxEvent, Version
from registry.errors import (
    BlobCorrupted,
    BlobsMissing,
    EvaluationMismatch,
    GateRefused,
    RegistryBusy,
    ReportInvalid,
    RollbackRefused,
)
from registry.gate import GateResult, Policy
from registry.layout import CHECKOUTS, LEASES
from registry.leases import Leases
from registry.lineage import Lineage, trace, trained_on
from registry.lookup import Lookup, Query, query_alias, resolve_digest, resolve_reference
from registry.manifest import Manifest, open_regular, require_files
from registry.names import check_alias, check_name, check_text
from registry.registration import check_stored, find_existing, find_parents, insert_version
from registry.runs import EVERY, Run, insert_run, query_runs
from registry.scan import scan
from registry.schema import evaluations
from registry.search import Model, query_models, search_versions
from registry.standing import Standing, standing_of
from registry.status import RETIRED, query_status, require_usable
from registry.upkeep import Upkeep
from registry.verification import Verification, verify

__all__ = ["Registry"]

# With a lease none is lost between storing and the row, unless a collection can't see the lease.
STORE_ATTEMPTS = 3


class Registry(Upkeep):
    """The source of truth for models in one folder. Safe to share between threads and between processes."""

    def __init__(self, folder: Path, engine: Engine, database: str | None = None, blobs: str | None = None) -> None:
        self.folder = folder
        self.blobs = open_blobs(folder, blobs)
        self.leases = Leases(folder / LEASES)
        self._engine = engine
        self._lookup = Lookup(folder, database)

    @classmethod
    def open(
        cls, folder: Path | str, *, create: bool = True, database: str | None = None, blobs: str | None = None
    ) -> Registry:
        """Open the registry in a folder, making it or bringing its schema up to date where needed.

        Args:
            folder: Where its bytes are, and where its SQLite database is or its PostgreSQL database is remembered.
            create: Make it if it isn't there.
            database: A PostgreSQL database by its URL, without a password, for a folder that is new; or another
                address of the one that the folder remembers. By default $TUNEWRIGHT_REGISTRY_DATABASE (which may have
                a password), what the folder remembers, or SQLite in the folder.
            blobs: Where in S3 the contents of a registry that has none yet are to be: `s3://BUCKET/PREFIX`. By default
                $TUNEWRIGHT_REGISTRY_BLOBS, what the folder remembers, or the folder. Credentials are AWS's own.

        Raises:
            RegistryNotFound: Nothing there, and `create` is False.
            RegistryPathError: The folder can't be made or written.
            SchemaUnsupported: A newer release wrote it.
            WrongDatabase: The database isn't the one that the folder belongs to, or holds something else.
            DatabaseAddressInvalid, DatabaseUnreachable, DatabaseRefused, DriverMissing: The database can't be used.
            BlobsUnreachable, S3Missing: A new address of blobs can't be used.
        """
        folder = Path(folder).absolute()
        return cls(folder, open_engine(folder, create=create, database=database), database, blobs)

    def close(self) -> None:
        """Close this thread's connections (and other threads' to PostgreSQL); it can't be used afterwards."""
        self._lookup.close()
        self._engine.dispose()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

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
        existing = find_existing(self._lookup.query, name, manifest)
        if existing is not None and query_status(self._lookup.query, existing).state != RETIRED:
            self._store_files(manifest, files, progress)  # the same files: puts back what was damaged or lost
            return existing
        find_parents(self._lookup.query, manifest)
        for path in manifest.files:
            with open_regular(path, Path(files[path])) as stream:
                scan(path, stream, os.fstat(stream.fileno()).st_size)
        with self.leases.hold(manifest.file_digests.values()):
            for _ in range(STORE_ATTEMPTS):
                try:
                    self._store_files(manifest, files, progress)
                except BlobCorrupted:  # collected just after it was stored
                    continue
                with writing(self._engine) as connection:
                    # under the lock, so that a collection has taken what it takes, or will see the row
                    if not self._gone(manifest):
                        return insert_version(connection, name, manifest, actor)
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
        existing = find_existing(self._lookup.query, name, manifest)
        if existing is None:
            find_parents(self._lookup.query, manifest)
        with self.leases.hold(manifest.file_digests.values()):
            check_stored(self.blobs, manifest)
            if existing is not None and query_status(self._lookup.query, existing).state != RETIRED:
                return existing
            with writing(self._engine) as connection:
                # under the lock, so that a collection has taken what it takes, or will see the row
                gone = self._gone(manifest)
                if gone:
                    raise BlobsMissing(
                        f"contents that the manifest names were collected: {len(gone)} of {len(manifest.files)}",
                        missing=sorted(gone),
                        next_step="send them, then register again",
                    )
                return insert_version(connection, name, manifest, actor)

    def _gone(self, manifest: Manifest) -> set[str]:
        """Return the contents that were there and aren't; under the write lock no collection takes one."""
        return {entry.sha256 for entry in manifest.files.values() if self.blobs.size(entry.sha256) != entry.size}

    def _store_files(
        self, manifest: Manifest, files: Mapping[str, Path], progress: Callable[[int, int], object]
    ) -> None:
        self.blobs.sweep_incoming()
        done, total = 0, sum(entry.size for entry in manifest.files.values())
        for path, entry in manifest.files.items():
            with open_regular(path, Path(files[path])) as stream:
                self.blobs.put(stream, entry.sha256, entry.size, _behind(done, total, progress))
            done += entry.size
            with self.blobs.open(entry.sha256) as stored:
                # again, on the bytes that will be served: the source may have changed between the two
                scan(path, stored, entry.size)

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
        """Record a run that is no version, once: a second call for the same one returns what is there.

        Args:
            name: Name of the model that it was a trial for.
            sweep: Key of the sweep.
            number: Of the run in its sweep.
            base_fingerprint: Of the base that was trained.
            content_key: Of the training that came to its end, as a version's manifest has it, or None.
            document: What it was made of and came to, plain JSON; lineage shows its `summary`.
            actor: Who ran it.

        Raises:
            ReferenceInvalid: No name of a model.
            ReportInvalid: The document is not plain JSON, or NaN is in it.
        """
        check_name(name)
        actor = audit.acting(actor)
        check_text("sweep", sweep, 64)
        check_text("base_fingerprint", base_fingerprint, 64)
        check_text("content_key", content_key, 256)
        with writing(self._engine) as connection:
            return insert_run(
                connection,
                query_on(connection),
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
            ReportInvalid: Not a mapping of plain JSON, or NaN in it.
            EvaluationMismatch: The report's `files` are not the version's.
        """
        actor = audit.acting(actor)
        with writing(self._engine) as connection:
            query = query_on(connection)
            version = resolve_digest(query, version_digest)
            newest = promotion.newest_evaluation(query, version)
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
            connection.execute(
                evaluations.insert().values(version_id=version.id, digest=digest, report=text, created_at=at)
            )
            payload = {"digest": version.digest, "evaluation": digest}
            audit.append(connection, at=at, actor=actor, action="evaluate", subject=version.label, payload=payload)
            named = {"name": version.name, "version": version.version}
            promotion.emit(connection, at, "version.evaluated", {**named, **payload})
            written = promotion.newest_evaluation(query, version)
            assert written is not None
            return written

    def promote(
        self,
        ref: str,
        alias: str,
        *,
        policy: Policy | None = None,
        actor: str,
        reason: str | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Let an alias point at a version, if its newest evaluation satisfies the policy, champion included.

        The champion is what the alias holds now. Reading reports and policy, gate, compare-and-swap, audit row and
        outbox row are one transaction.

        Args:
            ref: The version.
            alias: The alias, `champion` for instance.
            policy: What the version must have shown. None takes the policy in its newest evaluation, or the defaults
                where that names none.
            actor: Who promotes.
            reason: Why, for the audit trail.
            expected_revision: The alias's revision that the caller saw; 0 for an alias that isn't there yet. None
                takes it as it is.
            dry_run: Only say what would happen: the change, with the verdict in `gate`; nothing is written or raised
                for a failed gate.

        Returns:
            The change; `changed` is False if the alias points at this version already.

        Raises:
            GateRefused: The policy isn't satisfied; lists every reason. The refusal is audited.
            VersionDeprecated, VersionRetired: No alias takes the version.
            PolicyInvalid: The policy in the evaluation can't be used.
            AliasConflict: The alias moved; names the current revision.
            BlobCorrupted: A file of the version is gone.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        check_alias(alias)
        check_text("actor", actor, 128)
        check_text("reason", reason)
        with writing(self._engine) as connection:
            query = query_on(connection)
            version = resolve_reference(query, ref)
            change, ruling = promotion.plan_promotion(query, version, alias, policy, expected_revision)
            self._check_presence(version)
            verdict = ruling.verdict
            if dry_run:
                return replace(change, actor=actor, reason=reason, at=audit.now(), dry_run=True)
            if verdict.passed:
                if not change.changed:
                    return replace(change, actor=actor, reason=reason, at=audit.now())
                return promotion.write_change(connection, change, actor=actor, reason=reason, ruling=ruling)
            payload = {
                "alias": alias,
                "digest": version.digest,
                "previous_digest": change.previous_digest,
                "reasons": list(verdict.reasons),
                "evaluation": None if ruling.evaluation is None else ruling.evaluation.digest,
                "gate": ruling.to_dict(),
            }
            audit.append(
                connection, at=audit.now(), actor=actor, action="refuse", subject=version.label, payload=payload
            )
        raise GateRefused(
            f"{version.label} may not become {version.name}@{alias}",
            reasons=verdict.reasons,
            gate=verdict,
            allowed="versions whose newest evaluation satisfies the policy",
            next_step=f"tunewright registry show {version.label} shows what was measured",
        )

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        to: str | int | None = None,
        actor: str,
        reason: str,
        expected_revision: int | None = None,
    ) -> AliasChange:
        """Move an alias back to a version that it held before, without evaluating again.

        Args:
            name: The model.
            alias: The alias.
            to: The target: a number, `vN`, or a REF. By default what the alias held before the present version.
            actor: Who rolls back.
            reason: Why; required, for the audit trail.
            expected_revision: As in `promote`.

        Raises:
            RollbackRefused: No reason, or a target that never held the alias or holds it now.
            AliasNotFound, AliasConflict, VersionNotFound: As `promote`.
        """
        check_name(name)
        check_alias(alias)
        if not reason or not reason.strip():
            raise RollbackRefused("a roll-back without a reason", allowed="a text that says why", next_step="--reason")
        check_text("actor", actor, 128)
        check_text("reason", reason)
        with writing(self._engine) as connection:
            query = query_on(connection)
            resolve_reference(query, name)  # an unknown model is told before its missing alias
            target = None if to is None else _target_number(query, name, to)
            change = promotion.plan_rollback(query, name, alias, target, expected_revision)
            self._check_presence(resolve_digest(query, str(change.digest)))
            return promotion.write_change(connection, change, actor=actor, reason=reason, ruling=None)

    # Looking up

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names: `name` (its newest), `name:vN`, `name@alias` or a digest prefix.

        Raises:
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: Says what exists.
        """
        return self._lookup.resolve(ref)

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every version, or those of one model, by name and number."""
        return self._lookup.versions(name)

    def search(
        self,
        *,
        name: str | None = None,
        kind: str | None = None,
        base: str | None = None,
        data: str | None = None,
        metric: str | None = None,
        minimum: float | None = None,
        maximum: float | None = None,
        after: tuple[str, int] = ("", 0),
        limit: int | None = None,
    ) -> list[Version]:
        """Return the versions that satisfy every condition given, by name and number; see `search_versions`.

        Raises:
            ReferenceInvalid: A condition follows no grammar.
        """
        return search_versions(
            self._lookup.query, name=name, kind=kind, base=base, data=data, metric=metric, minimum=minimum,
            maximum=maximum, after=after, limit=limit,
        )  # fmt: skip

    def models(self, *, after: str = "", limit: int | None = None) -> list[Model]:
        """Return the models by name, those behind the name `after`, at most `limit` of them."""
        return query_models(self._lookup.query, after=after, limit=limit)

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now, of one model or of all."""
        return self._lookup.aliases(name)

    def history(self, name: str, alias: str) -> list[AliasChange]:
        """Return an alias's steps, oldest first."""
        rows = self._lookup.query(
            "SELECT e.action, e.revision, v.number, v.digest, e.actor, e.reason, e.created_at FROM alias_events e "
            "LEFT JOIN versions v ON v.id = e.version_id WHERE e.name = ? AND e.alias = ? ORDER BY e.revision",
            (name, alias),
        )
        steps: list[AliasChange] = []
        for action, revision, number, digest, actor, reason, at in rows:
            before = steps[-1] if steps else None
            steps.append(
                AliasChange(
                    name=name,
                    alias=alias,
                    action=action,
                    revision=revision,
                    version=number,
                    digest=digest,
                    previous_version=None if before is None else before.version,
                    previous_digest=None if before is None else before.digest,
                    actor=actor,
                    reason=reason,
                    at=at,
                )
            )
        return steps

    def rolled_back_from(self, name: str, alias: str, digest: str) -> bool:
        """Say whether the alias's newest step is a roll-back or a demotion of the version with this whole digest."""
        steps = self.history(name, alias)
        return bool(steps) and steps[-1].action in ("rollback", "demote") and steps[-1].previous_digest == digest

    def evaluations(self, ref: str) -> list[Evaluation]:
        """Return the reports recorded for a version, newest first."""
        return promotion.evaluations_of(self._lookup.query, self.resolve(ref))

    def check_gate(self, ref: str, policy: Policy | None = None, alias: str | None = None) -> GateResult:
        """Return the verdict that a promotion would come to now; nothing is written.

        Args:
            ref: The version.
            policy: As in `promote`.
            alias: Hold the version against what this alias holds, too; None, or an alias that isn't there, compares
                with nothing.

        Raises:
            PolicyInvalid: The policy in the evaluation can't be used.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        version = self.resolve(ref)
        query = self._lookup.query
        state = None if alias is None else query_alias(query, version.name, check_alias(alias))
        return promotion.judge(query, version, state, policy).verdict

    def standing(self, ref: str) -> Standing:
        """Say whether a version is proven: by an alias that points at it, or by its newest report.

        Raises:
            PolicyInvalid: The policy in the evaluation can't be used.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        return standing_of(self._lookup.query, self.resolve(ref))

    def runs(self, name: str | None = None) -> list[Run]:
        """Return the recorded runs of a model, or of all, oldest first."""
        return query_runs(self._lookup.query, EVERY if name is None else "name = ?", () if name is None else (name,))

    def lineage(self, ref: str, direction: str = "both") -> Lineage:
        """Return what a version was made from (`up`), what was made from it (`down`), or both.

        Raises:
            ReferenceInvalid: Another direction.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        return trace(self._lookup.query, self.resolve(ref)).towards(direction)

    def trained_on(self, data_digest: str) -> Lineage:
        """Return the versions that were trained on a data file, what was made of them, and the aliases of all those.

        Raises:
            ReferenceInvalid: No whole sha256.
        """
        return trained_on(self._lookup.query, data_digest)

    def audit(self, *, after: int = 0, limit: int | None = None) -> list[AuditEntry]:
        """Return the audit rows above a sequence number, oldest first; read only, see `verify` for the chain."""
        return list(audit.read_chain(self._lookup.query, after=after, limit=limit))

    def outbox(self, *, after: int = 0, limit: int | None = None) -> list[OutboxEvent]:
        """Return the outbox rows above an id, oldest first, at most `limit`; the reader keeps its own place."""
        sql, values = "SELECT id, created_at, topic, payload FROM outbox WHERE id > ? ORDER BY id", [after]
        rows = self._lookup.query(*((sql, values) if limit is None else (f"{sql} LIMIT ?", [*values, limit])))
        return [OutboxEvent(number, at, topic, json.loads(payload)) for number, at, topic, payload in rows]

    def outbox_head(self) -> int:
        """Return the id of the newest outbox row, 0 where there is none."""
        return int(self._lookup.query("SELECT coalesce(max(id), 0) FROM outbox", ())[0][0])

    # Bytes

    def checkout(self, ref: str, dest: Path | str | None = None) -> Path:
        """Lay a version's files out in a folder, verified, as hard links where possible.

        Args:
            ref: The version.
            dest: A new or empty folder; by default the registry's own, `checkouts/<digest>`.

        Raises:
            BlobCorrupted: A file is gone or damaged; nothing is left behind.
            VersionRetired: It is retired.
            RegistryPathError: The folder holds other files, or can't be written.
        """
        version = self.resolve(ref)
        require_usable(self._lookup.query, version, "checked out")
        own = self.folder / CHECKOUTS / version.digest
        try:
            return check_out(self.blobs, version.manifest, own if dest is None else Path(dest), replace=dest is None)
        except BlobCorrupted:
            require_usable(self._lookup.query, version, "checked out")  # it may have been retired meanwhile
            raise

    def verify(self, ref: str | None = None) -> Verification:
        """Read every byte of one version, or of all, and hold every row against the audit chain.

        Returns:
            What was looked at and everything that is wrong; nothing is raised for damage.
        """
        chosen = self.versions() if ref is None else [self.resolve(ref)]
        return verify(self._lookup.query, self._lookup.snapshot, self.blobs, chosen)


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


def _target_number(query: Query, name: str, to: str | int) -> int:
    if isinstance(to, int) or (to[:1] == "v" and to[1:].isdecimal()):
        to = f"{name}:v{to}" if isinstance(to, int) else f"{name}:{to}"
    version = resolve_reference(query, to)
    if version.name != name:
        raise RollbackRefused(f"{version.label} is not a version of {name!r}", allowed=f"{name}:vN")
    return version.version
