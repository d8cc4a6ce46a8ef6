"""Moving an alias: gate, compare-and-swap, audit row and outbox row, all inside the caller's one write transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from registry import audit
from registry.approvals import Approvals, asked_for_promotion, consent_to_promotion
from registry.canonical import canonical_json
from registry.entities import AliasChange, AliasState, Evaluation, Version
from registry.errors import AliasConflict, AliasNotFound, RollbackRefused
from registry.gate import Champion, GateResult, Policy, check, policy_and_source
from registry.lookup import (
    Query,
    Statement,
    alias_statement,
    by_digest,
    query_alias,
    query_aliases,
    query_numbered,
    query_revision,
    reference_statement,
)
from registry.protection import protection_statement
from registry.reports import comparable_evaluation, evaluations_of, held_reports_statement, reports_of
from registry.schema import alias_events, outbox
from registry.status import require_promotable, require_usable, status_of
from registry.writer import Writer

__all__ = [
    "Ruling",
    "emit",
    "expected_reads",
    "judge",
    "plan_demotion",
    "plan_promotion",
    "plan_rollback",
    "take_reads",
    "write_change",
]


@dataclass(frozen=True)
class Ruling:
    """A verdict with all that it rests on, for the audit trail."""

    verdict: GateResult
    policy: Policy
    policy_from: str  # as `registry.gate.policy_and_source` has it
    evaluation: Evaluation | None
    champion_evaluation: Evaluation | None  # of the other version that the alias holds, if that was evaluated
    consent: Approvals | None = None  # where the alias or the policy asks for approvals

    def to_dict(self) -> dict[str, Any]:
        """Return the ruling as plain JSON; reports are named by their digests."""
        against = self.champion_evaluation
        return {
            "policy": self.policy.to_dict(),
            "policy_from": self.policy_from,
            "champion_evaluation": None if against is None else against.digest,
            **self.verdict.to_dict(),
        }


def judge(
    query: Query, version: Version, state: AliasState | None, policy: Policy | None, alias: str | None = None
) -> Ruling:
    """Hold a version's newest report against the policy, and against the version that the alias holds now.

    Of that version the newest report on the same test counts. Approvals that the alias or the policy asks for are one
    more check.

    Args:
        query: Reads the present state: inside a promotion, that of its transaction.
        version: The challenger.
        state: Where the alias points now; None where it points at nothing.
        policy: None takes the one in the newest report, or the defaults where that names none.
        alias: Where the version would come to; None asks for no approvals.

    Raises:
        PolicyInvalid: The report's policy can't be used, or what an older one asks for is no number of approvals.
    """
    reports = evaluations_of(query, version.digest)
    evaluation = reports[0] if reports else None
    report = None if evaluation is None else evaluation.report
    policy, policy_from = policy_and_source(policy, report)
    champion = against = consent = None
    moves = state is None or state.digest != version.digest
    if state is not None and moves:
        against = comparable_evaluation(query, state, report)
        champion = Champion(state.label, None if against is None else against.report)
    verdict = check(policy, report, champion, kind=version.kind)
    if alias is not None and moves and asked_for_promotion(query, version, alias, policy, reports)[0]:
        consent = consent_to_promotion(query, version, alias, policy, evaluation)
        verdict = verdict.with_check(consent.check())
    return Ruling(verdict, policy, policy_from, evaluation, against, consent)


def expected_reads(ref: str, name: str, version: Statement, alias: str) -> list[Statement]:
    """Return what a promotion reads, and what its audit row is put behind.

    Args:
        ref: The challenger as the caller names it.
        name: Its model.
        version: Finds the version's id: `registry.lookup.by_digest`, or another that `take_reads` is told of.
        alias: The alias.
    """
    return [
        reference_statement(ref),
        alias_statement(name, alias),
        *_reads_of(version),
        held_reports_statement(name, alias),
        protection_statement(name, alias),
        audit.LAST,
    ]


def take_reads(writer: Writer, asked: Statement, version: Version) -> None:
    """Take what was asked of a version that another statement found for what is asked of it by its digest."""
    for found, meant in zip(_reads_of(asked), _reads_of(by_digest(version.digest)), strict=True):
        writer.take(found, meant)


def _reads_of(version: Statement) -> tuple[Statement, Statement]:
    return status_of(version), reports_of(version)


def plan_promotion(
    query: Query, version: Version, alias: str, policy: Policy | None, expected_revision: int | None
) -> tuple[AliasChange, Ruling]:
    """Work out what a promotion would do, without writing.

    Returns:
        The change, with the gate's verdict in it (passed or not), and the ruling.

    Raises:
        VersionRetired, VersionDeprecated: No alias takes the version.
        AliasConflict: The alias isn't at the revision that the caller expects.
        PolicyInvalid: The report's policy can't be used.
    """
    state = query_alias(query, version.name, alias)
    revision = _compare(query, version.name, alias, state, expected_revision)
    require_promotable(query, version)
    ruling = judge(query, version, state, policy, alias)
    change = _change("promote", (version.name, alias), revision, version, state, ruling.verdict)
    return change if ruling.consent is None else replace(change, approvals=ruling.consent), ruling


def plan_demotion(query: Query, name: str, alias: str, expected_revision: int | None) -> AliasChange:
    """Work out what taking an alias away would do, without writing.

    Raises:
        AliasNotFound: There is no such alias.
        AliasConflict: The alias isn't at the revision that the caller expects.
    """
    state = _held(query, name, alias)
    revision = _compare(query, name, alias, state, expected_revision)
    return _change("demote", (name, alias), revision, None, state, None)


def _held(query: Query, name: str, alias: str) -> AliasState:
    state = query_alias(query, name, alias)
    if state is not None:
        return state
    existing = [s.alias for s in query_aliases(query, name)]
    was = query_revision(query, name, alias)
    raise AliasNotFound(
        f"{name!r} has no alias {alias!r}" + (f": it was taken away at revision {was}" if was else ""),
        allowed=", ".join(existing) or ("none" if was else "none yet"),
        next_step=f"tunewright registry promote {name} --alias {alias}",
    )


def plan_rollback(query: Query, name: str, alias: str, to: int | None, expected_revision: int | None) -> AliasChange:
    """Work out what a roll-back would do, without writing.

    Without a target it is what the alias held before the version it holds now was promoted: a second roll-back goes
    one further back, it does not undo the first.

    Raises:
        AliasNotFound: There is no such alias.
        AliasConflict: The alias isn't at the revision that the caller expects.
        RollbackRefused: The target never held this alias or holds it now, or there is nothing to go back to.
    """
    state = _held(query, name, alias)
    revision = _compare(query, name, alias, state, expected_revision)
    held, stack, taken = _fold(query, name, alias)
    if to is None:
        if len(stack) < 2:
            since = " since it was taken away" if taken else ""
            _refuse_rollback(f"{name}@{alias} has held nothing before v{state.version}{since}", held, state)
        to = stack[-2]
    if to == state.version:
        _refuse_rollback(f"{name}@{alias} points at v{to} already", held, state)
    if to not in held:
        _refuse_rollback(f"{name}@{alias} has never held v{to}", held, state)
    target = query_numbered(query, name, to)
    require_usable(query, target, "rolled back to")
    return _change("rollback", (name, alias), revision, target, state, None)


def _refuse_rollback(problem: str, held: Sequence[int], state: AliasState) -> NoReturn:
    others = sorted(set(held) - {state.version})
    raise RollbackRefused(
        problem,
        allowed=", ".join(f"v{number}" for number in others) or "nothing: promote another version first",
        next_step="a version that never held the alias has to pass the gate: tunewright registry promote",
    )


def _fold(query: Query, name: str, alias: str) -> tuple[list[int], list[int], bool]:
    """Fold an alias's history into every version that held it, the stack that roll-backs pop, and if it was taken away.

    What was held before the alias was taken away is gone back to only by name: somebody took it away.
    """
    rows = query(
        "SELECT v.number, e.action FROM alias_events e LEFT JOIN versions v ON v.id = e.version_id "
        "WHERE e.name = ? AND e.alias = ? ORDER BY e.revision",
        (name, alias),
    )
    held: list[int] = []
    stack: list[int] = []
    taken = False
    for number, action in rows:
        if number is None:
            stack.clear()
            taken = True
            continue
        held.append(number)
        if action == "rollback" and number in stack:
            del stack[len(stack) - stack[::-1].index(number) :]
        else:
            stack.append(number)
    return held, stack, taken


def _compare(query: Query, name: str, alias: str, state: AliasState | None, expected_revision: int | None) -> int:
    """Return the alias's revision, if it is the expected one."""
    revision = query_revision(query, name, alias) if state is None else state.revision
    if expected_revision is not None and expected_revision != revision:
        holds = "points at nothing" if state is None else f"points at v{state.version} since {state.changed_at}"
        raise AliasConflict(
            f"{name}@{alias} is at revision {revision}, not {expected_revision}: it {holds}",
            current_revision=revision,
            allowed=f"--expected-revision {revision}",
            next_step=f"look at `tunewright registry show {name}`, decide again, then name revision {revision}",
        )
    return revision


def _change(
    action: str,
    named: tuple[str, str],
    revision: int,
    version: Version | None,
    state: AliasState | None,
    gate: GateResult | None,
) -> AliasChange:
    unmoved = state is not None and version is not None and state.digest == version.digest
    return AliasChange(
        name=named[0],
        alias=named[1],
        action=action,
        revision=revision if unmoved else revision + 1,
        version=None if version is None else version.version,
        digest=None if version is None else version.digest,
        previous_version=None if state is None else state.version,
        previous_digest=None if state is None else state.digest,
        actor="",
        reason=None,
        at="",
        gate=gate,
        changed=not unmoved,
    )


def write_change(
    writer: Writer,
    change: AliasChange,
    version: Version | None,
    *,
    actor: str,
    reason: str | None,
    ruling: Ruling | None,
) -> AliasChange:
    """Write a planned change: the alias event, its audit row and its outbox row. Only a promotion has a ruling.

    `version` is what the change names: where the alias points afterwards, None where it is taken away.

    Whoever calls has looked that no approvals are missing; the database looks again.
    """
    change = replace(change, actor=actor, reason=reason, at=audit.now())
    gate = None if ruling is None else ruling.to_dict()
    evaluation = None if ruling is None else ruling.evaluation
    assert (None if version is None else version.digest) == change.digest
    writer.insert(
        alias_events,
        {
            "name": change.name,
            "alias": change.alias,
            "revision": change.revision,
            "version_id": None if version is None else version.id,
            "action": change.action,
            "actor": actor,
            "reason": reason,
            "evaluation_id": None if evaluation is None else evaluation.id,
            "gate": None if gate is None else canonical_json(gate),
            "created_at": change.at,
        },
    )
    payload: dict[str, Any] = {
        "name": change.name,
        "alias": change.alias,
        "revision": change.revision,
        "version": change.version,
        "digest": change.digest,
        "previous_digest": change.previous_digest,
        "reason": reason,
        "evaluation": None if evaluation is None else evaluation.digest,
        "gate": gate,
    }
    if change.approvals is not None:
        payload["approvals"] = [asdict(one) for one in change.approvals.approvals if one.counts]
    subject = f"{change.name}@{change.alias}"
    text = audit.append(writer, at=change.at, actor=actor, action=change.action, subject=subject, payload=payload)
    emit(writer, change.at, f"alias.{change.action}", text)
    return change


def emit(writer: Writer, at: str, topic: str, payload: str) -> None:
    """Leave an outbox row in the caller's transaction, for whoever tells other systems; `payload` is canonical JSON."""
    writer.insert(outbox, {"created_at": at, "topic": topic, "payload": payload})
