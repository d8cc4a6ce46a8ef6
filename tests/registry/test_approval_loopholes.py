"""Protected aliases: what one person alone must not get past, with approvals that others gave for something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import ApprovalRefused, ApprovalsMissing
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
    with pytest.raises(ApprovalsMissing, match="0 of 2"):
        if how == "demoted":
            registry.promote("text2sql:v1", "champion", actor="eve")
        else:
            registry.rollback("text2sql", "champion", actor="eve", reason="r")
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
    from registry.approvals import promotion_matter
    from registry.database import open_engine, query_on, writing
    from registry.gate import recorded_policy
    from registry.reports import newest_evaluation

    engine = open_engine(registry.folder, create=False)
    with writing(engine) as connection:
        query = query_on(connection)
        evaluation = newest_evaluation(query, version)
        policy = recorded_policy(None if evaluation is None else evaluation.report) or Policy()
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
