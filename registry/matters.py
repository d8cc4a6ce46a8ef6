"""What exactly is approved: an act on an alias, of one version, in one state of affairs. Reads only.

An approval is given to a matter: this alias takes this version, with this newest report, judged by this policy, for the
first time or once more. Whatever of that changes makes another matter, which nobody has approved yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.canonical import canonical_json, sha256_text
from registry.entities import Evaluation, Version
from registry.errors import ApprovalRefused, PolicyInvalid
from registry.gate import Policy, effective_policy
from registry.lookup import Query, query_alias
from registry.protection import Protection, query_protection
from registry.reports import newest_evaluation

__all__ = ["ACTS", "Matter", "demotion_matter", "promotion_matter", "unprotection_matter"]

# What is approved: that the alias points at the version (promoted or rolled back), that it is taken away from the
# version, or that its protection is weakened.
ACTS = ("promote", "demote", "unprotect")


@dataclass(frozen=True)
class Matter:
    """What exactly is approved.

    Attributes:
        act: One of `ACTS`.
        version: The version; None for an unprotection.
        evaluation: Its newest report, if it has one.
        policy: Digest of the policy that a promotion is judged by; None for other acts.
        revision: The alias's revision at which it last came to the version or left it, 0 if it never did: what was
            approved before that has been used. For an unprotection, the id of the protection's row.
        required: How many people an unprotection leaves to approve, 0 where it lifts the protection; None for others.
        self_approval: Whether it lets whoever registered a version count; None for others.
    """

    act: str
    name: str
    alias: str
    version: Version | None
    evaluation: Evaluation | None
    policy: str | None
    revision: int
    required: int | None = None
    self_approval: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the matter as plain JSON."""
        return {
            "act": self.act,
            "name": self.name,
            "alias": self.alias,
            "digest": None if self.version is None else self.version.digest,
            "evaluation": None if self.evaluation is None else self.evaluation.digest,
            "evaluation_id": None if self.evaluation is None else self.evaluation.id,
            "policy": self.policy,
            "revision": self.revision,
            "required": self.required,
            "self_approval": self.self_approval,
        }

    @property
    def text(self) -> str:
        """The matter's canonical JSON."""
        return canonical_json(self.to_dict())

    @property
    def digest(self) -> str:
        """Hex sha256 of the text: two approvals with the same one are of the same matter."""
        return sha256_text(self.text)


def promotion_matter(
    query: Query, version: Version, alias: str, policy: Policy | None, evaluation: Evaluation | None
) -> Matter:
    """Return what is approved for an alias to point at a version, by a promotion or by a roll-back.

    Args:
        query: Reads the present state.
        version: The version.
        alias: The alias.
        policy: What a promotion is judged by; None takes the one in the report, or the defaults. One there that can't
            be used is approved as it stands, for a roll-back: no promotion is judged by it.
        evaluation: The version's newest report.
    """
    asked = sha256_text(canonical_json(_recorded(evaluation) if policy is None else policy.to_dict()))
    return Matter("promote", version.name, alias, version, evaluation, asked, _last_revision(query, version, alias))


def demotion_matter(query: Query, version: Version, alias: str) -> Matter:
    """Return what is approved for an alias to be taken away from the version that holds it.

    Raises:
        ApprovalRefused: The alias doesn't point at the version.
    """
    state = query_alias(query, version.name, alias)
    if state is None or state.digest != version.digest:
        holds = "nothing" if state is None else f"v{state.version}"
        raise ApprovalRefused(
            f"{version.name}@{alias} points at {holds}, and can't be taken away from {version.label}",
            allowed="the version that holds the alias",
            next_step=f"tunewright registry ls {version.name} shows which that is",
        )
    evaluation = newest_evaluation(query, version.digest)
    return Matter("demote", version.name, alias, version, evaluation, None, _last_revision(query, version, alias))


def unprotection_matter(
    query: Query, name: str, alias: str, required: int, self_approval: bool
) -> tuple[Matter, Protection]:
    """Return what is approved for an alias's protection to be weakened to that or lifted, and the present protection.

    Raises:
        ApprovalRefused: It has none, or that would be no weaker one.
    """
    present = query_protection(query, name, alias)
    if present is None:
        raise ApprovalRefused(
            f"{name}@{alias} is not protected",
            allowed="an alias that is",
            next_step=f"tunewright registry protect {name} --alias {alias} --required 2 --reason ...",
        )
    own = self_approval and required > 0  # nothing that is lifted has
    if not present.is_weakened_by(required, own):
        raise ApprovalRefused(
            f"{name}@{alias} asks for {present.required} approvals, and {required} would be no weaker protection",
            allowed=f"0 to {present.required - 1}, or as many with one's own approval where that doesn't count now",
            next_step=f"tunewright registry protect {name} --alias {alias} --required {required} needs no approvals",
        )
    return Matter("unprotect", name, alias, None, None, None, present.id, required, own), present


def _recorded(evaluation: Evaluation | None) -> dict[str, Any]:
    """Return the policy in a report, or the defaults; one that can't be used under a key that no policy has."""
    report = None if evaluation is None else evaluation.report
    try:
        return effective_policy(None, report).to_dict()
    except PolicyInvalid:
        assert report is not None
        return {"unusable": report["policy"]}


def _last_revision(query: Query, version: Version, alias: str) -> int:
    """Return the revision at which the alias last came to the version or left it; 0 if it never held it."""
    rows = query(
        "SELECT coalesce(max(coalesce(l.revision, e.revision)), 0) FROM alias_events e LEFT JOIN alias_events l "
        "ON l.name = e.name AND l.alias = e.alias AND l.revision = e.revision + 1 "
        "WHERE e.name = ? AND e.alias = ? AND e.version_id = ?",
        (version.name, alias, version.id),
    )
    return int(rows[0][0])
