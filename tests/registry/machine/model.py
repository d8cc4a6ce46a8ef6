"""What the registry should say, worked out without a database: versions, reports, an alias, protection, approvals.

Used approvals are thrown away here; the registry never throws one away, and tells used ones by revisions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from registry.errors import (
    AliasConflict,
    ApprovalNotFound,
    ApprovalRefused,
    ApprovalsMissing,
    GateRefused,
    RegistryError,
    VersionDeprecated,
    VersionRetired,
)
from registry.gate import Policy

POLICY = Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)
# A policy's name and how many approvals it asks for: as much of it as approvals depend on.
Asked = tuple[str, int]
DEFAULTS: Asked = ("defaults", 0)
POLICIES: dict[Asked, Policy] = {
    DEFAULTS: Policy(),
    **{("given", number): replace(POLICY, required_approvals=number) for number in (0, 1)},
}
GIVEN: Asked = ("given", 0)
REGISTRANT = "ada"
PEOPLE = (REGISTRANT, "bob", "carol")
Refusal = type[RegistryError]


class Report(NamedTuple):
    """A version's evaluation: whether the gate takes it, its score in quarters, what its own policy asks for."""

    serial: int
    digest: str
    passes: bool
    tuned: int
    asks: int | None  # None: it names no policy


class Matter(NamedTuple):
    """What an approval is of."""

    act: str
    version: int | None
    report: int | None
    policy: Asked | None
    to: tuple[int, bool] | None  # what a protection is weakened to


class Model:
    """One model `m` with its alias `champion`; changed by what the registry said that it did."""

    def __init__(self) -> None:
        self.keys: dict[int, int] = {}
        self.states: dict[int, str] = {}
        self.reports: dict[int, list[Report]] = {}
        self.collected: set[int] = set()
        # None: the alias was taken away
        self.history: list[int | None] = []
        self.stack: list[int] = []
        self.protection = (0, False)
        self.standing: set[tuple[Matter, str]] = set()

    @property
    def champion(self) -> int | None:
        return self.history[-1] if self.history else None

    def register(self, key: int, number: int) -> bool:
        """Note that a content key is this version; says whether it is new."""
        new = key not in self.keys
        assert number == (len(self.states) + 1 if new else self.keys[key])
        if new:
            self.keys[key], self.reports[number] = number, []
        if new or self.states[number] == "retired":
            self.states[number] = "active"
            self.collected.discard(number)
        return new

    def newest(self, number: int) -> Report | None:
        return self.reports[number][-1] if self.reports[number] else None

    # Who has approved what

    def promotion(self, number: int, policy: Asked | None) -> Matter:
        newest = self.newest(number)
        if policy is None:
            policy = DEFAULTS if newest is None or newest.asks is None else ("given", newest.asks)
        return Matter("promote", number, newest and newest.serial, policy, None)

    def demotion(self, number: int) -> Matter:
        newest = self.newest(number)
        return Matter("demote", number, newest and newest.serial, None, None)

    def matter(self, act: str, number: int, policy: Asked | None, to: tuple[int, bool]) -> Matter:
        if act == "unprotect":
            return Matter("unprotect", None, None, None, (to[0], to[1] and to[0] > 0))
        return self.promotion(number, policy) if act == "promote" else self.demotion(number)

    def people(self, matter: Matter) -> tuple[str, ...]:
        """Whose approvals count for a matter."""
        own = matter.version is None or self.protection[1]
        given = (person for what, person in self.standing if what == matter)
        return tuple(sorted(person for person in given if own or person != REGISTRANT))

    def needed(self, matter: Matter) -> int:
        """How many have to approve: what the alias asks for, and of a promotion the policy and every report."""
        if matter.act != "promote":
            return self.protection[0]
        assert matter.version is not None
        assert matter.policy is not None
        recorded = (report.asks or 0 for report in self.reports[matter.version])
        return max(self.protection[0], matter.policy[1], *recorded, 0)

    def is_weaker(self, required: int, own: bool) -> bool:
        return required < self.protection[0] or bool(self.protection[0] and required and own > self.protection[1])

    def refused_approval(self, matter: Matter, person: str) -> Refusal | None:
        if matter.act == "unprotect":
            assert matter.to is not None
            return None if self.protection[0] and self.is_weaker(*matter.to) else ApprovalRefused
        assert matter.version is not None
        if matter.act == "demote" and self.champion != matter.version:
            return ApprovalRefused
        if self.states[matter.version] == "retired":
            return VersionRetired
        if matter.act == "promote" and self.champion == matter.version:
            return ApprovalRefused
        own = person == REGISTRANT and not self.protection[1] and self.needed(matter)
        return ApprovalRefused if own else None

    def withdrawn(self, act: str, number: int, person: str) -> set[tuple[Matter, str]] | Refusal:
        """What somebody would take back, or why that is refused."""
        if (act == "unprotect" and not self.protection[0]) or (act == "demote" and self.champion != number):
            return ApprovalRefused
        version = None if act == "unprotect" else number
        found = {(m, p) for m, p in self.standing if (m.act, m.version, p) == (act, version, person)}
        return found or ApprovalNotFound

    def refused_protection(self, required: int, own: bool) -> Refusal | None:
        if not required and not self.protection[0]:
            return ApprovalRefused
        if not self.is_weaker(required, own):
            return None
        enough = len(self.people(self.matter("unprotect", 0, None, (required, own)))) >= self.protection[0]
        return None if enough else ApprovalsMissing

    def protect(self, required: int, own: bool) -> bool:
        """Note a protection; says whether that is another one than there was."""
        before, self.protection = self.protection, (required, own and required > 0)
        if before != self.protection:
            self.standing = {(m, person) for m, person in self.standing if m.act != "unprotect"}
        return before != self.protection

    # Where the alias points

    def refused_promotion(self, number: int, policy: Asked | None, expected_revision: int | None) -> Refusal | None:
        if expected_revision not in (None, len(self.history)):
            return AliasConflict
        refusal = self.refused_by_gate(number)
        if refusal is not None or self.champion == number:
            return refusal
        return self.refused_move(self.promotion(number, policy))

    def refused_by_gate(self, number: int) -> Refusal | None:
        if self.states[number] != "active":
            return VersionRetired if self.states[number] == "retired" else VersionDeprecated
        newest = self.newest(number)
        return GateRefused if newest is None or not newest.passes or self.loses_to_champion(number) else None

    def loses_to_champion(self, number: int) -> bool:
        newest, best = self.newest(number), None if self.champion is None else self.newest(self.champion)
        return newest is not None and best is not None and newest.tuned < best.tuned

    def refused_move(self, matter: Matter) -> Refusal | None:
        return None if len(self.people(matter)) >= self.needed(matter) else ApprovalsMissing

    def refused_rollback(self, number: int) -> Refusal | None:
        # a roll-back is judged by no policy: the protection alone asks for approvals
        short = len(self.people(self.promotion(number, None))) < self.protection[0]
        return ApprovalsMissing if short else None

    def move(self, action: str, to: int | None) -> None:
        """Note where the alias went; what was approved of either version has been used."""
        assert to is None or self.states[to] != "retired"
        gone = {self.champion, to} - {None}
        self.standing = {(m, person) for m, person in self.standing if m.version not in gone}
        self.history.append(to)
        if to is None:
            self.stack = []
        elif action == "rollback" and to in self.stack:
            while self.stack[-1] != to:
                self.stack.pop()
        else:
            self.stack.append(to)
