"""What is proven: an alias that points at it, a report that satisfies its policy, or a base; nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from registry.entities import Version
from registry.gate import Policy
from registry.store import Registry

Add = Callable[..., Version]


def test_nothing_measured_is_not_proven(registry: Registry, add_adapter: Add) -> None:
    standing = registry.standing(add_adapter().digest)
    assert not standing.proven
    assert "no evaluation" in standing.reasons[0]


def test_a_base_needs_no_proof(registry: Registry, add_base: Add) -> None:
    found = registry.standing(add_base().digest)
    assert found.to_dict() == {"proven": True, "basis": "base", "reasons": [], "required_keys": []}


def test_weights_that_were_made_from_a_base_are_none_by_another_name(
    registry: Registry,
    add_base: Add,
    add_adapter: Add,
    fingerprints: tuple[str, str],
    make_report: Callable[..., dict[str, Any]],
    policy: Policy,
) -> None:
    base = add_base()
    full = add_adapter(kind="full", base_fingerprint=fingerprints[1])
    laundered = add_base("laundered", fingerprints[1], "other")
    standing = registry.standing(laundered.digest)
    assert not standing.proven
    assert standing.reasons[0] == f"its weights are those of {full.label}, of kind full"
    assert registry.standing(base.digest).basis == "base"
    registry.record_evaluation(laundered.digest, make_report() | {"policy": policy.to_dict()})
    assert registry.standing(laundered.digest).basis == "gate"


def test_the_newest_report_is_held_against_its_own_policy(
    registry: Registry, add_adapter: Add, make_report: Callable[..., dict[str, Any]], policy: Policy
) -> None:
    version = add_adapter()
    registry.record_evaluation(version.digest, make_report() | {"policy": policy.to_dict()})
    assert registry.standing(version.digest).basis == "gate"
    registry.record_evaluation(version.digest, make_report(suite_low=-0.3) | {"policy": policy.to_dict()})
    standing = registry.standing(version.digest)
    assert not standing.proven
    assert "grammar" in standing.reasons[0]


def test_an_alias_counts_while_it_points_there(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, make_report: Callable[..., dict[str, Any]]
) -> None:
    first, second = passing("one"), passing("two")
    registry.promote(first.digest, "champion", policy=policy, actor="tester")
    registry.record_evaluation(first.digest, make_report(low=-0.1))
    assert registry.standing(first.digest).basis == "alias champion"
    registry.promote(second.digest, "champion", policy=policy, actor="tester")
    assert not registry.standing(first.digest).proven
