"""Protected aliases: who has to approve, of what exactly, what an approval is used up by, and what the rows forbid."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import (
    ApprovalNotFound,
    ApprovalRefused,
    ApprovalsMissing,
    GateRefused,
    PolicyInvalid,
    ReasonMissing,
    ReferenceInvalid,
    VersionNotFound,
    VersionRetired,
)
from registry.gate import Policy
from registry.store import Registry

Add = Callable[..., Version]
WHY: dict[str, Any] = {"actor": "ada", "reason": "customers use it"}


@pytest.fixture
def version(registry: Registry, add_adapter: Add, make_report: Any, policy: Policy) -> Version:
    """A proven version of a model whose champion is protected by two approvals."""
    found = add_adapter("one")
    registry.record_evaluation(found.digest, {**make_report(), "policy": policy.to_dict()})
    registry.protect("text2sql", "champion", required=2, **WHY)
    return found


def _approve(registry: Registry, *people: str, ref: str = "text2sql:v1", **how: Any) -> None:
    for person in people:
        registry.approve(ref, "champion", actor=person, **how)


def _promote(registry: Registry, ref: str = "text2sql:v1", **how: Any) -> Any:
    return registry.promote(ref, "champion", **{"actor": "eve", **how})


def test_an_alias_moves_once_enough_others_have_approved(registry: Registry, version: Version) -> None:
    registered_by = registry.audit()[1].actor
    with pytest.raises(ApprovalsMissing) as refusal:
        _promote(registry)
    assert refusal.value.exit_status == 3
    assert refusal.value.reasons == ("0 of 2 approvals for text2sql:v1 as text2sql@champion: 2 missing",)
    assert registered_by in str(refusal.value.allowed)
    assert "registry approve text2sql:v1 --alias champion" in str(refusal.value.next_step)
    refused = registry.audit()[-1]
    assert (refused.actor, refused.action, refused.subject) == ("eve", "refuse", "text2sql:v1")
    _approve(registry, "ada", "ada")  # twice is once
    with pytest.raises(ApprovalsMissing, match=r"1 of 2 approvals \(ada\)"):
        _promote(registry)
    tried = _promote(registry, dry_run=True)
    assert (tried.gate.passed, tried.approvals.given, tried.approvals.missing) == (False, ("ada",), 1)
    assert tried.gate.checks[-1].name == "approvals"
    assert registry.approve("text2sql:v1", "champion", actor="bob", reason="looked at it").missing == 0
    change = _promote(registry)
    assert (change.changed, change.revision, change.approvals.given) == (True, 1, ("ada", "bob"))
    assert [one["actor"] for one in registry.audit()[-1].payload["approvals"]] == ["ada", "bob"]
    assert [e.action for e in registry.audit() if e.action == "approve"] == ["approve"] * 2
    assert [e.topic for e in registry.outbox()][-3:] == ["alias.approve", "alias.approve", "alias.promote"]
    assert registry.verify().intact


def test_other_aliases_and_other_models_need_none(registry: Registry, version: Version, policy: Policy) -> None:
    assert registry.promote("text2sql:v1", "candidate", actor="eve").changed
    assert registry.approvals("text2sql:v1", "candidate").required == 0
    assert [(p.name, p.alias, p.required) for p in registry.protections()] == [("text2sql", "champion", 2)]
    assert registry.protections("other") == []


def test_one_approval_of_ones_own_version_does_not_count(registry: Registry, version: Version) -> None:
    own = registry.audit()[1].actor
    with pytest.raises(ApprovalRefused, match="one's own approval doesn't count"):
        _approve(registry, own)
    _approve(registry, "ada", "bob", act="unprotect", required=2, self_approval=True)
    registry.protect("text2sql", "champion", required=2, self_approval=True, **WHY)
    _approve(registry, own, "ada")
    registry.protect("text2sql", "champion", required=2, self_approval=False, **WHY)  # asks for more: needs no approval
    found = registry.approvals("text2sql:v1", "champion")
    assert (found.given, found.registered_by) == (("ada",), own)
    assert {one.actor: one.why_not for one in found.approvals}[own] == "by whoever registered the version"
    with pytest.raises(ApprovalsMissing):
        _promote(registry)


@pytest.mark.parametrize("what", ["evaluation", "policy", "alias", "bytes"])
def test_approval_is_of_exactly_one_matter(
    registry: Registry, version: Version, add_adapter: Add, make_report: Any, policy: Policy, what: str
) -> None:
    _approve(registry, "ada", "bob")
    how: dict[str, Any] = {"ref": "text2sql:v1"}
    if what == "evaluation":
        registry.record_evaluation(version.digest, {**make_report(0.3), "policy": policy.to_dict()})
        said = {one.why_not for one in registry.approvals("text2sql:v1", "champion").approvals}
        assert said == {"given for an evaluation that is not the newest"}
    elif what == "policy":
        how["policy"] = Policy(min_task_delta=0.0, min_rows=10)
        with pytest.raises(ApprovalsMissing, match="--alias champion --policy FILE`"):
            _promote(registry, **how)
        said = {one.why_not for one in registry.approvals("text2sql:v1", "champion", policy=how["policy"]).approvals}
        assert said == {"given for another policy"}
    elif what == "bytes":
        other = add_adapter("two")
        registry.record_evaluation(other.digest, {**make_report(), "policy": policy.to_dict()})
        how["ref"] = "text2sql:v2"
    if what == "alias":
        registry.protect("text2sql", "released", required=1, **WHY)
        with pytest.raises(ApprovalsMissing, match="0 of 1"):
            registry.promote("text2sql:v1", "released", actor="eve")
        return
    with pytest.raises(ApprovalsMissing, match="0 of 2"):
        _promote(registry, **how)
    _approve(registry, "ada", "bob", **how)
    assert _promote(registry, **how).changed
    assert registry.verify().intact


def test_withdrawn_approval_counts_no_more_until_it_is_given_again(registry: Registry, version: Version) -> None:
    _approve(registry, "ada", "bob")
    left = registry.withdraw("text2sql:v1", "champion", actor="bob", reason="it invents columns")
    assert (left.given, left.missing) == (("ada",), 1)
    assert [(one.actor, one.why_not) for one in left.approvals] == [("ada", None), ("bob", "withdrawn")]
    with pytest.raises(ApprovalsMissing):
        _promote(registry)
    for person in ("bob", "carol"):
        with pytest.raises(ApprovalNotFound) as nothing:
            registry.withdraw("text2sql:v1", "champion", actor=person)
        assert nothing.value.allowed == "ada"
    _approve(registry, "bob")
    assert _promote(registry).changed
    assert registry.verify().intact


def test_what_was_given_for_another_evaluation_or_policy_is_withdrawn_with_it(
    registry: Registry, version: Version, make_report: Any, policy: Policy
) -> None:
    _approve(registry, "ada")
    _approve(registry, "ada", policy=Policy())
    left = registry.withdraw("text2sql:v1", "champion", actor="ada")
    assert {one.why_not for one in left.approvals} == {"withdrawn"}
    assert len(left.approvals) == 2
    assert registry.approvals("text2sql:v1", "champion", policy=Policy()).given == ()
    assert registry.verify().intact


def test_roll_back_and_demotion_need_approvals_of_their_own(
    registry: Registry, version: Version, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    two = add_adapter("two")
    registry.record_evaluation(two.digest, {**make_report(), "policy": policy.to_dict()})
    for ref in ("text2sql:v1", "text2sql:v2"):
        _approve(registry, "ada", "bob", ref=ref)
        _promote(registry, ref)
    back: dict[str, Any] = {"actor": "eve", "reason": "v2 is slow"}
    with pytest.raises(ApprovalsMissing, match="may not go back to text2sql:v1"):
        registry.rollback("text2sql", "champion", **back)
    said = {one.why_not for one in registry.approvals("text2sql:v1", "champion").approvals}
    assert said == {"used: what was approved has been done since"}
    _approve(registry, "ada", "bob")
    assert registry.rollback("text2sql", "champion", **back).version == 1
    with pytest.raises(ApprovalsMissing, match="may not be taken away"):
        registry.demote("text2sql", "champion", **back)
    with pytest.raises(ApprovalRefused, match="points at v1"):
        _approve(registry, "ada", ref="text2sql:v2", act="demote")
    _approve(registry, "ada", "bob", act="demote")
    assert registry.demote("text2sql", "champion", **back).current is None
    assert registry.audit()[-1].payload["approvals"][0]["actor"] == "ada"
    assert registry.verify().intact


def test_promotion_to_where_it_points_already_needs_none(registry: Registry, version: Version) -> None:
    _approve(registry, "ada", "bob")
    _promote(registry)
    assert not _promote(registry).changed
    assert registry.check_gate("text2sql:v1", alias="champion").passed


def test_failed_gate_stays_failed_whoever_approves(
    registry: Registry, version: Version, make_report: Any, policy: Policy
) -> None:
    registry.record_evaluation(version.digest, {**make_report(0.0, low=-0.1), "policy": policy.to_dict()})
    with pytest.raises(GateRefused) as refusal:
        _promote(registry)
    assert not isinstance(refusal.value, ApprovalsMissing)
    assert len(refusal.value.reasons) == 3  # the missing approvals among them
    _approve(registry, "ada", "bob")
    with pytest.raises(GateRefused, match="does not lie above zero"):
        _promote(registry)


def test_policy_asks_for_approvals_where_no_alias_does(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    asked = {**policy.to_dict(), "required_approvals": 1}
    version = add_adapter("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": asked})
    for own in (None, policy):  # a policy of one's own takes nothing away from the recorded one
        with pytest.raises(ApprovalsMissing, match="0 of 1"):
            _promote(registry, policy=own)
    assert registry.standing("text2sql").proven  # an alias's business
    assert registry.check_gate("text2sql", alias="champion", approvals=False).passed
    assert not registry.check_gate("text2sql", alias="champion").passed
    _approve(registry, "ada")
    assert _promote(registry).changed
    with pytest.raises(PolicyInvalid, match="required_approvals"):
        Policy(required_approvals=-1)


def test_protection_is_raised_by_one_and_weakened_only_with_its_own_approvals(
    registry: Registry, version: Version
) -> None:
    assert registry.protect("text2sql", "champion", required=3, **WHY).required == 3
    assert registry.protect("text2sql", "champion", required=3, **WHY).required == 3
    rows = len(registry.audit())
    for act in (
        lambda: registry.protect("text2sql", "champion", required=2, **WHY),
        lambda: registry.protect("text2sql", "champion", required=3, self_approval=True, **WHY),
        lambda: registry.unprotect("text2sql", "champion", **WHY),
    ):
        with pytest.raises(ApprovalsMissing, match="0 of 3 approvals for a weaker protection"):
            act()
    assert [e.action for e in registry.audit()[rows:]] == ["refuse"] * 3
    _approve(registry, "ada", "bob", "carol", act="unprotect", required=1)
    registry.protect("text2sql", "champion", required=1, **WHY)
    with pytest.raises(ApprovalsMissing, match="0 of 1"):  # the three are used up
        registry.unprotect("text2sql", "champion", **WHY)
    _approve(registry, "bob", act="unprotect")
    assert registry.unprotect("text2sql", "champion", **WHY).required == 0
    assert registry.protections() == []
    assert _promote(registry).changed
    with pytest.raises(ApprovalRefused, match="is not protected"):
        registry.unprotect("text2sql", "champion", **WHY)
    assert registry.verify().intact


def test_what_cannot_be_protected_or_approved_is_told(registry: Registry, version: Version) -> None:
    for required in (0, -1, 101, True):
        with pytest.raises(PolicyInvalid, match="required approvals"):
            registry.protect("text2sql", "champion", required=required, **WHY)
    with pytest.raises(ReasonMissing):
        registry.protect("text2sql", "champion", actor="ada", reason=" ")
    with pytest.raises(VersionNotFound, match="no model is named"):
        registry.protect("text2sq", "champion", **WHY)
    with pytest.raises(ReferenceInvalid, match="nothing that is approved"):
        _approve(registry, "ada", act="delete")
    with pytest.raises(ReferenceInvalid, match="is no name"):
        _approve(registry, " ")
    with pytest.raises(ApprovalRefused, match="not protected"):
        registry.approve("text2sql:v1", "candidate", act="unprotect", actor="ada")
    registry.retire("text2sql:v1", **WHY)
    with pytest.raises(VersionRetired):
        _approve(registry, "ada")


def test_database_itself_moves_no_protected_alias_without_approvals(
    registry: Registry, version: Version, backend: Any
) -> None:
    client = backend.connect(registry.folder)
    move = (
        "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, evaluation_id, created_at) "
        "VALUES ('text2sql', 'champion', ?, ?, ?, 'eve', NULL, 't')"
    )
    weaker = (
        "INSERT INTO protections (name, alias, required, self_approval, actor, reason, created_at) "
        "VALUES ('text2sql', 'champion', ?, ?, 'eve', 'r', 't')"
    )
    _approve(registry, "ada")
    with pytest.raises(client.error, match="approvals are missing"):
        client.execute(move, (1, version.id, "promote"))
    for values in ((1, 0), (2, 1), (0, 0)):
        with pytest.raises(client.error, match="approvals are missing"):
            client.execute(weaker, values)
    again = (
        "INSERT INTO approvals (name, alias, act, version_id, evaluation_id, revision, digest, matter, action, actor, "
        "created_at) SELECT name, alias, act, version_id, evaluation_id, revision, digest, matter, ?, actor, 't' "
        "FROM approvals"
    )
    with pytest.raises(client.error, match="stands already"):
        client.execute(again, ("approve",))
    with pytest.raises(client.error):
        client.execute("UPDATE approvals SET actor = 'bob'")
    _approve(registry, "bob")
    client.execute(move, (1, version.id, "promote"))
    with pytest.raises(client.error, match="approvals are missing"):
        client.execute(move, (2, None, "demote"))
    assert "alias" in str(registry.verify().problems)  # nobody audited that


def test_rows_that_were_put_in_or_changed_from_outside_are_found(
    registry: Registry, version: Version, backend: Any
) -> None:
    _approve(registry, "ada")
    client = backend.connect(registry.folder)
    client.execute(
        "INSERT INTO approvals (name, alias, act, version_id, evaluation_id, revision, digest, matter, action, actor, "
        "created_at) SELECT name, alias, act, version_id, evaluation_id, revision, digest, matter, action, 'bob', 't' "
        "FROM approvals"
    )
    assert "without its approval row in the audit" in str(registry.verify().problems)
    client.lift("approvals")
    client.execute("UPDATE approvals SET matter = '{}' WHERE actor = 'ada'")
    assert "doesn't have its digest" in str(registry.verify().problems)


def _withdraw_in_time(folder: Path, start: Any) -> None:
    with Registry.open(folder) as registry:
        start.wait()
        registry.withdraw("text2sql:v1", "champion", actor="bob")


def test_withdrawal_beside_a_promotion_is_before_or_after_it(registry: Registry, version: Version) -> None:
    _approve(registry, "ada", "bob")
    context = multiprocessing.get_context("fork")
    start = context.Event()
    other = context.Process(target=_withdraw_in_time, args=(registry.folder, start))
    other.start()
    start.set()
    try:
        moved = _promote(registry).changed
    except ApprovalsMissing:
        moved = False
    other.join(30)
    actions = [e.action for e in registry.audit() if e.action in ("withdraw", "promote")]
    # after the promotion there is nothing left to withdraw, and the other process failed
    assert actions == (["promote"] if moved else ["withdraw"])
    assert (other.exitcode == 0) is (not moved)
    assert registry.verify().intact
