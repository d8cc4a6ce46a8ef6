"""The part of the registry's door for moves that several people answer for: protect an alias, approve, withdraw."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from registry import audit, lifecycle
from registry.approvals import Approvals, consent_to_promotion, query_registrant, weigh
from registry.database import writing
from registry.errors import ApprovalNotFound, ApprovalRefused, ApprovalsMissing, PolicyInvalid, ReferenceInvalid
from registry.gate import MOST_APPROVALS, Policy, effective_policy
from registry.lookup import Query, query_alias, resolve_reference
from registry.matters import ACTS, Matter, demotion_matter, promotion_matter, unprotection_matter
from registry.names import check_actor, check_alias, check_name, check_text, person
from registry.opened import Opened
from registry.promotion import emit
from registry.protection import Protection, query_protection, query_protections
from registry.reports import newest_evaluation
from registry.schema import approvals, protections
from registry.status import require_usable

if TYPE_CHECKING:
    from registry.writer import Writer

__all__ = ["Approving", "missing", "refuse"]


def refuse(writer: Writer, consent: Approvals, actor: str) -> None:
    """Write into the audit that an act was refused for want of approvals."""
    subject = consent.version or f"{consent.name}@{consent.alias}"
    payload = {"alias": consent.alias, "act": consent.act, "digest": consent.digest, "reasons": [consent.problem],
               "approvals": [asdict(one) for one in consent.approvals]}  # fmt: skip
    audit.append(writer, at=audit.now(), actor=actor, action="refuse", subject=subject, payload=payload)


def missing(problem: str, consent: Approvals) -> ApprovalsMissing:
    """Return the error that says which approvals are missing."""
    return ApprovalsMissing(problem, reasons=(consent.problem,), allowed=consent.allowed, next_step=consent.next_step)


class Approving(Opened):
    """What `registry.store.Registry` has for protected aliases and for approvals."""

    def protect(
        self, name: str, alias: str, *, required: int = 2, self_approval: bool = False, actor: str, reason: str
    ) -> Protection:
        """Let an alias move only with the approvals of several people: promotions, roll-backs and demotions.

        Asking for more takes a reason alone. Asking for fewer, or letting whoever registered a version count, takes
        as many approvals of that (`approve` for "unprotect") as the present protection asks for.

        Args:
            name: The model.
            alias: The alias; it needn't be there yet.
            required: How many people have to approve.
            self_approval: Whether the approval of whoever registered the version counts.
            actor: Who protects it.
            reason: Why; required.

        Returns:
            The protection; the present one where nothing is to be changed.

        Raises:
            PolicyInvalid: No usable number.
            ReasonMissing: No reason.
            ApprovalsMissing: It would weaken the present protection.
            ReferenceInvalid, VersionNotFound: No such model.
        """
        if type(required) is not int or not 1 <= required <= MOST_APPROVALS:
            raise PolicyInvalid(
                f"{required!r} required approvals",
                allowed=f"a whole number, 1 to {MOST_APPROVALS}",
                next_step=f"tunewright registry unprotect {name} --alias {alias} lifts a protection",
            )
        return self._protect(name, alias, required, self_approval, actor, reason)

    def unprotect(self, name: str, alias: str, *, actor: str, reason: str) -> Protection:
        """Lift an alias's protection, with as many approvals of that as it asks for.

        Args:
            name: The model.
            alias: The alias.
            actor: Who lifts it.
            reason: Why; required.

        Raises:
            ApprovalRefused: It isn't protected.
            ApprovalsMissing: Approvals are missing.
            ReasonMissing, ReferenceInvalid, VersionNotFound: As `protect`.
        """
        return self._protect(name, alias, 0, False, actor, reason)

    def _protect(
        self, name: str, alias: str, required: int, self_approval: bool, actor: str, reason: str
    ) -> Protection:
        check_name(name)
        check_alias(alias)
        lifecycle.check_reason(f"to {'protect' if required else 'unprotect'} {name}@{alias}", reason)
        check_actor(actor)
        check_text("reason", reason)
        with writing(self._engine) as writer:
            query = writer.query
            resolve_reference(query, name)  # a misspelt model would be one that nothing protects
            present = query_protection(query, name, alias)
            if present is not None and (present.required, present.self_approval) == (required, self_approval):
                return present
            consent = None
            if not required if present is None else present.is_weakened_by(required, self_approval):
                matter, held = unprotection_matter(query, name, alias, required, self_approval)
                consent = weigh(query, matter, held.required, self_approval=True)
            if consent is None or not consent.missing:
                return _write_protection(writer, name, alias, required, self_approval, actor, reason, consent)
            refuse(writer, consent, actor)
        raise missing(f"the protection of {name}@{alias} may not be weakened", consent)

    def approve(
        self,
        ref: str,
        alias: str,
        *,
        act: str = "promote",
        policy: Policy | None = None,
        required: int = 0,
        self_approval: bool = False,
        actor: str,
        reason: str | None = None,
    ) -> Approvals:
        """Approve that an alias moves: to exactly this version, with its newest report, judged by this policy, once.

        Args:
            ref: The version. For "unprotect" its model alone counts.
            alias: The alias; it needn't be protected yet.
            act: "promote" (a roll-back, too), "demote", or "unprotect": that the protection is weakened or lifted.
            policy: What the promotion will be judged by; None as in `promote`.
            required: For "unprotect" alone: how many approvals the protection is weakened to; 0: it is lifted.
            self_approval: For "unprotect" alone: as in `protect`.
            actor: Who approves.
            reason: Why.

        Returns:
            What is needed and what is there, this approval included. One that stands already is not written twice.

        Raises:
            ApprovalRefused: Whoever registered the version approves it, where that doesn't count; the alias points at
                it already; or there is nothing of that kind to approve.
            PolicyInvalid: No usable `required`.
            VersionRetired: It is retired.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `promote`. A policy in the report
                that can't be used is no error here: a roll-back asks for approvals all the same.
        """
        self._check_words(alias, act, actor, reason)
        target = _target(act, required, self_approval)
        with writing(self._engine) as writer:
            query = writer.query
            matter, consent = _about(query, ref, alias, act, policy, target)
            if matter.version is not None:
                require_usable(query, matter.version, "approved")
                _check_not_held(query, matter)
                _check_not_own(query, matter, consent, actor)
            said = {(one.actor, one.matter) for one in consent.approvals if one.stands}
            if (actor, matter.digest) not in said:
                _write_word(writer, matter, "approve", actor, reason)
            return weigh(query, matter, consent.required, self_approval=consent.self_approval)

    def withdraw(
        self, ref: str, alias: str, *, act: str = "promote", actor: str, reason: str | None = None
    ) -> Approvals:
        """Take one's approval back, under whatever policy and for whichever report or weaker protection it was given.

        Args:
            ref: The version.
            alias: The alias.
            act: As in `approve`.
            actor: Whose approval.
            reason: Why.

        Raises:
            ApprovalNotFound: None of this person stands.
            As `approve` otherwise.
        """
        self._check_words(alias, act, actor, reason)
        with writing(self._engine) as writer:
            query = writer.query
            matter, consent = _about(query, ref, alias, act, None, (0, False))
            standing = [one for one in consent.approvals if person(one.actor) == actor and one.stands]
            if not standing:
                others = sorted({one.actor for one in consent.approvals if one.stands})
                raise ApprovalNotFound(
                    f"{actor!r} has approved nothing of this kind for {matter.name}@{alias}",
                    allowed=", ".join(others) or "nobody has",
                    next_step="look at `tunewright registry approvals` with the same words",
                )
            for one in standing:
                given = (one.matter, one.actor)  # an earlier release may have written the name in another way
                rows = query("SELECT id FROM approvals WHERE digest = ? AND actor = ? ORDER BY id", given)
                _write_word(writer, matter, "withdraw", one.actor, reason, like=int(rows[-1][0]))
            return weigh(query, matter, consent.required, self_approval=consent.self_approval)

    def approvals(
        self,
        ref: str,
        alias: str,
        *,
        act: str = "promote",
        policy: Policy | None = None,
        required: int = 0,
        self_approval: bool = False,
    ) -> Approvals:
        """Say what a move needs and who has approved it; arguments and errors as `approve`."""
        self._check_words(alias, act, "nobody", None)
        return _about(self._lookup.query, ref, alias, act, policy, _target(act, required, self_approval))[1]

    def protections(self, name: str | None = None) -> list[Protection]:
        """Return the protected aliases, of one model or of all, by model and alias.

        Raises:
            ReferenceInvalid: No name of a model.
        """
        return query_protections(self._lookup.query, None if name is None else check_name(name))

    @staticmethod
    def _check_words(alias: str, act: str, actor: str, reason: str | None) -> None:
        check_alias(alias)
        if act not in ACTS:
            raise ReferenceInvalid(f"{act!r} is nothing that is approved", allowed=", ".join(ACTS))
        check_actor(actor)
        check_text("reason", reason)


def _target(act: str, required: int, self_approval: bool) -> tuple[int, bool]:
    """Return what a protection would be weakened to."""
    if type(required) is not int or not 0 <= required <= MOST_APPROVALS:
        raise PolicyInvalid(f"{required!r} required approvals", allowed=f"a whole number, 0 to {MOST_APPROVALS}")
    if act != "unprotect" and (required or self_approval):
        raise PolicyInvalid(
            f"required approvals, or one's own, to {act}",
            allowed='only with "unprotect": what the protection is weakened to',
            next_step="leave them out; what an alias asks for, `protect` says",
        )
    return required, self_approval


def _about(
    query: Query, ref: str, alias: str, act: str, policy: Policy | None, target: tuple[int, bool]
) -> tuple[Matter, Approvals]:
    """Return what an approval would be of, and what there is of it."""
    version = resolve_reference(query, ref)
    if act == "unprotect":
        matter, held = unprotection_matter(query, version.name, alias, *target)
        return matter, weigh(query, matter, held.required, self_approval=True)
    if act == "demote":
        matter = demotion_matter(query, version, alias)
        required, own = _asked_by_alias(query, version.name, alias)
        return matter, weigh(query, matter, required, self_approval=own)
    evaluation = newest_evaluation(query, version.digest)
    matter = promotion_matter(query, version, alias, policy, evaluation)
    try:
        judged_by = effective_policy(policy, None if evaluation is None else evaluation.report)
        return matter, consent_to_promotion(query, version, alias, judged_by, evaluation)
    except PolicyInvalid:  # no promotion is possible; a roll-back is, which asks no report
        required, own = _asked_by_alias(query, version.name, alias)
        return matter, weigh(query, matter, required, self_approval=own)


def _asked_by_alias(query: Query, name: str, alias: str) -> tuple[int, bool]:
    protection = query_protection(query, name, alias)
    return (0, False) if protection is None else (protection.required, protection.self_approval)


def _check_not_held(query: Query, matter: Matter) -> None:
    """Refuse approvals of what is so already: they would be there when somebody has taken the alias away."""
    assert matter.version is not None
    state = query_alias(query, matter.name, matter.alias)
    if matter.act == "promote" and state is not None and state.digest == matter.version.digest:
        raise ApprovalRefused(
            f"{matter.name}@{matter.alias} points at {matter.version.label} already",
            allowed="a version that the alias doesn't point at",
            next_step="`approve --for demote` approves that it is taken away; its return, once it has been",
        )


def _check_not_own(query: Query, matter: Matter, consent: Approvals, actor: str) -> None:
    assert matter.version is not None
    registrant = query_registrant(query, matter.version)
    if consent.required and not consent.self_approval and registrant is not None and person(registrant) == actor:
        raise ApprovalRefused(
            f"{actor!r} registered {matter.version.label}, and one's own approval doesn't count",
            allowed=consent.allowed,
            next_step="let somebody else look at it",
        )


def _write_protection(
    writer: Writer,
    name: str,
    alias: str,
    required: int,
    self_approval: bool,
    actor: str,
    reason: str,
    consent: Approvals | None,
) -> Protection:
    at, action = audit.now(), "protect" if required else "unprotect"
    row = {"name": name, "alias": alias, "required": required, "self_approval": int(self_approval)}
    number = writer.insert_numbered(protections, {**row, "actor": actor, "reason": reason, "created_at": at})
    given = [] if consent is None else [asdict(one) for one in consent.approvals if one.counts]
    payload = {**row, "self_approval": self_approval, "reason": reason, "approvals": given}
    text = audit.append(writer, at=at, actor=actor, action=action, subject=f"{name}@{alias}", payload=payload)
    emit(writer, at, f"alias.{action}", text)
    return Protection(number, name, alias, required, self_approval, actor, reason, at)


def _write_word(
    writer: Writer, matter: Matter, action: str, actor: str, reason: str | None, like: int | None = None
) -> None:
    """Write an approval or its withdrawal; `like` is the row that is withdrawn, which may be of another matter."""
    at = audit.now()
    if like is None:
        row = {
            "name": matter.name,
            "alias": matter.alias,
            "act": matter.act,
            "version_id": None if matter.version is None else matter.version.id,
            "evaluation_id": None if matter.evaluation is None else matter.evaluation.id,
            "revision": matter.revision,
            "required": matter.required,
            "self_approval": None if matter.self_approval is None else int(matter.self_approval),
            "digest": matter.digest,
            "matter": matter.text,
        }
    else:
        columns = [c.name for c in approvals.c if c.name not in ("id", "action", "actor", "reason", "created_at")]
        found = writer.query(f"SELECT {', '.join(columns)} FROM approvals WHERE id = ?", (like,))
        row = dict(zip(columns, found[0], strict=True))
    writer.insert(approvals, {**row, "action": action, "actor": actor, "reason": reason, "created_at": at})
    payload = {
        "name": matter.name,
        "alias": matter.alias,
        "act": matter.act,
        "version": None if matter.version is None else matter.version.version,
        "digest": None if matter.version is None else matter.version.digest,
        "matter": row["digest"],
        "reason": reason,
    }
    subject = f"{matter.name}@{matter.alias}"
    text = audit.append(writer, at=at, actor=actor, action=action, subject=subject, payload=payload)
    emit(writer, at, f"alias.{action}", text)
