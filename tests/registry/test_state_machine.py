"""Any order of acts, reopenings and refusals: the registry agrees with a model of it that has no database."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from registry.entities import Version
from registry.errors import (
    AliasConflict,
    GateRefused,
    RollbackRefused,
    VersionDeprecated,
    VersionHeld,
    VersionRetired,
)
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.status import STATES
from registry.store import Registry

POLICY = Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)
FINGERPRINT = hashlib.sha256(b"base").hexdigest()


def _report(passes: bool, tuned: int, salt: int) -> dict[str, Any]:
    delta = 0.2 if passes else 0.0
    task: dict[str, Any] = {"n": 128, "delta": delta, "low": delta - 0.05, "high": delta + 0.05, "salt": salt}
    task.update(metric="exact_match", tuned=tuned / 4, test_digest="t")
    return {"task": task, "tax": [{"suite": "a", "low": 0.0}]}


class RegistryMachine(RuleBasedStateMachine):
    """Keeps beside the registry what it should say: versions' verdict, score and state, the alias's steps."""

    def __init__(self, prepare: Callable[[Path], Path]) -> None:
        super().__init__()
        self.prepare = prepare

    @initialize()
    def make(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.registry = Registry.open(self.prepare(self.root / "registry"))
        self.base = self.registry.register(
            "base", Manifest(kind="base", files=describe_files(self._files(0)), base_fingerprint=FINGERPRINT),
            self._files(0),
        )  # fmt: skip
        self.adapters: list[Version] = []
        self.keys: dict[int, int] = {}
        self.passes: dict[int, bool] = {}
        self.scores: dict[int, int] = {}
        # None: the alias was taken away
        self.history: list[int | None] = []
        self.states: dict[int, str] = {}
        self.collected: set[int] = set()
        self.reports = 0

    def _files(self, key: int) -> dict[str, Path]:
        """Two keys have the base's content, and two another one."""
        content = (0, 0, 1, 1, 2, 3)[key]
        source = self.root / f"{content}.json"
        source.write_text(f'{{"layers": {content}}}')
        return {"config.json": source}

    @property
    def champion(self) -> int | None:
        return self.history[-1] if self.history else None

    @rule(key=st.integers(0, 5), seed=st.integers(0, 2))
    def register(self, key: int, seed: int) -> None:
        manifest = Manifest(
            kind="adapter",
            files=describe_files(self._files(key)),
            base_fingerprint=FINGERPRINT,
            parents=(Parent(self.base.digest, "base"),),
            content_key=str(key),
            seed=seed,
        )
        version = self.registry.register("m", manifest, self._files(key))
        if key in self.keys:
            assert version.version == self.keys[key]
            if self.states[version.version] == "retired":
                self.states[version.version] = "active"
                self.collected.discard(version.version)
        else:
            assert version.version == len(self.adapters) + 1
            self.keys[key] = version.version
            self.states[version.version] = "active"
            self.adapters.append(version)

    @precondition(lambda self: self.adapters)
    @rule(data=st.data(), passes=st.booleans(), tuned=st.integers(1, 3))
    def evaluate(self, data: st.DataObject, passes: bool, tuned: int) -> None:
        version = data.draw(st.sampled_from(self.adapters))
        self.reports += 1
        self.registry.record_evaluation(version.digest, _report(passes, tuned, self.reports))
        self.passes[version.version] = passes
        self.scores[version.version] = tuned

    @precondition(lambda self: self.adapters)
    @rule(data=st.data(), expected=st.none() | st.integers(0, 4))
    def promote(self, data: st.DataObject, expected: int | None) -> None:
        version = data.draw(st.sampled_from(self.adapters))
        stale = expected is not None and expected != len(self.history)
        try:
            change = self.registry.promote(
                f"m:v{version.version}", "champion", policy=POLICY, actor="a", expected_revision=expected
            )
        except AliasConflict:
            assert stale
        except (VersionDeprecated, VersionRetired):
            assert not stale
            assert self.states[version.version] != "active"
        except GateRefused:
            assert not stale
            assert not self.passes.get(version.version, False) or self._loses_to_champion(version.version)
        else:
            assert not stale
            assert self.states[version.version] == "active"
            assert self.passes[version.version]
            assert not self._loses_to_champion(version.version)
            assert change.changed == (self.champion != version.version)
            if change.changed:
                self.history.append(version.version)

    def _loses_to_champion(self, number: int) -> bool:
        return self.champion is not None and self.scores[number] < self.scores[self.champion]

    @precondition(lambda self: self.adapters)
    @rule(data=st.data(), action=st.sampled_from(["deprecate", "restore", "retire", "retire"]))
    def change_state(self, data: st.DataObject, action: str) -> None:
        version = data.draw(st.sampled_from(self.adapters))
        before = self.states[version.version]
        after = STATES[action]
        try:
            change = getattr(self.registry, action)(f"m:v{version.version}", actor="a", reason="r")
        except VersionHeld:
            assert action == "retire"
            assert version.version in self.history
        except VersionRetired:
            assert before == "retired"
            assert action == "deprecate" or (action == "restore" and version.version in self.collected)
        else:
            assert (change.previous_state, change.state, change.changed) == (before, after, before != after)
            if after == "retired":
                assert version.version not in self.history
            self.states[version.version] = after
            if action == "restore":
                self.collected.discard(version.version)

    @rule()
    def retire_base(self) -> None:
        """It is held by what was made from it, and is wanted again at once."""
        alive = [number for number, state in self.states.items() if state != "retired"]
        try:
            self.registry.retire("base", actor="a", reason="r")
        except VersionHeld:
            assert alive
        else:
            assert not alive
            self.registry.restore("base", actor="a", reason="r")

    @precondition(lambda self: self.champion is not None)
    @rule()
    def demote(self) -> None:
        change = self.registry.demote("m", "champion", actor="a", reason="r")
        self.history.append(None)
        assert change.revision == len(self.history)

    @rule(grace=st.sampled_from([0.0, 0.0, 0.0, 3600.0]), dry=st.sampled_from([False, False, False, True]))
    def collect(self, grace: float, dry: bool) -> None:
        here = {sha256 for sha256, _ in self.registry.blobs.stored()}
        garbage = here - self._needed()
        found = self.registry.collect(actor="a", grace_seconds=grace, dry_run=dry)
        assert found.blobs == (0 if grace else len(garbage))
        assert found.kept == (len(garbage) if grace else 0)
        if not grace and not dry:
            left = {sha256 for sha256, _ in self.registry.blobs.stored()}
            assert left == here - garbage
            self.collected |= {
                v.version
                for v in self.adapters
                if self.states[v.version] == "retired" and not left.issuperset(v.manifest.file_digests.values())
            }

    def _needed(self) -> set[str]:
        """Every blob of a version that isn't retired, or that the alias's history reaches."""
        alive = [v for v in self.adapters if self.states[v.version] != "retired" or v.version in self.history]
        return {sha256 for v in (self.base, *alive) for sha256 in v.manifest.file_digests.values()}

    @precondition(lambda self: self.champion is not None)
    @rule(data=st.data())
    def rollback_to(self, data: st.DataObject) -> None:
        to = data.draw(st.sampled_from([a.version for a in self.adapters]))
        try:
            self.registry.rollback("m", "champion", to=to, actor="a", reason="r")
        except RollbackRefused:
            assert to not in self.history or to == self.history[-1]
        else:
            assert to in self.history[:-1]
            self.history.append(to)

    @precondition(lambda self: self.champion is not None)
    @rule()
    def rollback(self) -> None:
        since = len(self.history) - 1
        while since > 0 and self.history[since - 1] is not None:
            since -= 1
        try:
            change = self.registry.rollback("m", "champion", actor="a", reason="r")
        except RollbackRefused:
            return  # at the first version that it held since it was last taken away
        assert change.version in self.history[since:], "it went back behind a demotion"
        assert change.version != self.history[-1]
        self.history.append(change.version)

    @rule()
    def reopen(self) -> None:
        self.registry.close()
        self.registry = Registry.open(self.root / "registry")

    @invariant()
    def tells_what_was_done(self) -> None:
        if not hasattr(self, "registry"):
            return
        assert self.registry.versions("m") == self.adapters
        steps = self.registry.history("m", "champion")
        assert [s.version for s in steps] == self.history
        assert [s.revision for s in steps] == list(range(1, len(steps) + 1))
        if self.champion is None:
            assert self.registry.aliases("m") == []
        else:
            assert self.registry.resolve("m@champion").version == self.champion
        statuses = self.registry.statuses("m")
        assert {v.version: statuses[v.digest].state for v in self.adapters} == self.states
        assert self._needed() <= {sha256 for sha256, _ in self.registry.blobs.stored()}

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            found = self.registry.verify()
            self.registry.close()
            shutil.rmtree(self.root)
            assert found.intact, found.problems


def test_registry_agrees_with_its_model(backend: Any) -> None:
    run_state_machine_as_test(
        lambda: RegistryMachine(backend.prepare),
        settings=settings(
            max_examples=18 if backend.name == "sqlite" else 8,  # a database each
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
