"""The part of the registry's door that looks up: versions, aliases, reports, lineage, audit and outbox."""

from __future__ import annotations

import json
from collections.abc import Sequence

from registry import audit
from registry.entities import (
    AliasChange,
    AliasState,
    AuditEntry,
    Evaluation,
    OutboxEvent,
    Version,
    left_by_last_step,
)
from registry.gate import GateResult, Policy
from registry.lineage import Lineage, trace, trained_on
from registry.lookup import query_alias, query_revision
from registry.names import check_alias, check_bound, check_name
from registry.opened import Opened
from registry.promotion import judge
from registry.reports import evaluations_before, evaluations_of
from registry.runs import Run, query_runs
from registry.search import Model, query_models, search_versions
from registry.standing import Standing, standing_of
from registry.status import Status, query_status, query_statuses, query_statuses_of, require_usable

__all__ = ["Reading"]


class Reading(Opened):
    """What `registry.store.Registry` has for looking up; nothing is written."""

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names: `name` (its newest), `name:vN`, `name@alias` or a digest prefix.

        Raises:
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: Says what exists.
        """
        return self._lookup.resolve(ref)

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every version, or those of one model, by name and number.

        Raises:
            ReferenceInvalid: No name of a model.
        """
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
        """Return the models by name, those behind the name `after`, at most `limit` of them.

        Raises:
            ReferenceInvalid: A bound that bounds nothing.
        """
        check_bound("limit", limit)
        return query_models(self._lookup.query, after=after, limit=limit)

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now, of one model or of all.

        Raises:
            ReferenceInvalid: No name of a model.
        """
        return self._lookup.aliases(name)

    def alias_revision(self, name: str, alias: str) -> int:
        """Return what `expected_revision` has to be now: 0 for an alias that never was; one taken away has one, too.

        Raises:
            ReferenceInvalid: As `history`.
        """
        return query_revision(self._lookup.query, check_name(name), check_alias(alias))

    def history(self, name: str, alias: str) -> list[AliasChange]:
        """Return an alias's steps, oldest first.

        Raises:
            ReferenceInvalid: No name of a model, or no alias.
        """
        check_name(name)
        check_alias(alias)
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
        """Say whether the alias's newest step is a roll-back or a demotion of the version with this whole digest.

        Raises:
            ReferenceInvalid: As `history`.
        """
        return left_by_last_step(self.history(name, alias), digest)

    def status(self, ref: str) -> Status:
        """Return a version's state, with who made it so and why; errors as `resolve`."""
        return query_status(self._lookup.query, self._lookup.resolve(ref))

    def require_usable(self, version: Version, act: str) -> Status:
        """Return a version's status, if it may be used; `act` says what for: `exported`.

        Raises:
            VersionRetired: It is retired.
        """
        return require_usable(self._lookup.query, version, act)

    def statuses(self, name: str | None = None) -> dict[str, Status]:
        """Return the status of every version of one model, or of all, by its digest.

        Raises:
            ReferenceInvalid: No name of a model.
        """
        versions = self.search(name=name)
        found = query_statuses(self._lookup.query, name)
        return {version.digest: found.get(version.id, Status()) for version in versions}

    def statuses_of(self, versions: Sequence[Version]) -> dict[str, Status]:
        """Return the status of each of these versions, by its digest."""
        found = query_statuses_of(self._lookup.query, [version.id for version in versions])
        return {version.digest: found.get(version.id, Status()) for version in versions}

    def evaluations(self, ref: str) -> list[Evaluation]:
        """Return the reports recorded for a version, newest first."""
        return evaluations_of(self._lookup.query, self.resolve(ref).digest)

    def evaluations_before(self, ref: str, before: int, limit: int) -> list[Evaluation]:
        """Return a page of `evaluations`: those whose id is below `before`, newest first, at most `limit`.

        Raises:
            ReferenceInvalid: A bound that bounds nothing; or as `resolve`.
        """
        check_bound("before", before)
        check_bound("limit", limit)
        return evaluations_before(self._lookup.query, self.resolve(ref), before, limit)

    def check_gate(
        self, ref: str, policy: Policy | None = None, alias: str | None = None, *, approvals: bool = True
    ) -> GateResult:
        """Return the verdict that a promotion would come to now; nothing is written.

        Args:
            ref: The version.
            policy: As in `promote`.
            alias: Hold the version against what this alias holds, and ask for the approvals that it needs there; None
                compares with nothing and asks for none.
            approvals: False asks for none there, either: what is measured alone.

        Raises:
            PolicyInvalid: The policy in the evaluation can't be used.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        version = self.resolve(ref)
        query = self._lookup.query
        state = None if alias is None else query_alias(query, version.name, check_alias(alias))
        return judge(query, version, state, policy, alias if approvals else None).verdict

    def standing(self, ref: str) -> Standing:
        """Say whether a version is proven: by an alias that points at it, or by its newest report.

        Raises:
            PolicyInvalid: The policy in the evaluation can't be used.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        return standing_of(self._lookup.query, self.resolve(ref))

    def runs(self, name: str | None = None, *, after: int = 0, limit: int | None = None) -> list[Run]:
        """Return the recorded runs of a model, or of all, above an id, oldest first, at most `limit`.

        Raises:
            ReferenceInvalid: No name of a model, or bounds that bound nothing.
        """
        check_bound("after", after)
        check_bound("limit", limit)
        if name is None:
            return query_runs(self._lookup.query, "id > ?", (after,), limit=limit)
        return query_runs(self._lookup.query, "id > ? AND name = ?", (after, check_name(name)), limit=limit)

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
        check_bound("after", after)
        check_bound("limit", limit)
        return list(audit.read_chain(self._lookup.query, after=after, limit=limit))

    def outbox(self, *, after: int = 0, limit: int | None = None) -> list[OutboxEvent]:
        """Return the outbox rows above an id, oldest first, at most `limit`; the reader keeps its own place."""
        check_bound("after", after)
        check_bound("limit", limit)
        sql, values = "SELECT id, created_at, topic, payload FROM outbox WHERE id > ? ORDER BY id", [after]
        rows = self._lookup.query(*((sql, values) if limit is None else (f"{sql} LIMIT ?", [*values, limit])))
        return [OutboxEvent(number, at, topic, json.loads(payload)) for number, at, topic, payload in rows]

    def outbox_head(self) -> int:
        """Return the id of the newest outbox row, 0 where there is none."""
        return int(self._lookup.query("SELECT coalesce(max(id), 0) FROM outbox", ())[0][0])
