"""The registry of another machine: `RegistryClient` has `Registry`'s methods, values and errors, over HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from registry.canonical import canonical_json
from registry.checkout import check_out
from registry.entities import AliasChange, AliasState, AuditEntry, Evaluation, OutboxEvent, Version
from registry.errors import BlobsMissing, MissingError, ReportInvalid, ServerUnavailable
from registry.gate import GateResult, Policy
from registry.http.problems import gate_of
from registry.http.transfer import FIRST_PAUSE_SECONDS, Progress, RemoteBlobs, raise_for, send
from registry.http.wire import (
    alias_of,
    audit_of,
    change_of,
    evaluation_of,
    event_of,
    lineage_of,
    run_of,
    version_of,
)
from registry.lineage import Lineage
from registry.manifest import Manifest, open_regular, require_files
from registry.names import check_name
from registry.runs import Run
from registry.scan import scan
from registry.search import Model
from registry.standing import Standing

__all__ = ["RegistryClient"]

PAGE = 500
TIMEOUT_SECONDS = 60.0  # longer than the registry's write lock is waited for
GET_TRIES = 3


class RegistryClient:
    """A registry behind a server. Safe to share between threads.

    Whatever `Registry` raises, these methods raise, and `ServerUnavailable`, `TokenInvalid` and `RoleInsufficient`
    besides. Where a method takes an `actor`, it is for the sake of one signature: the server writes its token's name.

    Args:
        url: The server's address, without `/v1`.
        token: The bearer token; None for a server that has none.
        transport: Another way to the server, for tests.
    """

    def __init__(self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=10.0),
            transport=transport,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> RegistryClient:
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
        progress: Progress | None = None,
    ) -> Version:
        """Register a version as `Registry.register` does; only contents that the server lacks are sent.

        Args:
            name: The model's name.
            manifest: What the version is.
            files: Path inside the version -> file on disk.
            actor: Not used.
            progress: Called with the bytes that the server has of what it lacked, and how many those are. An upload
                that broke off goes on where it stopped, in a later call, too.
        """
        check_name(name)
        require_files(manifest, files)
        body = {"name": name, "manifest": manifest.to_dict()}
        try:
            return version_of(self._post("/v1/versions", body))
        except BlobsMissing as error:
            missing = error.missing
        for path in manifest.files:  # refused here rather than after hours of sending
            with open_regular(path, Path(files[path])) as stream:
                scan(path, stream, os.fstat(stream.fileno()).st_size)
        paths = {entry.sha256: path for path, entry in manifest.files.items()}
        total = sum(manifest.files[paths[sha256]].size for sha256 in missing)
        done = 0
        for sha256 in missing:
            path = paths[sha256]
            size = manifest.files[path].size
            with open_regular(path, Path(files[path])) as stream:
                send(self._http, stream, sha256, size, _shifted(progress, done, total))
            done += size
        return version_of(self._post("/v1/versions", body))

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
        body = {"report": dict(report), "over_newest": over_newest}
        return evaluation_of(self._post(f"/v1/evaluations/{_quoted(version_digest)}", body))

    def promote(
        self,
        ref: str,
        alias: str,
        *,
        policy: Policy | None = None,
        actor: str | None = None,
        reason: str | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Let an alias point at a version, as `Registry.promote`."""
        body = {
            "ref": ref,
            "alias": alias,
            "policy": None if policy is None else policy.to_dict(),
            "reason": reason,
            "expected_revision": expected_revision,
            "dry_run": dry_run,
        }
        return change_of(self._post("/v1/promotions", body))

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        to: str | int | None = None,
        reason: str,
        actor: str | None = None,
        expected_revision: int | None = None,
    ) -> AliasChange:
        """Move an alias back, as `Registry.rollback`."""
        body = {
            "name": name,
            "alias": alias,
            "to": f"v{to}" if isinstance(to, int) else to,
            "reason": reason,
            "expected_revision": expected_revision,
        }
        return change_of(self._post("/v1/rollbacks", body))

    # Looking up

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names."""
        return version_of(self._get(f"/v1/versions/{_quoted(ref)}"))

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
    ) -> list[Version]:
        """Return the versions that satisfy every condition given, as `Registry.search`."""
        found = self._pages(
            "/v1/versions", name=name, kind=kind, base=base, data=data, metric=metric, min=minimum, max=maximum
        )
        return [version_of(item) for item in found]

    def models(self) -> list[Model]:
        """Return the models by name."""
        return [Model(**item) for item in self._pages("/v1/models")]

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now, of one model or of all."""
        return [alias_of(item) for item in self._pages("/v1/aliases", name=name)]

    def history(self, name: str, alias: str) -> list[AliasChange]:
        """Return an alias's steps, oldest first."""
        try:
            steps = self._get(f"/v1/history/{_quoted(f'{name}@{alias}')}")["steps"]
        except MissingError:  # told over HTTP; a registry says by an empty list that there were none
            return []
        return [change_of(step) for step in steps]

    def evaluations(self, ref: str) -> list[Evaluation]:
        """Return the reports recorded for a version, newest first."""
        return [evaluation_of(item) for item in self._pages(f"/v1/evaluations/{_quoted(ref)}")]

    def check_gate(self, ref: str, alias: str | None = None) -> GateResult:
        """Return the verdict that a promotion by the version's own policy would come to now."""
        verdict = gate_of(self._get(f"/v1/gate/{_quoted(ref)}", alias=alias))
        assert verdict is not None
        return verdict

    def standing(self, ref: str) -> Standing:
        """Say whether a version is proven, as `Registry.standing`."""
        document = self._get(f"/v1/standing/{_quoted(ref)}")
        return Standing(document["proven"], document["basis"], tuple(document["reasons"]))

    def runs(self, name: str | None = None) -> list[Run]:
        """Return the recorded runs of a model, or of all, oldest first."""
        return [run_of(item) for item in self._numbered("/v1/runs", 0, None, name=name)]

    def lineage(self, ref: str, direction: str = "both") -> Lineage:
        """Return what a version was made from (`up`), what was made from it (`down`), or both."""
        return lineage_of(self._get(f"/v1/lineage/{_quoted(ref)}", direction=direction))

    def trained_on(self, data_digest: str) -> Lineage:
        """Return the versions that were trained on a data file, what was made of them, and the aliases of all those."""
        return lineage_of(self._get(f"/v1/data/{_quoted(data_digest)}"))

    def audit(self, *, after: int = 0, limit: int | None = None) -> list[AuditEntry]:
        """Return the audit rows above a sequence number, oldest first."""
        return [audit_of(item) for item in self._numbered("/v1/audit", after, limit)]

    def outbox(self, *, after: int = 0, limit: int | None = None) -> list[OutboxEvent]:
        """Return the outbox rows above an id, oldest first; the reader keeps its own place."""
        return [event_of(item) for item in self._numbered("/v1/outbox", after, limit)]

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
            RegistryPathError: The folder holds other files, or can't be written.
        """
        version = self.resolve(ref)
        total = sum(entry.size for entry in version.manifest.files.values())
        done = 0

        def received(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        return check_out(RemoteBlobs(self._http, received), version.manifest, Path(dest))

    # The wire

    def _get(self, path: str, **params: Any) -> Any:
        given = {key: value for key, value in params.items() if value is not None}
        for attempt in range(GET_TRIES):
            try:
                answer = self._http.get(path, params=given)
            except httpx.TransportError as error:
                if attempt == GET_TRIES - 1:
                    raise self._unavailable(error) from error
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
            else:
                return _document(answer)
        raise AssertionError("every try returns or raises")

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            content = canonical_json(body).encode()
        except (TypeError, ValueError) as error:
            raise ReportInvalid(f"what was given: {error}", allowed="plain JSON values, no NaN") from error
        # sent once: of an act whose answer was lost, only its caller can say whether to do it again
        try:
            return _document(self._http.post(path, content=content, headers={"Content-Type": "application/json"}))
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    def _pages(self, path: str, **params: Any) -> Iterator[Any]:
        cursor = None
        while True:
            page = self._get(path, limit=PAGE, cursor=cursor, **params)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def _numbered(self, path: str, after: int, limit: int | None, **params: Any) -> Iterator[Any]:
        left = limit
        while left is None or left > 0:
            page = self._get(path, after=after, limit=PAGE if left is None else min(PAGE, left), **params)
            yield from page["items"]
            if page["next"] is None:
                return
            after, left = page["next"], None if left is None else left - len(page["items"])

    def _unavailable(self, error: httpx.TransportError) -> ServerUnavailable:
        return ServerUnavailable(
            f"the registry at {self._http.base_url} can't be reached: {type(error).__name__}: {error}",
            next_step="look whether `tunewright registry serve` runs there, and at the URL",
        )


def _quoted(part: str) -> str:
    # an empty one would ask for another resource, and so would dots
    return quote(part, safe="").replace(".", "%2E") if part in ("", ".", "..") else quote(part, safe="")


def _document(answer: httpx.Response) -> Any:
    raise_for(answer)
    try:
        return answer.json()
    except ValueError as error:
        raise ServerUnavailable(
            f"the server at {answer.request.url} answered what is no JSON", next_step="look whether it is a registry's"
        ) from error


def _shifted(progress: Progress | None, before: int, total: int) -> Callable[[int], object]:
    return lambda done: None if progress is None else progress(before + done, total)
