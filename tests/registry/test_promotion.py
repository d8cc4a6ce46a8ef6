"""Aliases: the gate in the transaction, compare-and-swap, roll-back along the alias's own history, the audit trail."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry import moving
from registry.entities import Version
from registry.errors import (
    AliasConflict,
    AliasNotFound,
    BlobCorrupted,
    GateRefused,
    PolicyInvalid,
    ReferenceInvalid,
    RollbackRefused,
    VersionRetired,
)
from registry.gate import Policy
from registry.store import Registry

Add = Callable[..., Version]


def test_promotion_moves_the_alias_and_leaves_one_row_of_each(registry: Registry, passing: Add, policy: Policy) -> None:
    version = passing("one")
    change = registry.promote("text2sql", "champion", policy=policy, actor="ada", reason="better")
    assert (change.current, change.previous, change.revision, change.changed) == ("text2sql:v1", None, 1, True)
    assert registry.resolve("text2sql@champion") == version
    row = registry.audit()[-1]
    assert (row.actor, row.action, row.subject) == ("ada", "promote", "text2sql@champion")
    assert row.payload["digest"] == version.digest
    assert row.payload["gate"]["policy"] == policy.to_dict()
    assert [e.topic for e in registry.outbox()][-1] == "alias.promote"


def test_gate_refusal_lists_every_reason_and_leaves_the_champion(
    registry: Registry, passing: Add, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    champion = passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    worse = add_adapter("two")
    registry.record_evaluation(worse.digest, make_report(0.01, low=-0.1, rows=5, suite_low=-0.3))
    outbox = registry.outbox()
    with pytest.raises(GateRefused) as refusal:
        registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert len(refusal.value.reasons) == 5
    assert refusal.value.gate is not None
    assert refusal.value.gate.reasons == refusal.value.reasons
    assert refusal.value.exit_status == 3
    assert registry.resolve("text2sql@champion") == champion
    assert registry.outbox() == outbox
    assert registry.audit()[-1].action == "refuse"


def test_version_without_an_evaluation_is_refused(registry: Registry, add_adapter: Add, policy: Policy) -> None:
    add_adapter()
    with pytest.raises(GateRefused, match="exactly this digest"):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")


def test_only_the_newest_evaluation_counts(registry: Registry, passing: Add, make_report: Any, policy: Policy) -> None:
    version = passing("one")
    registry.record_evaluation(version.digest, make_report(0.0, low=-0.1))
    with pytest.raises(GateRefused):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")
    registry.record_evaluation(version.digest, make_report())
    assert registry.promote("text2sql", "champion", policy=policy, actor="ada").changed


def test_base_passes_without_a_report_only_if_the_policy_says_so(
    registry: Registry, add_base: Add, policy: Policy
) -> None:
    add_base()
    with pytest.raises(GateRefused):
        registry.promote("tiny-base", "champion", policy=policy, actor="ada")
    free = Policy(require_evaluation=False)
    assert registry.promote("tiny-base", "champion", policy=free, actor="ada").revision == 1


@pytest.mark.parametrize("reported", [False, True], ids=["nothing", "no task"])
def test_no_policy_lets_what_was_trained_pass_unmeasured(
    registry: Registry, add_adapter: Add, make_report: Any, reported: bool
) -> None:
    version = add_adapter()
    if reported:
        registry.record_evaluation(version.digest, {**make_report(), "task": None})
    free = Policy(require_evaluation=False, min_suites=0, max_champion_loss=None)
    with pytest.raises(GateRefused, match="which a policy can't do without for one of kind adapter"):
        registry.promote("text2sql", "champion", policy=free, actor="ada")
    assert registry.aliases("text2sql") == []


def test_expected_revision_that_is_stale_names_the_current_one(
    registry: Registry, passing: Add, policy: Policy
) -> None:
    passing("one"), passing("two")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada", expected_revision=0)
    with pytest.raises(AliasConflict, match="revision 1") as conflict:
        registry.promote("text2sql:v2", "champion", policy=policy, actor="bob", expected_revision=0)
    assert conflict.value.current_revision == 1
    assert registry.promote("text2sql:v2", "champion", policy=policy, actor="bob", expected_revision=1).revision == 2


def test_promoting_what_is_there_changes_nothing(registry: Registry, passing: Add, policy: Policy) -> None:
    passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="ada")
    rows = len(registry.audit())
    again = registry.promote("text2sql", "champion", policy=policy, actor="ada")
    assert (again.changed, again.revision, len(registry.audit())) == (False, 1, rows)


def test_dry_run_says_what_is_missing_and_writes_nothing(
    registry: Registry, passing: Add, add_adapter: Add, policy: Policy
) -> None:
    passing("one"), add_adapter("two")
    rows = registry.audit()
    would = registry.promote("text2sql:v1", "champion", policy=policy, actor="ada", dry_run=True)
    would_not = registry.promote("text2sql:v2", "champion", policy=policy, actor="ada", dry_run=True)
    assert (would.changed, would_not.changed) == (True, False)
    assert would.gate is not None
    assert would_not.gate is not None
    assert (would.gate.passed, would_not.gate.passed, would.dry_run) == (True, False, True)
    assert (registry.aliases("text2sql"), registry.audit()) == ([], rows)


@pytest.mark.parametrize("alias", ["", "Champion", "v1", "latest", "a b", "x" * 65])
def test_misleading_alias_is_refused(registry: Registry, passing: Add, policy: Policy, alias: str) -> None:
    passing("one")
    with pytest.raises(ReferenceInvalid):
        registry.promote("text2sql", alias, policy=policy, actor="ada")


def test_version_whose_bytes_are_gone_cannot_be_promoted(registry: Registry, passing: Add, policy: Policy) -> None:
    version = passing("one")
    path = registry.blobs.local_path(version.manifest.files["model.safetensors"].sha256)
    assert path is not None
    path.unlink()
    with pytest.raises(BlobCorrupted, match="is gone"):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")
    assert registry.aliases() == []


def test_rollbacks_walk_back_through_what_was_promoted(registry: Registry, passing: Add, policy: Policy) -> None:
    for number, key in enumerate(("one", "two", "three"), start=1):
        passing(key)
        registry.promote(f"text2sql:v{number}", "champion", policy=policy, actor="ada")
    back = [registry.rollback("text2sql", "champion", actor="bob", reason="worse").current for _ in range(2)]
    assert back == ["text2sql:v2", "text2sql:v1"]
    with pytest.raises(RollbackRefused, match="nothing before v1\\n"):
        registry.rollback("text2sql", "champion", actor="bob", reason="worse")
    forward = registry.rollback("text2sql", "champion", to="3", actor="bob", reason="it was the network")
    assert (forward.current, forward.revision) == ("text2sql:v3", 6)
    history = registry.history("text2sql", "champion")
    assert [(h.revision, h.version, h.action) for h in history] == [
        (1, 1, "promote"), (2, 2, "promote"), (3, 3, "promote"),
        (4, 2, "rollback"), (5, 1, "rollback"), (6, 3, "rollback"),
    ]  # fmt: skip
    assert [h.previous_version for h in history] == [None, 1, 2, 3, 2, 1]


def test_rollback_needs_a_reason_and_a_version_that_held_the_alias(
    registry: Registry, passing: Add, add_adapter: Add, policy: Policy
) -> None:
    passing("one"), passing("two"), add_adapter("unproven")
    with pytest.raises(AliasNotFound):
        registry.rollback("text2sql", "champion", actor="bob", reason="worse")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    for to, reason in [(None, " "), ("v3", "try"), ("text2sql:v3", "try"), (2, "stay"), ("tiny-base", "other model")]:
        with pytest.raises(RollbackRefused):
            registry.rollback("text2sql", "champion", to=to, actor="bob", reason=reason)
    with pytest.raises(AliasConflict):
        registry.rollback("text2sql", "champion", actor="bob", reason="worse", expected_revision=1)
    registry.rollback("text2sql", "champion", actor="bob", reason="worse", expected_revision=2)
    assert registry.audit()[-1].payload["reason"] == "worse"


def test_challenger_worse_than_the_present_champion_is_refused_and_the_rows_say_why(
    registry: Registry, passing: Add, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    champion = passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    worse = add_adapter("two")
    registry.record_evaluation(worse.digest, make_report(0.15))  # passes by itself, lies below the champion
    assert registry.check_gate("text2sql:v2", policy).passed
    assert not registry.check_gate("text2sql:v2", policy, "champion").passed
    with pytest.raises(GateRefused, match=r"score is 25\.0 %, that of text2sql:v1 is 30\.0 %"):
        registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    refusal = registry.audit()[-1].payload
    assert (refusal["digest"], refusal["previous_digest"]) == (worse.digest, champion.digest)
    assert refusal["gate"]["champion_evaluation"] == registry.evaluations("text2sql:v1")[0].digest
    lenient = Policy(max_champion_loss=0.05)
    assert registry.promote("text2sql:v2", "champion", policy=lenient, actor="ada").changed
    gate = registry.audit()[-1].payload["gate"]
    (check,) = [c for c in gate["checks"] if c["name"] == "champion"]
    assert (check["passed"], check["value"], check["bound"]) == (True, 0.25, pytest.approx(0.25))
    # the other way round: what an alias holds is what counts, not what was good once
    assert registry.promote("text2sql:v1", "champion", policy=policy, actor="ada").changed


def test_champion_is_judged_by_its_newest_evaluation_and_only_where_the_alias_points(
    registry: Registry, passing: Add, make_report: Any, policy: Policy
) -> None:
    champion, _ = passing("one"), passing("two")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    registry.record_evaluation(champion.digest, make_report(0.6))
    assert not registry.check_gate("text2sql:v2", policy, "champion").passed
    assert registry.check_gate("text2sql:v2", policy, "candidate").passed
    assert registry.check_gate("text2sql:v1", policy, "champion").passed  # not held against itself
    registry.record_evaluation(champion.digest, make_report(0.1))
    assert registry.promote("text2sql:v2", "champion", policy=policy, actor="ada").changed


def test_champion_measured_otherwise_is_no_bar_unless_the_policy_requires_the_comparison(
    registry: Registry, passing: Add, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    report = make_report(0.15)
    report["task"]["test_digest"] = "a" * 64
    registry.record_evaluation(add_adapter("two").digest, report)
    strict = Policy(require_champion_comparison=True)
    with pytest.raises(GateRefused, match="could not be compared with text2sql:v1"):
        registry.promote("text2sql:v2", "champion", policy=strict, actor="ada")
    assert registry.promote("text2sql:v1", "champion", policy=strict, actor="ada").changed is False
    change = registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert change.gate is not None
    assert "could not be compared" in str(change.gate.checks[-1].reason)


def test_champion_counts_by_its_report_on_the_same_test_whatever_was_measured_last(
    registry: Registry, passing: Add, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    champion = passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")

    def on(test: str, delta: float) -> dict[str, Any]:
        report: dict[str, Any] = make_report(delta)
        report["task"]["test_digest"] = test * 64
        return report

    registry.record_evaluation(champion.digest, on("a", 0.6))
    # another recipe measures the champion on its own test
    registry.record_evaluation(champion.digest, on("b", 0.1))
    registry.record_evaluation(add_adapter("two").digest, on("a", 0.3))
    with pytest.raises(GateRefused, match="that of text2sql:v1 is 70"):
        registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")


def test_rollback_to_a_worse_version_asks_for_no_comparison(
    registry: Registry, passing: Add, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    passing("one")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    registry.record_evaluation(add_adapter("two").digest, make_report(0.5))
    registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert registry.rollback("text2sql", "champion", actor="bob", reason="slow").current == "text2sql:v1"
    assert registry.audit()[-1].payload["gate"] is None


def test_policy_that_nobody_gives_is_the_newest_reports_and_the_audit_says_whose_it_was(
    registry: Registry, passing: Add, make_report: Any, policy: Policy
) -> None:
    version = passing("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": {"min_task_delta": 0.9}})
    with pytest.raises(GateRefused, match=r"asks for 90\.0 points"):
        registry.promote("text2sql", "champion", actor="ada")
    assert not registry.check_gate("text2sql").passed
    gate = registry.audit()[-1].payload["gate"]
    assert (gate["policy_from"], gate["policy"]["min_task_delta"]) == ("evaluation", 0.9)
    registry.promote("text2sql", "candidate", policy=policy, actor="ada")
    assert registry.audit()[-1].payload["gate"]["policy_from"] == "caller"
    registry.record_evaluation(version.digest, make_report())
    registry.promote("text2sql", "champion", actor="ada")
    gate = registry.audit()[-1].payload["gate"]
    assert (gate["policy_from"], gate["policy"]) == ("defaults", Policy().to_dict())


@pytest.mark.usefixtures("any_report")
def test_recorded_policy_that_is_none_stops_the_promotion(
    registry: Registry, passing: Add, make_report: Any, policy: Policy
) -> None:
    version = passing("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": {"min_rowz": 1}})
    with pytest.raises(PolicyInvalid, match="min_rows"):
        registry.promote("text2sql", "champion", actor="ada")
    assert registry.aliases() == []
    assert registry.promote("text2sql", "champion", policy=policy, actor="ada").changed


def test_rolled_back_from_is_told_until_the_alias_moves_again(registry: Registry, passing: Add, policy: Policy) -> None:
    first, second = passing("one"), passing("two")
    told = registry.rolled_back_from
    assert not told("text2sql", "champion", first.digest)
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert not told("text2sql", "champion", first.digest)  # replaced, not rolled back
    registry.rollback("text2sql", "champion", actor="bob", reason="worse")
    assert told("text2sql", "champion", second.digest)
    assert not told("text2sql", "champion", first.digest)
    assert not told("text2sql", "candidate", second.digest)
    registry.promote("text2sql:v2", "champion", policy=policy, actor="ada")
    assert not told("text2sql", "champion", second.digest)


def _race(folder: Path, ref: str, policy: Policy, barrier: Any, results: Any) -> None:
    with Registry.open(folder) as mine:
        barrier.wait(30)
        try:
            change = mine.promote(ref, "champion", policy=policy, actor=ref, expected_revision=1)
            results.put(("won", change.revision))
        except AliasConflict as conflict:
            results.put(("lost", conflict.current_revision))


def test_of_processes_that_promote_at_once_exactly_one_wins(registry: Registry, passing: Add, policy: Policy) -> None:
    refs = [f"text2sql:v{passing(str(number)).version}" for number in range(5)]
    registry.promote(refs[0], "champion", policy=policy, actor="ada")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(refs) - 1), context.Queue()
    racers = [context.Process(target=_race, args=(registry.folder, r, policy, barrier, results)) for r in refs[1:]]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(60)
    assert sorted(outcomes) == [("lost", 2), ("lost", 2), ("lost", 2), ("won", 2)]
    assert len(registry.history("text2sql", "champion")) == 2
    assert registry.verify().intact


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bytes count as ones that are asked for over a network."""
    monkeypatch.setattr(moving.Moving, "_has_far_bytes", True)


@pytest.mark.parametrize("are_far", [False, True])
def test_bytes_that_are_far_are_looked_for_before_the_write_lock_is_taken(
    registry: Registry, passing: Add, policy: Policy, monkeypatch: pytest.MonkeyPatch, are_far: bool
) -> None:
    monkeypatch.setattr(moving.Moving, "_has_far_bytes", are_far)
    size, locked, looks = registry.blobs.size, [False], []
    writing = moving.writing

    @contextmanager
    def watched(*arguments: Any) -> Iterator[Any]:
        with writing(*arguments) as writer:
            locked.append(True)
            yield writer
        locked.append(False)

    monkeypatch.setattr(moving, "writing", watched)
    passing("one"), passing("two")
    monkeypatch.setattr(registry.blobs, "size", lambda sha256: (looks.append(locked[-1]), size(sha256))[1])
    for ref in ("text2sql:v1", "text2sql:v2"):
        registry.promote(ref, "champion", policy=policy, actor="ada")
    registry.rollback("text2sql", "champion", actor="ada", reason="slow")
    if not are_far and registry._engine.dialect.name == "postgresql":
        assert looks == [True] * 4 + [False] * 2  # a roll-back's target is looked up over the network
    else:
        assert looks == [not are_far] * 6  # two files a version
    assert True in locked


@pytest.mark.usefixtures("far")
def test_another_version_than_was_looked_at_is_looked_at_under_the_lock(
    registry: Registry, passing: Add, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing("one")
    look = registry._look_at_bytes

    def look_and_lose(version: Version) -> Any:
        found = look(version)
        newer = passing("two")
        path = registry.blobs.local_path(newer.manifest.files["model.safetensors"].sha256)
        assert path is not None
        path.unlink()
        return found

    monkeypatch.setattr(registry, "_look_at_bytes", look_and_lose)
    with pytest.raises(BlobCorrupted, match="text2sql:v2"):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")
    assert registry.aliases() == []


@pytest.mark.usefixtures("far")
def test_bytes_that_a_collection_takes_between_the_look_and_the_lock_promote_nothing(
    registry: Registry, passing: Add, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = passing("one")
    look = registry._look_at_bytes

    def look_and_lose(one: Version) -> Any:
        found = look(one)
        registry.retire(version.label, actor="ada", reason="r")
        assert registry.collect(actor="ada", grace_seconds=0).blobs
        return found

    monkeypatch.setattr(registry, "_look_at_bytes", look_and_lose)
    with pytest.raises(VersionRetired):
        registry.promote(version.label, "champion", policy=policy, actor="ada")
    assert registry.aliases() == []


@pytest.mark.usefixtures("far")
def test_bytes_that_are_put_back_between_the_look_and_the_lock_are_there(
    registry: Registry, passing: Add, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = passing("one")
    path = registry.blobs.local_path(version.manifest.files["model.safetensors"].sha256)
    assert path is not None
    kept = path.read_bytes()
    path.unlink()
    look = registry._look_at_bytes

    def look_and_put_back(one: Version) -> Any:
        found = look(one)
        path.write_bytes(kept)
        return found

    monkeypatch.setattr(registry, "_look_at_bytes", look_and_put_back)
    registry.promote(version.label, "champion", policy=policy, actor="ada")
    assert registry.resolve("text2sql@champion") == version
    assert registry.verify().intact
