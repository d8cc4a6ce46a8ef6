"""Protected aliases: what one person alone must not get past, with approvals that others gave for something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import ApprovalRefused, ApprovalsMissing, PolicyInvalid
from registry.gate import Policy
from registry.store import Registry

Add = Callable[..., Version]
WHY: dict[str, Any] = {"actor": "ada", "reason": "customers use it"}


@pytest.fixture
def version(registry: Registry, add_adapter: Add, make_report: Any, policy: Policy) -> Version:
    """A proven version that is the champion, which two people's approvals protect."""
    found = add_adapter("one")
    registry.record_evaluation(found.digest, {**make_report(), "policy": policy.to_dict()})
    registry.promote("text2sql:v1", "champion", actor="ada")
    registry.protect("text2sql", "champion", required=2, **WHY)
    return found


def _approve(registry: Registry, *people: str, ref: str = "text2sql:v1", **how: Any) -> None:
    for person in people:
        registry.approve(ref, "champion", actor=person, **how)


def test_what_holds_the_alias_is_not_approved_again(registry: Registry, version: Version) -> None:
    with pytest.raises(ApprovalRefused, match="points at text2sql:v1 already") as refused:
        _approve(registry, "ada")
    assert "--for demote" in str(refused.value.next_step)
    assert registry.approvals("text2sql:v1", "champion").approvals == ()


@pytest.mark.parametrize("how", ["demoted", "replaced"])
def test_leaving_the_alias_is_another_matter_than_coming_to_it(
    registry: Registry, version: Version, add_adapter: Add, make_report: Any, policy: Policy, backend: Any, how: str
) -> None:
    held = _approved_while_held(registry, backend, version)
    if how == "demoted":
        _approve(registry, "ada", "bob", act="demote")
        registry.demote("text2sql", "champion", actor="eve", reason="it invents columns")
    else:
        two = add_adapter("two")
        registry.record_evaluation(two.digest, {**make_report(0.3), "policy": policy.to_dict()})
        _approve(registry, "ada", "bob", ref="text2sql:v2")
        registry.promote("text2sql:v2", "champion", actor="eve")
    said = {one.actor: one.why_not for one in registry.approvals("text2sql:v1", "champion").approvals}
    assert said == dict.fromkeys(held, "used: what was approved has been done since")
    back: Callable[..., Any] = registry.promote
    arguments: dict[str, Any] = {"ref": "text2sql:v1", "alias": "champion", "actor": "eve", "reason": "r"}
    if how == "replaced":
        back, arguments["name"] = registry.rollback, arguments.pop("ref").split(":")[0]
    with pytest.raises(ApprovalsMissing, match="0 of 2"):
        back(**arguments)
    client = backend.connect(registry.folder)
    move = (
        "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, evaluation_id, created_at) "
        "VALUES ('text2sql', 'champion', 3, ?, 'promote', 'eve', NULL, 't')"
    )
    with pytest.raises(client.error, match="approvals are missing"):
        client.execute(move, (version.id,))
    _approve(registry, "ada", "bob")
    client.execute(move, (version.id,))


def _approved_while_held(registry: Registry, backend: Any, version: Version) -> list[str]:
    """Write two approvals of a version while it holds the alias, as a client that is not this program could."""
    from registry.database import open_engine, writing
    from registry.gate import effective_policy
    from registry.matters import promotion_matter
    from registry.reports import newest_evaluation

    engine = open_engine(registry.folder, create=False)
    with writing(engine) as writer:
        query = writer.query
        evaluation = newest_evaluation(query, version.digest)
        policy = effective_policy(None, None if evaluation is None else evaluation.report)
        matter = promotion_matter(query, version, "champion", policy, evaluation)
    engine.dispose()
    client = backend.connect(registry.folder)
    people = ["carol", "dora"]
    for person in people:
        client.execute(
            "INSERT INTO approvals (name, alias, act, version_id, evaluation_id, revision, digest, matter, action, "
            "actor, created_at) VALUES ('text2sql', 'champion', 'promote', ?, ?, ?, ?, ?, 'approve', ?, 't')",
            (version.id, evaluation and evaluation.id, matter.revision, matter.digest, matter.text, person),
        )
    return people


def test_newer_report_takes_no_approvals_away(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    version = add_adapter("one")
    for required in (2, 1):
        asked = {**policy.to_dict(), "required_approvals": required}
        registry.record_evaluation(version.digest, {**make_report(), "policy": asked})
    registry.record_evaluation(version.digest, make_report())
    for own in (None, policy):
        with pytest.raises(ApprovalsMissing, match="0 of 2"):
            registry.promote("text2sql:v1", "champion", policy=own, actor="eve")
    assert registry.approvals("text2sql:v1", "champion").required == 2
    _approve(registry, "ada", "bob")
    assert registry.promote("text2sql:v1", "champion", actor="eve").changed


@pytest.mark.parametrize(
    "asked",
    [{"required_approvals": "2"}, {"required_approvals": -1}, {"required_approvals": None},
     {"required_approvals": True}, {"required_approvals": 1.0}, "two", 0, ["required_approvals"]],
)  # fmt: skip
@pytest.mark.usefixtures("any_report")
def test_number_that_cannot_be_read_is_not_none(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy, asked: Any
) -> None:
    version = add_adapter("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": asked})
    registry.record_evaluation(version.digest, {**make_report(), "policy": policy.to_dict()})
    for own in (None, policy):
        with pytest.raises(PolicyInvalid, match="text2sql:v1"):
            registry.promote("text2sql:v1", "champion", policy=own, actor="eve")
    assert registry.aliases("text2sql") == []


@pytest.mark.usefixtures("any_report")
def test_unusable_policy_is_in_nobodys_way_to_withdraw_or_to_roll_back(
    registry: Registry, version: Version, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    two = add_adapter("two")
    registry.record_evaluation(two.digest, {**make_report(0.3), "policy": policy.to_dict()})
    _approve(registry, "ada", "bob", ref="text2sql:v2")
    registry.promote("text2sql:v2", "champion", actor="eve")
    _approve(registry, "ada", "bob")
    unusable = {"required_approvals": -1, "no_such_key": 1}
    registry.record_evaluation(version.digest, {**make_report(), "policy": unusable})
    assert registry.withdraw("text2sql:v1", "champion", actor="bob").given == ()
    back: dict[str, Any] = {"actor": "eve", "reason": "v2 invents columns"}
    with pytest.raises(ApprovalsMissing, match="0 of 2"):  # those were for another report
        registry.rollback("text2sql", "champion", **back)
    _approve(registry, "ada", "bob")
    assert registry.approvals("text2sql:v1", "champion").given == ("ada", "bob")
    with pytest.raises(PolicyInvalid):
        registry.promote("text2sql:v1", "champion", actor="eve")
    with pytest.raises(PolicyInvalid):
        registry.promote("text2sql:v1", "champion", policy=policy, actor="eve")
    registry.withdraw("text2sql:v1", "champion", actor="ada")
    with pytest.raises(ApprovalsMissing, match=r"1 of 2 approvals \(bob\)"):
        registry.rollback("text2sql", "champion", **back)
    _approve(registry, "ada")
    assert registry.rollback("text2sql", "champion", **back).version == 1
    assert registry.verify().intact


def test_approvals_of_a_weaker_protection_are_of_that_one(registry: Registry, version: Version, backend: Any) -> None:
    registry.protect("text2sql", "champion", required=3, **WHY)
    people = ("ada", "bob", "carol")
    _approve(registry, *people, act="unprotect", required=2)
    others: tuple[dict[str, Any], ...] = ({"required": 1}, {"required": 2, "self_approval": True})
    for other in others:
        with pytest.raises(ApprovalsMissing, match="0 of 3"):
            registry.protect("text2sql", "champion", **other, **WHY)
    with pytest.raises(ApprovalsMissing, match=r"0 of 3 approvals for a weaker protection .* by none") as refused:
        registry.unprotect("text2sql", "champion", **WHY)
    assert "3 more people run `tunewright registry approve text2sql --alias champion --for unprotect`" in str(
        refused.value.next_step
    )
    said = {one.why_not for one in registry.approvals("text2sql", "champion", act="unprotect").approvals}
    assert said == {"given for another protection"}
    client = backend.connect(registry.folder)
    weaker = (
        "INSERT INTO protections (name, alias, required, self_approval, actor, reason, created_at) "
        "VALUES ('text2sql', 'champion', ?, ?, 'eve', 'r', 't')"
    )
    for values in ((0, 0), (1, 0), (2, 1)):
        with pytest.raises(client.error, match="approvals are missing"):
            client.execute(weaker, values)
    registry.withdraw("text2sql", "champion", act="unprotect", actor="ada")
    with pytest.raises(ApprovalsMissing, match="2 of 3") as refused:
        registry.protect("text2sql", "champion", required=2, **WHY)
    assert "--for unprotect --required 2`" in str(refused.value.next_step)
    _approve(registry, "ada", act="unprotect", required=2)
    assert registry.protect("text2sql", "champion", required=2, **WHY).required == 2
    assert registry.verify().intact


def test_what_would_be_no_weaker_protection_is_not_approved(registry: Registry, version: Version) -> None:
    for required in (2, 3):
        with pytest.raises(ApprovalRefused, match="no weaker protection"):
            _approve(registry, "ada", act="unprotect", required=required)
    for unusable in (-1, 101, True, "2"):
        with pytest.raises(PolicyInvalid, match="required approvals"):
            _approve(registry, "ada", act="unprotect", required=unusable)
    for act in ("promote", "demote"):
        with pytest.raises(PolicyInvalid, match=act):
            _approve(registry, "ada", act=act, required=1)


def test_database_itself_counts_no_approval_of_ones_own_version(
    registry: Registry, version: Version, backend: Any, add_adapter: Add
) -> None:
    own = registry.audit()[1].actor
    add_adapter("two")
    registry.protect("text2sql", "other", required=2, **WHY)
    registry.approve("text2sql:v2", "other", actor="ada")
    client = backend.connect(registry.folder)
    client.execute(
        "INSERT INTO approvals (name, alias, act, version_id, evaluation_id, revision, digest, matter, action, actor, "
        "created_at) SELECT name, alias, act, version_id, evaluation_id, revision, digest, matter, action, ?, 't' "
        "FROM approvals",
        (own,),
    )
    move = (
        "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, evaluation_id, created_at) "
        "VALUES ('text2sql', 'other', 1, (SELECT id FROM versions WHERE name = 'text2sql' AND number = 2), 'promote', "
        "'eve', NULL, 't')"
    )
    with pytest.raises(client.error, match="approvals are missing"):
        client.execute(move)
    registry.approve("text2sql:v2", "other", actor="bob")
    client.execute(move)
