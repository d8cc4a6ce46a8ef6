"""Who has approved that an alias moves, and whose approval counts for exactly this move (`matters.py`). Reads only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from registry.entities import Evaluation, Version
from registry.errors import PolicyInvalid
from registry.gate import Check, Policy
from registry.lookup import Query
from registry.matters import Matter, demotion_matter, promotion_matter
from registry.names import person
from registry.protection import has_approvals, query_protection
from registry.reports import evaluations_of, newest_evaluation

__all__ = [
    "USED",
    "WITHDRAWN",
    "Approval",
    "Approvals",
    "asked_for_promotion",
    "consent_to_demotion",
    "consent_to_promotion",
    "consent_to_rollback",
    "query_registrant",
    "weigh",
]

WITHDRAWN, USED = "withdrawn", "used: what was approved has been done since"


@dataclass(frozen=True)
class Approval:
    """One person's approval, and whether it counts for the matter at hand."""

    actor: str
    at: str
    reason: str | None
    matter: str  # digest
    counts: bool
    why_not: str | None

    @property
    def stands(self) -> bool:
        """Whether it was neither withdrawn nor used; it may yet be of another evaluation or policy."""
        return self.why_not not in (WITHDRAWN, USED)


@dataclass(frozen=True)
class Approvals:
    """What a matter needs, and what it has.

    Attributes:
        act: One of `ACTS`.
        version: The version as `name:vN`; None for an unprotection.
        required: How many people have to approve.
        self_approval: Whether whoever registered the version counts.
        registered_by: Who did.
        approvals: Everybody's newest word on this version and alias, oldest first, those that don't count included.
        to_required: How many people an unprotection leaves to approve, 0: it lifts the protection; None for others.
        to_self_approval: Whether it lets whoever registered a version count; None for others.
    """

    name: str
    alias: str
    act: str
    version: str | None
    digest: str | None
    evaluation: str | None
    policy: str | None
    required: int
    self_approval: bool
    registered_by: str | None
    approvals: tuple[Approval, ...]
    to_required: int | None = None
    to_self_approval: bool | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Whose approvals count; what an earlier release took for two names of one person is one."""
        return tuple(sorted({person(one.actor) for one in self.approvals if one.counts}))

    @property
    def missing(self) -> int:
        """How many are missing."""
        return max(0, self.required - len(self.given))

    @property
    def problem(self) -> str:
        """What is missing, in words."""
        by = f" ({', '.join(self.given)})" if self.given else ""
        return f"{len(self.given)} of {self.required} approvals{by} for {self._subject}: {self.missing} missing"

    @property
    def allowed(self) -> str:
        """Whose approvals would count, in words."""
        people = f"approvals of {self.required} people"
        return people if self._excluded is None else f"{people}, none of them {self._excluded}, who registered it"

    @property
    def next_step(self) -> str:
        """What the missing ones have to do, in words."""
        return self.asked()

    def asked(self, *, own_policy: bool = False) -> str:
        """Say what the missing ones have to do, under a policy of the caller's own or not."""
        act = "" if self.act == "promote" else f" --for {self.act}"
        act += f" --required {self.to_required}" if self.to_required else ""
        act += " --self-approval" if self.to_self_approval else ""
        act += " --policy FILE" if own_policy else ""
        words = f"{self.version or self.name} --alias {self.alias}{act}"
        people = "one more person" if self.missing == 1 else f"{self.missing} more people"
        return (
            f"let {people} run `tunewright registry approve {words}`; `tunewright registry approvals` shows whose count"
        )

    @property
    def _subject(self) -> str:
        target = f"{self.name}@{self.alias}"
        if self.version is None:
            return f"a weaker protection of {target}, {self._weaker}"
        return f"{self.version} as {target}" if self.act == "promote" else f"{target} without {self.version}"

    @property
    def _weaker(self) -> str:
        own = ", of whoever registered the version, too" if self.to_self_approval else ""
        return f"by {self.to_required} approvals{own}" if self.to_required else "by none"

    @property
    def _excluded(self) -> str | None:
        return None if self.self_approval else self.registered_by

    def check(self) -> Check:
        """Return it as one of the gate's checks."""
        return Check(
            "approvals", not self.missing, len(self.given), self.required, self.problem if self.missing else None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            **asdict(self),
            "approvals": [asdict(one) for one in self.approvals],
            "given": list(self.given),
            "missing": self.missing,
        }


def weigh(query: Query, matter: Matter, required: int, *, self_approval: bool) -> Approvals:
    """Say what a matter needs and what it has.

    Args:
        query: Reads the present state: inside an act, that of its transaction.
        matter: What is to be done.
        required: How many people have to approve.
        self_approval: Whether whoever registered the version counts.
    """
    registered_by = None if matter.version is None else query_registrant(query, matter.version)
    excluded = None if self_approval else registered_by
    entries = tuple(_weighed(row, matter, excluded) for row in _newest_words(query, matter))
    now = matter.to_dict()
    return Approvals(
        matter.name, matter.alias, matter.act, None if matter.version is None else matter.version.label, now["digest"],
        now["evaluation"], matter.policy, required, self_approval, registered_by, entries,
        matter.required, matter.self_approval,
    )  # fmt: skip


def consent_to_promotion(
    query: Query, version: Version, alias: str, policy: Policy, evaluation: Evaluation | None
) -> Approvals:
    """Weigh a promotion: what the alias asks for, the policy, or one in the version's reports, whichever is most.

    A caller's own policy takes nothing away from what the version was recorded with.

    Raises:
        PolicyInvalid: As `asked_for_promotion`.
    """
    required, self_approval = asked_for_promotion(query, version, alias, policy, evaluations_of(query, version.digest))
    matter = promotion_matter(query, version, alias, policy, evaluation)
    return weigh(query, matter, required, self_approval=self_approval)


def asked_for_promotion(
    query: Query, version: Version, alias: str, policy: Policy, reports: Sequence[Evaluation]
) -> tuple[int, bool]:
    """Return how many approvals a promotion needs, and whether that of whoever registered the version counts.

    Args:
        query: Reads the present state: inside a promotion, that of its transaction.
        version: The challenger.
        alias: Where it would come to.
        policy: What it is held to.
        reports: All of the version's: a newer one takes nothing away from what an older one was recorded with.

    Raises:
        PolicyInvalid: What a report asks for is no number.
    """
    protection = query_protection(query, version.name, alias)
    recorded = (_asked_for(one, version) for one in reports)
    required = max(0 if protection is None else protection.required, policy.required_approvals, *recorded, 0)
    return required, protection is not None and protection.self_approval


def consent_to_rollback(query: Query, version: Version, alias: str) -> Approvals | None:
    """Weigh a roll-back, which is judged by no policy: a protected alias alone asks for approvals."""
    protection = query_protection(query, version.name, alias)
    if protection is None:
        return None
    matter = promotion_matter(query, version, alias, None, newest_evaluation(query, version.digest))
    return weigh(query, matter, protection.required, self_approval=protection.self_approval)


def consent_to_demotion(query: Query, version: Version, alias: str) -> Approvals | None:
    """Weigh a demotion; None where the alias isn't protected."""
    protection = query_protection(query, version.name, alias)
    if protection is None:
        return None
    matter = demotion_matter(query, version, alias)
    return weigh(query, matter, protection.required, self_approval=protection.self_approval)


def query_registrant(query: Query, version: Version) -> str | None:
    """Return who registered a version, as the audit has it."""
    rows = query("SELECT actor FROM audit WHERE action = 'register' AND subject = ?", (version.label,))
    return str(rows[0][0]) if rows else None


def _asked_for(evaluation: Evaluation, version: Version) -> int:
    """Return how many approvals a report's policy asks for."""
    policy = evaluation.report.get("policy")
    if policy is None:
        return 0
    asked = policy.get("required_approvals", 0) if isinstance(policy, dict) else policy
    if isinstance(policy, dict) and type(asked) is int and asked >= 0:
        return asked
    raise PolicyInvalid(
        f"a report of {version.label} asks for {asked!r} approvals (evaluation {evaluation.digest[:12]})",
        allowed="a policy whose required_approvals is a whole number, 0 or more",
        next_step="a report stays recorded: register other bytes, or let the alias take another version",
    )


def _newest_words(query: Query, matter: Matter) -> list[Sequence[Any]]:
    """Return everybody's newest row on each matter of this act, alias and version, oldest first."""
    if not has_approvals(query):
        return []
    about = "version_id IS NULL" if matter.version is None else "version_id = ?"
    values: list[Any] = [matter.name, matter.alias, matter.act]
    rows = query(
        "SELECT id, digest, action, actor, reason, created_at, matter FROM approvals "
        f"WHERE name = ? AND alias = ? AND act = ? AND {about} ORDER BY id",
        values if matter.version is None else [*values, matter.version.id],
    )
    newest: dict[tuple[str, str], Sequence[Any]] = {(row[1], person(row[3])): row for row in rows}
    return sorted(newest.values(), key=lambda row: int(row[0]))


def _weighed(row: Sequence[Any], matter: Matter, excluded: str | None) -> Approval:
    _, digest, action, actor, reason, at, text = row
    why = None
    if action == "withdraw":
        why = WITHDRAWN
    elif digest != matter.digest:
        why = _difference(json.loads(text), matter.to_dict())
    elif excluded is not None and person(actor) == person(excluded):
        why = "by whoever registered the version"
    return Approval(actor, at, reason, digest, why is None, why)


def _difference(given: dict[str, Any], now: dict[str, Any]) -> str:
    if given["revision"] != now["revision"]:
        return USED
    if given["evaluation_id"] != now["evaluation_id"]:
        return "given for an evaluation that is not the newest"
    return "given for another policy" if now["required"] is None else "given for another protection"
