"""Deprecated, restored, retired, demoted: what works in each state, what is refused, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import (
    AliasConflict,
    AliasNotFound,
    BlobCorrupted,
    GateRefused,
    ReasonMissing,
    RollbackRefused,
    VersionDeprecated,
    VersionHeld,
    VersionRetired,
)
from registry.gate import Policy
from registry.lineage import trace
from registry.lookup import Lookup
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

Add = Callable[..., Version]
WHO: dict[str, Any] = {"actor": "ada", "reason": "no use"}


def _lose(registry: Registry, version: Version) -> None:
    """Take away what no other version has."""
    path = registry.blobs.local_path(version.manifest.files["model.safetensors"].sha256)
    assert path is not None
    path.unlink()


def _audited(registry: Registry) -> list[tuple[str, str]]:
    return [(entry.action, entry.subject) for entry in registry.audit()]


def test_deprecated_version_works_as_before_and_no_alias_takes_it(
    registry: Registry, passing: Add, policy: Policy
) -> None:
    version = passing("one")
    registry.promote(version.digest, "champion", policy=policy, actor="ada")
    change = registry.deprecate("text2sql:v1", actor="bob", reason="older data")
    assert (change.state, change.previous_state, change.changed) == ("deprecated", "active", True)
    assert registry.resolve("text2sql@champion") == version
    assert registry.checkout("text2sql@champion").is_dir()
    assert registry.standing("text2sql:v1").proven
    told = registry.status("text2sql@champion").warning("text2sql:v1")
    assert told is not None
    assert told.endswith("by bob: older data")
    for alias in ("champion", "candidate"):
        with pytest.raises(VersionDeprecated, match="older data"):
            registry.promote("text2sql:v1", alias, policy=policy, actor="ada")
        with pytest.raises(VersionDeprecated, match="no other version"):
            registry.promote("text2sql:v1", alias, policy=policy, actor="ada", dry_run=True)
    assert not registry.deprecate("text2sql:v1", **WHO).changed
    registry.restore("text2sql:v1", actor="ada", reason="it was right")
    assert registry.promote("text2sql:v1", "candidate", policy=policy, actor="ada").changed
    assert _audited(registry)[-3:] == [
        ("deprecate", "text2sql:v1"), ("restore", "text2sql:v1"), ("promote", "text2sql@candidate")
    ]  # fmt: skip
    assert [e.topic for e in registry.outbox()][-3:] == ["version.deprecate", "version.restore", "alias.promote"]
    assert registry.outbox()[-3].payload["reason"] == "older data"
    assert registry.verify().intact


def test_roll_back_to_a_deprecated_version_is_allowed(registry: Registry, passing: Add, policy: Policy) -> None:
    for key in ("one", "two"):
        registry.promote(passing(key).digest, "champion", policy=policy, actor="ada")
    registry.deprecate("text2sql:v1", **WHO)
    assert registry.rollback("text2sql", "champion", actor="ada", reason="v2 is broken").version == 1


def test_retired_version_is_used_by_nothing_and_stays_in_every_record(
    registry: Registry, passing: Add, add_base: Add, policy: Policy, tmp_path: Path
) -> None:
    version = passing("one")
    child = version.manifest
    registry.retire("text2sql", actor="bob", reason="a licence was withdrawn")
    assert registry.resolve("text2sql") == version
    assert registry.versions("text2sql") == [version]
    assert registry.evaluations("text2sql")
    assert not registry.standing("text2sql").proven
    for act in (
        lambda: registry.checkout("text2sql"),
        lambda: registry.checkout("text2sql", tmp_path / "out"),
        lambda: registry.promote("text2sql", "champion", policy=policy, actor="ada"),
        lambda: registry.deprecate("text2sql", **WHO),
    ):
        with pytest.raises(VersionRetired, match="retired"):
            act()
    assert not (tmp_path / "out").exists()
    assert not registry.retire("text2sql", **WHO).changed
    nodes = {node.label: node.state for node in trace(Lookup(registry.folder).query, version).nodes}
    assert (nodes["text2sql:v1"], nodes["tiny-base:v1"], nodes["train.jsonl"]) == ("retired", "active", None)
    assert registry.resolve("text2sql:v1").manifest == child
    assert registry.verify().intact
    _lose(registry, version)
    assert registry.verify().intact, "the bytes of a retired version may be gone"
    assert registry.verify("text2sql").intact


@pytest.mark.parametrize("moved_on", [False, True])
def test_what_an_alias_reaches_or_reached_is_not_retired(
    registry: Registry, passing: Add, policy: Policy, moved_on: bool
) -> None:
    registry.promote(passing("one").digest, "champion", policy=policy, actor="ada")
    if moved_on:
        registry.demote("text2sql", "champion", **WHO)
    says = "pointed at it before" if moved_on else "points at it"
    with pytest.raises(VersionHeld, match=f"text2sql@champion {says}"):
        registry.retire("text2sql:v1", **WHO)
    assert registry.status("text2sql:v1").state == "active"


def test_base_is_held_by_its_adapters_until_they_are_retired(registry: Registry, add_adapter: Add) -> None:
    one, two = add_adapter("one"), add_adapter("two")
    with pytest.raises(VersionHeld, match=r"text2sql:v1 was made from it; text2sql:v2 was made from it") as refused:
        registry.retire("tiny-base", **WHO)
    assert refused.value.exit_status == 4
    registry.retire(one.digest, **WHO)
    with pytest.raises(VersionHeld, match="text2sql:v2"):
        registry.retire("tiny-base", **WHO)
    registry.retire(two.digest, **WHO)
    assert registry.retire("tiny-base", **WHO).state == "retired"
    with pytest.raises(VersionRetired, match="tiny-base:v1, which is retired"):
        registry.restore(one.digest, **WHO)
    registry.restore("tiny-base", **WHO)
    assert registry.restore(one.digest, **WHO).state == "active"


def test_nothing_new_is_made_from_a_retired_parent(
    registry: Registry, add_base: Add, write_files: Callable[..., dict[str, Path]], fingerprints: tuple[str, str]
) -> None:
    base = add_base()
    registry.retire("tiny-base", **WHO)
    files = write_files("late")
    manifest = Manifest(
        kind="adapter",
        files=describe_files(files),
        base_fingerprint=fingerprints[0],
        parents=(Parent(base.digest, "base"),),
    )
    with pytest.raises(VersionRetired, match="can't be a parent"):
        registry.register("text2sql", manifest, files)
    assert registry.versions("text2sql") == []


def test_retired_version_is_restored_while_its_files_are_there_and_after_that_by_registering(
    registry: Registry, add_adapter: Add
) -> None:
    version = add_adapter("one")
    registry.retire("text2sql", **WHO)
    assert registry.restore("text2sql", **WHO).changed
    registry.retire("text2sql", **WHO)
    _lose(registry, version)
    with pytest.raises(VersionRetired, match="not all there any more"):
        registry.restore("text2sql", **WHO)
    assert add_adapter("one") == version
    status = registry.status("text2sql")
    assert (status.state, status.reason) == ("active", "registered again")
    assert registry.verify("text2sql").files == 2
    assert registry.verify().intact
    registry.deprecate("text2sql", **WHO)
    add_adapter("one")
    assert registry.status("text2sql").state == "deprecated", "registering again says nothing against that"


def test_lost_bytes_of_a_version_that_is_in_use_are_still_damage(registry: Registry, add_adapter: Add) -> None:
    version = add_adapter("one")
    registry.deprecate("text2sql", **WHO)
    _lose(registry, version)
    assert not registry.verify().intact
    with pytest.raises(BlobCorrupted):
        registry.checkout("text2sql")


@pytest.mark.parametrize("act", ["deprecate", "restore", "retire", "demote"])
@pytest.mark.parametrize("reason", ["", "  "])
def test_every_step_wants_a_reason(registry: Registry, add_adapter: Add, act: str, reason: str) -> None:
    add_adapter("one")
    before = registry.audit()
    arguments = ("text2sql", "champion") if act == "demote" else ("text2sql",)
    with pytest.raises(ReasonMissing, match="without a reason"):
        getattr(registry, act)(*arguments, actor="ada", reason=reason)
    assert registry.audit() == before


def test_demoted_alias_is_gone_its_history_stays_and_its_revisions_go_on(
    registry: Registry, passing: Add, policy: Policy
) -> None:
    for key in ("one", "two"):
        registry.promote(passing(key).digest, "champion", policy=policy, actor="ada")
    with pytest.raises(AliasConflict):
        registry.demote("text2sql", "champion", **WHO, expected_revision=1)
    change = registry.demote("text2sql", "champion", **WHO, expected_revision=2)
    assert (change.action, change.revision, change.current, change.previous) == ("demote", 3, None, "text2sql:v2")
    assert registry.aliases() == []
    assert registry.rolled_back_from("text2sql", "champion", registry.resolve("text2sql:v2").digest)
    for act in (
        lambda: registry.resolve("text2sql@champion"),
        lambda: registry.demote("text2sql", "champion", **WHO),
        lambda: registry.rollback("text2sql", "champion", **WHO),
    ):
        with pytest.raises(AliasNotFound):
            act()
    with pytest.raises(AliasConflict) as conflict:
        registry.promote("text2sql:v1", "champion", policy=policy, actor="ada", expected_revision=0)
    assert conflict.value.current_revision == registry.alias_revision("text2sql", "champion") == 3
    again = registry.promote("text2sql:v2", "champion", policy=policy, actor="ada", expected_revision=3)
    assert (again.revision, again.previous) == (4, None)
    assert [(s.action, s.version) for s in registry.history("text2sql", "champion")] == [
        ("promote", 1), ("promote", 2), ("demote", None), ("promote", 2)
    ]  # fmt: skip
    with pytest.raises(RollbackRefused, match="held nothing before"):
        registry.rollback("text2sql", "champion", **WHO)
    assert registry.rollback("text2sql", "champion", to="v1", **WHO).revision == 5
    assert _audited(registry)[-3:] == [
        ("demote", "text2sql@champion"), ("promote", "text2sql@champion"), ("rollback", "text2sql@champion")
    ]  # fmt: skip
    assert [e.payload["digest"] for e in registry.outbox() if e.topic == "alias.demote"] == [None]
    assert registry.verify().intact


def test_a_roll_back_goes_back_to_what_came_after_the_demotion_and_further_by_name_alone(
    registry: Registry, passing: Add, policy: Policy
) -> None:
    for key in ("one", "two", "three", "four"):
        registry.promote(passing(key).digest, "champion", policy=policy, actor="ada")
        if key == "two":
            registry.demote("text2sql", "champion", **WHO)
    assert registry.rollback("text2sql", "champion", **WHO).version == 3
    with pytest.raises(RollbackRefused, match="held nothing before v3 since it was taken away") as refused:
        registry.rollback("text2sql", "champion", **WHO)
    assert (refused.value.exit_status, refused.value.allowed) == (2, "v1, v2, v4")
    registry.deprecate("text2sql:v2", **WHO)
    assert registry.rollback("text2sql", "champion", to="v2", **WHO).version == 2


def test_gate_holds_a_first_version_against_nobody_after_a_demotion(
    registry: Registry, passing: Add, add_adapter: Add, policy: Policy
) -> None:
    registry.promote(passing("one").digest, "champion", policy=policy, actor="ada")
    registry.demote("text2sql", "champion", **WHO)
    with pytest.raises(GateRefused):
        registry.promote(add_adapter("unproven").digest, "champion", policy=policy, actor="ada")


@pytest.mark.parametrize(
    ("table", "row", "says"),
    [
        ("version_events", "9, 2, 'retire', 'eve', 'r', 't'", "needs it"),  # an alias points at it
        ("version_events", "9, 1, 'retire', 'eve', 'r', 't'", "needs it"),  # the base of v1
        ("version_events", "9, 1, 'restore', 'eve', 'r', 't'", "another state"),
        ("version_events", "9, 3, 'deprecate', 'eve', 'r', 't'", "another state"),
        ("version_events", "9, 3, 'delete', 'eve', 'r', 't'", "ck_version_events_action"),
        ("alias_events", "9, 'text2sql', 'candidate', 1, 3, 'promote', 'eve', NULL, NULL, NULL, 't'", "retired"),
        ("alias_events", "9, 'text2sql', 'candidate', 1, 3, 'rollback', 'eve', NULL, NULL, NULL, 't'", "retired"),
        ("alias_events", "9, 'text2sql', 'candidate', 1, 4, 'promote', 'eve', NULL, NULL, NULL, 't'", "deprecated"),
        ("alias_events", "9, 'text2sql', 'champion', 2, NULL, 'promote', 'eve', NULL, NULL, NULL, 't'", "demotion"),
        ("alias_events", "9, 'text2sql', 'champion', 2, 2, 'demote', 'eve', NULL, NULL, NULL, 't'", "demotion"),
        ("version_parents", "9, 4, 3, 'adapter', NULL", "the parent is retired"),
    ],
)
def test_no_client_of_the_database_gets_round_the_rules(
    registry: Registry, passing: Add, policy: Policy, backend: Any, table: str, row: str, says: str
) -> None:
    for key in ("one", "two", "three"):
        passing(key)
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    registry.retire("text2sql:v2", **WHO)
    registry.deprecate("text2sql:v3", **WHO)
    raw = backend.connect(registry.folder)
    with pytest.raises(raw.error, match=says):
        raw.execute(f"INSERT INTO {table} VALUES ({row})")
    for statement in ("UPDATE version_events SET reason = 'x'", "DELETE FROM version_events"):
        with pytest.raises(raw.error, match="version_events is insert-only"):
            raw.execute(statement)


@pytest.mark.parametrize("behind", ["added", "removed"])
def test_step_behind_the_registry_is_found(registry: Registry, add_adapter: Add, backend: Any, behind: str) -> None:
    add_adapter("one")
    registry.deprecate("text2sql", **WHO)
    raw = backend.connect(registry.folder)
    if behind == "added":
        raw.execute("INSERT INTO version_events VALUES (9, 2, 'restore', 'eve', 'r', 't')")
    else:
        raw.lift("version_events")
        raw.execute("DELETE FROM version_events")
    problems = [problem.problem for problem in registry.verify().problems]
    assert len(problems) == 1
    assert ("without its state row in the audit" if behind == "added" else "gone from the database") in problems[0]
