"""The registry of another machine: `RegistryClient` has `Registry`'s methods, values and errors, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.canonical import canonical_json
from registry.checkout import check_out
from registry.entities import (
    AliasChange,
    AliasState,
    AuditEntry,
    Evaluation,
    OutboxEvent,
    Version,
    left_by_last_step,
)
from registry.errors import BlobsMissing, MissingError, RegistryBusy
from registry.gate import GateResult, Policy
from registry.http.connection import quoted
from registry.http.cursors import cursor_of
from registry.http.problems import gate_of
from registry.http.remote_acts import RemoteActs
from registry.http.transfer import VERIFY_SECONDS, Progress, RemoteBlobs, send
from registry.http.wire import (
    alias_of,
    audit_of,
    change_of,
    evaluation_of,
    event_of,
    lineage_of,
    run_of,
    verification_of,
    version_of,
)
from registry.lineage import Lineage
from registry.manifest import FileEntry, Manifest, open_regular, require_files
from registry.names import check_name
from registry.recording import STORE_ATTEMPTS
from registry.reports import check_document
from registry.runs import Run
from registry.scan import scan
from registry.search import Model, check_after
from registry.standing import Standing
from registry.verification import Verification

__all__ = ["RegistryClient"]


class RegistryClient(RemoteActs):
    """A registry behind a server. Safe to share between threads.

    Whatever `Registry` raises, these methods raise, and `ServerUnavailable`, `TokenInvalid` and `RoleInsufficient`
    besides. Where a method takes an `actor`, it is for the sake of one signature: the server writes its token's name.

    Args:
        url: The server's address, with or without `/v1`. To this machine itself no proxy of the environment is used.
        token: The bearer token; None for a server that has none.
        transport: Another way to the server, for tests.

    Raises:
        RequestInvalid: The URL can't be read.
        TokenInvalid: The token has characters that no token has.
    """

    # Writing

    def register(
        self,
        name: str,
        manifest: Manifest,
        files: Mapping[str, Path],
        *,
        actor: str | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Register a version as `Registry.register` does; only contents that the server lacks are sent.

        Args:
            name: The model's name.
            manifest: What the version is.
            files: Path inside the version -> file on disk.
            actor: Not used.
            progress: Called with the bytes that the server has of what it lacked, and how many those are. An upload
                that broke off goes on where it stopped, in a later call, too. What is gone again by the time that all
                was sent is sent again, and told from its start.

        Raises:
            RegistryBusy: Files were removed from the server again and again meanwhile.
            As `Registry.register` otherwise.
        """
        check_name(name)
        require_files(manifest, files)
        paths = {entry.sha256: path for path, entry in manifest.files.items()}
        for attempt in range(1 + STORE_ATTEMPTS):
            try:
                return self._registered(name, manifest)
            except BlobsMissing as error:  # after the first time: collected, or damaged, while others were sent
                missing = [sha256 for sha256 in error.missing if sha256 in paths]
                if not missing:
                    raise
            if attempt == 0:  # refused here rather than after hours of sending
                for path in manifest.files:
                    with open_regular(path, Path(files[path])) as stream:
                        scan(path, stream, os.fstat(stream.fileno()).st_size, manifest.files)
            if attempt < STORE_ATTEMPTS:
                self._send({paths[sha256]: manifest.files[paths[sha256]] for sha256 in missing}, files, progress)
        raise RegistryBusy(
            f"files of {name!r} were removed from the server {STORE_ATTEMPTS} times while they were registered",
            allowed="collections that leave what was just sent, with a grace period of a day or more",
            next_step="find out who collects or removes files there, then run the same again: what is there stays",
        )

    def _send(self, entries: Mapping[str, FileEntry], files: Mapping[str, Path], progress: Progress | None) -> None:
        done, total = 0, sum(entry.size for entry in entries.values())
        for path, entry in entries.items():
            with open_regular(path, Path(files[path])) as stream:
                send(self._http, stream, entry.sha256, entry.size, _shifted(progress, done, total))
            done += entry.size

    def _registered(self, name: str, manifest: Manifest) -> Version:
        body = {"name": name, "manifest": manifest.to_dict()}
        # every content is read before it answers
        version = version_of(self._post("/v1/versions", body, timeout_seconds=VERIFY_SECONDS))
        return self._require_registered(name, manifest.files, version)

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
        """Record a run, as `Registry.record_run`."""
        check_document("run document", document)
        body = {
            "name": name,
            "sweep": sweep,
            "number": number,
            "base_fingerprint": base_fingerprint,
            "content_key": content_key,
            "document": dict(document),
        }
        return run_of(self._post("/v1/runs", body))

    def record_evaluation(
        self, version_digest: str, report: Mapping[str, Any], *, actor: str | None = None, over_newest: bool = False
    ) -> Evaluation:
        """Tie a report to exactly these weights, as `Registry.record_evaluation`."""
        check_document("evaluation report", report)
        body = {"report": dict(report), "over_newest": over_newest}
        kept = evaluation_of(self._post(f"/v1/evaluations/{quoted(version_digest)}", body))
        return self._require_evaluation_of(version_digest, kept)

    # Looking up

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every version, or those of one model, by name and number."""
        return [version_of(item) for item in self._pages("/v1/versions", name=name)]

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
        """Return the versions that satisfy every condition given, as `Registry.search`."""
        check_after(*after)
        found = self._pages(
            "/v1/versions", cursor=cursor_of(*after), limit=limit,
            name=name, kind=kind, base=base, data=data, metric=metric, min=minimum, max=maximum,
        )  # fmt: skip
        return [version_of(item) for item in found]

    def models(self, *, after: str = "", limit: int | None = None) -> list[Model]:
        """Return the models by name, those behind the name `after`, at most `limit` of them."""
        check_after(after)
        return [Model(**item) for item in self._pages("/v1/models", cursor=cursor_of(after), limit=limit)]

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now, of one model or of all."""
        return [alias_of(item) for item in self._pages("/v1/aliases", name=name)]

    def history(self, name: str, alias: str) -> list[AliasChange]:
        """Return an alias's steps, oldest first."""
        try:
            steps = self._get(f"/v1/history/{quoted(f'{name}@{alias}')}")["steps"]
        except MissingError:  # told over HTTP; a registry says by an empty list that there were none
            return []
        return [change_of(step) for step in steps]

    def alias_revision(self, name: str, alias: str) -> int:
        """Return what `expected_revision` has to be now: 0 for an alias that never was; one taken away has one, too."""
        steps = self.history(name, alias)
        return steps[-1].revision if steps else 0

    def rolled_back_from(self, name: str, alias: str, digest: str) -> bool:
        """Say whether the alias's newest step is a roll-back or a demotion of the version with this whole digest."""
        return left_by_last_step(self.history(name, alias), digest)

    def evaluations(self, ref: str) -> list[Evaluation]:
        """Return the reports recorded for a version, newest first."""
        found = self._pages(f"/v1/evaluations/{quoted(ref)}")
        return [self._require_evaluation_of(ref, evaluation_of(item)) for item in found]

    def check_gate(
        self, ref: str, policy: Policy | None = None, alias: str | None = None, *, approvals: bool = True
    ) -> GateResult:
        """Return the verdict that a promotion would come to now, as `Registry.check_gate`."""
        asked: dict[str, Any] = {"alias": alias}
        if policy is not None:
            asked["policy"] = canonical_json(policy.to_dict())
        if not approvals:
            asked["approvals"] = "false"
        verdict = gate_of(self._get(f"/v1/gate/{quoted(ref)}", **asked))
        assert verdict is not None
        return verdict

    def standing(self, ref: str) -> Standing:
        """Say whether a version is proven, as `Registry.standing`."""
        document = self._get(f"/v1/standing/{quoted(ref)}")
        told = (tuple(document[key]) for key in ("reasons", "required_keys"))
        return Standing(document["proven"], document["basis"], *told)

    def runs(self, name: str | None = None, *, after: int = 0, limit: int | None = None) -> list[Run]:
        """Return the recorded runs of a model, or of all, above an id, oldest first."""
        return [run_of(item) for item in self._numbered("/v1/runs", after, limit, name=name)]

    def lineage(self, ref: str, direction: str = "both") -> Lineage:
        """Return what a version was made from (`up`), what was made from it (`down`), or both."""
        return lineage_of(self._get(f"/v1/lineage/{quoted(ref)}", direction=direction))

    def trained_on(self, data_digest: str) -> Lineage:
        """Return the versions that were trained on a data file, what was made of them, and the aliases of all those."""
        return lineage_of(self._get(f"/v1/data/{quoted(data_digest)}"))

    def audit(self, *, after: int = 0, limit: int | None = None) -> list[AuditEntry]:
        """Return the audit rows above a sequence number, oldest first."""
        return [audit_of(item) for item in self._numbered("/v1/audit", after, limit)]

    def outbox(self, *, after: int = 0, limit: int | None = None) -> list[OutboxEvent]:
        """Return the outbox rows above an id, oldest first; the reader keeps its own place."""
        return [event_of(item) for item in self._numbered("/v1/outbox", after, limit)]

    def verify(self, ref: str | None = None) -> Verification:
        """Let the server read every byte of one version, or of all, and hold every row against the audit chain."""
        document = self._post("/v1/verifications", {"ref": ref}, timeout_seconds=VERIFY_SECONDS)
        return verification_of(document)

    # Bytes

    def checkout(self, ref: str, dest: Path | str, *, progress: Progress | None = None) -> Path:
        """Fetch a version's files into a new or empty folder, every byte verified; it is there whole or not at all.

        Args:
            ref: The version.
            dest: The folder; one that holds the version intact is kept as it is.
            progress: Called with the bytes that came and how many there are. A connection that breaks is gone on with
                at the byte where it broke; a process that is ended begins again.

        Raises:
            BlobCorrupted: A file is gone or damaged; nothing is left behind.
            RecordDamaged: The server answers with another version than the REF names.
            RegistryPathError: The folder holds other files, or can't be written.
            VersionRetired: It is retired.
        """
        version = self.resolve(ref)
        self.require_usable(version, "checked out")
        total = sum(entry.size for entry in version.manifest.files.values())
        done = 0

        def received(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        return check_out(RemoteBlobs(self._http, received), version.manifest, Path(dest))


def _shifted(progress: Progress | None, before: int, total: int) -> Callable[[int], object]:
    return lambda done: None if progress is None else progress(before + done, total)
