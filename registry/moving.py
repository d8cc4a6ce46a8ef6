"""The part of the registry's door that moves aliases: promote, roll back, demote."""

from __future__ import annotations

from dataclasses import replace

from registry import audit, lifecycle, promotion
from registry.approvals import consent_to_demotion, consent_to_rollback
from registry.approving import missing, refuse
from registry.database import writing
from registry.entities import AliasChange, Version
from registry.errors import ApprovalsMissing, BlobCorrupted, GateRefused, RollbackRefused
from registry.gate import Policy
from registry.lookup import (
    Query,
    Statement,
    by_digest,
    by_number,
    resolve_digest,
    resolve_reference,
)
from registry.names import (
    DIGEST_PREFIX_LENGTH,
    check_actor,
    check_alias,
    check_name,
    check_text,
    parse_reference,
)
from registry.opened import Opened

__all__ = ["Moving"]


class Moving(Opened):
    """What `registry.store.Registry` has for where aliases point."""

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
            dry_run: Only say what would happen: the change, with the verdict in `gate`, where that fails with `changed`
                False. Nothing is written or raised for a failed gate.

        Returns:
            The change; `changed` is False if the alias points at this version already.

        Raises:
            GateRefused: The policy isn't satisfied; lists every reason. The refusal is audited.
            ApprovalsMissing: Nothing but approvals is missing, which the alias or the policy asks for.
            VersionDeprecated, VersionRetired: No alias takes the version.
            PolicyInvalid: The policy in the evaluation can't be used.
            AliasConflict: The alias moved; names the current revision.
            BlobCorrupted: A file of the version is gone.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        check_alias(alias)
        check_actor(actor)
        check_text("reason", reason)
        looked_at = numbered = None
        reference = parse_reference(ref)
        expected: list[Statement] = []
        if self._is_at_hand:
            pass  # nothing is gained by asking for it together
        elif not self._has_far_bytes and reference.name is not None and reference.number is not None:
            numbered = by_number(reference.name, reference.number)
            expected = promotion.expected_reads(ref, reference.name, numbered, alias)
        else:
            found = self._lookup.resolve(ref)
            looked_at = self._look_at_bytes(found)
            expected = promotion.expected_reads(ref, found.name, by_digest(found.digest), alias)
        with writing(self._engine, expected) as writer:
            query = writer.query
            version = resolve_reference(query, ref)
            if numbered is not None:
                promotion.take_reads(writer, numbered, version)
            change, ruling = promotion.plan_promotion(query, version, alias, policy, expected_revision)
            self._require_bytes(version, looked_at)
            verdict = ruling.verdict
            if dry_run:
                would = change.changed and verdict.passed
                return replace(change, changed=would, actor=actor, reason=reason, at=audit.now(), dry_run=True)
            if verdict.passed:
                if not change.changed:
                    return replace(change, actor=actor, reason=reason, at=audit.now())
                return promotion.write_change(writer, change, version, actor=actor, reason=reason, ruling=ruling)
            payload = {
                "alias": alias,
                "digest": version.digest,
                "previous_digest": change.previous_digest,
                "reasons": list(verdict.reasons),
                "evaluation": None if ruling.evaluation is None else ruling.evaluation.digest,
                "gate": ruling.to_dict(),
            }
            audit.append(writer, at=audit.now(), actor=actor, action="refuse", subject=version.label, payload=payload)
        problem = f"{version.label} may not become {version.name}@{alias}"
        consent = ruling.consent
        if consent is not None and consent.missing and len(verdict.reasons) == 1:
            recorded = None if ruling.evaluation is None else ruling.evaluation.report.get("policy")
            own = policy is not None and policy.to_dict() != recorded
            raise ApprovalsMissing(
                problem,
                reasons=verdict.reasons,
                gate=verdict,
                allowed=consent.allowed + (", under this very policy" if own else ""),
                next_step=consent.asked(own_policy=own),
            )
        raise GateRefused(
            problem,
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
        dry_run: bool = False,
    ) -> AliasChange:
        """Move an alias back to a version that it held before, without evaluating again.

        Args:
            name: The model.
            alias: The alias.
            to: The target: a number, `vN`, or a REF. By default what the alias held before the present version.
            actor: Who rolls back.
            reason: Why; required, for the audit trail.
            expected_revision: As in `promote`.
            dry_run: Only say what would happen: the change, with the approvals that it has and lacks in `approvals`,
                where some are missing with `changed` False. Nothing is written or raised for missing ones.

        Raises:
            RollbackRefused: No reason, or a target that never held the alias or holds it now.
            ApprovalsMissing: The alias is protected, and asks for more approvals.
            AliasNotFound, AliasConflict, VersionNotFound: As `promote`.
        """
        check_name(name)
        check_alias(alias)
        if not reason or not reason.strip():
            raise RollbackRefused("a roll-back without a reason", allowed="a text that says why", next_step="--reason")
        check_actor(actor)
        check_text("reason", reason)

        def plan(query: Query) -> tuple[AliasChange, Version]:
            resolve_reference(query, name)  # an unknown model is told before its missing alias
            target = None if to is None else _target_number(query, name, to)
            change = promotion.plan_rollback(query, name, alias, target, expected_revision)
            return change, resolve_digest(query, str(change.digest))

        looked_at = None
        if not self._is_at_hand:
            with self._lookup.snapshot():
                _, version = plan(self._lookup.query)
            looked_at = self._look_at_bytes(version)
        with writing(self._engine) as writer:
            query = writer.query
            change, version = plan(query)
            self._require_bytes(version, looked_at)
            consent = consent_to_rollback(query, version, alias)
            change = replace(change, approvals=consent)
            if dry_run:
                return _tried(change, actor, reason)
            if consent is None or not consent.missing:
                return promotion.write_change(writer, change, version, actor=actor, reason=reason, ruling=None)
            refuse(writer, consent, actor)
        raise missing(f"{name}@{alias} may not go back to {version.label}", consent)

    def demote(
        self,
        name: str,
        alias: str,
        *,
        actor: str,
        reason: str,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Take an alias away: look-ups don't find it from now on, its history stays.

        A later promotion goes on with the next revision. A roll-back after that one doesn't go back behind the
        demotion by itself, only to a version that is named.

        Args:
            name: The model.
            alias: The alias.
            actor: Who does it.
            reason: Why; required.
            expected_revision: As in `promote`.
            dry_run: As in `rollback`.

        Raises:
            ReasonMissing: No reason.
            ApprovalsMissing: The alias is protected, and asks for more approvals.
            AliasNotFound, AliasConflict, VersionNotFound: As `promote`.
        """
        check_name(name)
        check_alias(alias)
        lifecycle.check_reason(f"to demote {name}@{alias}", reason)
        check_actor(actor)
        check_text("reason", reason)
        with writing(self._engine) as writer:
            query = writer.query
            resolve_reference(query, name)  # an unknown model is told before its missing alias
            change = promotion.plan_demotion(query, name, alias, expected_revision)
            version = resolve_digest(query, str(change.previous_digest))
            consent = consent_to_demotion(query, version, alias)
            change = replace(change, approvals=consent)
            if dry_run:
                return _tried(change, actor, reason)
            if consent is None or not consent.missing:
                return promotion.write_change(writer, change, None, actor=actor, reason=reason, ruling=None)
            refuse(writer, consent, actor)
        raise missing(f"{name}@{alias} may not be taken away from {version.label}", consent)

    @property
    def _is_at_hand(self) -> bool:
        """Whether rows and bytes are on this machine's disk: what is needed of them is looked at under the lock."""
        return not (self._has_far_bytes or self._is_writer_far)

    @property
    def _has_far_bytes(self) -> bool:
        return not self.blobs.is_local

    def _look_at_bytes(self, version: Version) -> tuple[str, BlobCorrupted | None]:
        """Look for the bytes of what an alias will probably point at; in S3 that takes a request a file.

        Before the write lock is taken: a collection takes nothing of a version that isn't retired, and whether it is
        retired is looked at under the lock. What came of it is told there, after what is wrong with the act itself.
        """
        return version.digest, self._absence(version)

    def _require_bytes(self, version: Version, looked_at: tuple[str, BlobCorrupted | None] | None) -> None:
        digest, absence = looked_at or (None, None)
        if absence is not None or version.digest != digest:  # put back meanwhile, or the REF is another version now
            absence = self._absence(version)
        if absence is not None:
            raise absence


def _tried(change: AliasChange, actor: str, reason: str) -> AliasChange:
    """Return what a roll-back or a demotion would do; it moves nothing where approvals are missing."""
    asked = change.approvals
    would = asked is None or not asked.missing
    return replace(change, changed=would, actor=actor, reason=reason, at=audit.now(), dry_run=True)


def _target_number(query: Query, name: str, to: str | int) -> int:
    ref = str(to)
    number = ref.removeprefix("v")
    # a digest's prefix may be all digits
    if number.isdecimal() and (ref != number or len(number) < DIGEST_PREFIX_LENGTH):
        ref = f"{name}:v{number}"
    version = resolve_reference(query, ref)
    if version.name != name:
        raise RollbackRefused(f"{version.label} is not a version of {name!r}", allowed=f"{name}:vN")
    return version.version
