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
from registry.errors import AliasConflict, GateRefused, RollbackRefused
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

POLICY = Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)
FINGERPRINT = hashlib.sha256(b"base").hexdigest()


def _report(passes: bool, tuned: int, salt: int) -> dict[str, Any]:
    delta = 0.2 if passes else 0.0
    task: dict[str, Any] = {"n": 128, "delta": delta, "low": delta - 0.05, "high": delta + 0.05, "salt": salt}
    task.update(metric="exact_match", tuned=tuned / 4, test_digest="t")
    return {"task": task, "tax": [{"suite": "a", "low": 0.0}]}


class RegistryMachine(RuleBasedStateMachine):
    """Keeps beside the registry what it should say: per version the newest verdict and score, the alias's history."""

    def __init__(self, prepare: Callable[[Path], Path]) -> None:
        super().__init__()
        self.prepare = prepare

    @initialize()
    def make(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.registry = Registry.open(self.prepare(self.root / "registry"))
        self.source = self.root / "config.json"
        self.source.write_text("{}")
        self.files = describe_files({"config.json": self.source})
        base = Manifest(kind="base", files=self.files, base_fingerprint=FINGERPRINT)
        self.base = self.registry.register("base", base, {"config.json": self.source})
        self.adapters: list[Version] = []
        self.keys: dict[int, int] = {}
        self.passes: dict[int, bool] = {}
        self.scores: dict[int, int] = {}
        self.history: list[int] = []
        self.reports = 0

    @rule(key=st.integers(0, 5), seed=st.integers(0, 2))
    def register(self, key: int, seed: int) -> None:
        manifest = Manifest(
            kind="adapter",
            files=self.files,
            base_fingerprint=FINGERPRINT,
            parents=(Parent(self.base.digest, "base"),),
            content_key=str(key),
            seed=seed,
        )
        version = self.registry.register("m", manifest, {"config.json": self.source})
        if key in self.keys:
            assert version.version == self.keys[key]
        else:
            assert version.version == len(self.adapters) + 1
            self.keys[key] = version.version
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
        except GateRefused:
            assert not stale
            assert not self.passes.get(version.version, False) or self._loses_to_champion(version.version)
        else:
            assert not stale
            assert self.passes[version.version]
            assert not self._loses_to_champion(version.version)
            assert change.changed == (not self.history or self.history[-1] != version.version)
            if change.changed:
                self.history.append(version.version)

    def _loses_to_champion(self, number: int) -> bool:
        return bool(self.history) and self.scores[number] < self.scores[self.history[-1]]

    @precondition(lambda self: self.history)
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

    @precondition(lambda self: self.history)
    @rule()
    def rollback(self) -> None:
        try:
            change = self.registry.rollback("m", "champion", actor="a", reason="r")
        except RollbackRefused:
            return  # at the first version that it ever held
        assert change.version in self.history
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
        if self.history:
            assert self.registry.resolve("m@champion").version == self.history[-1]

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
            max_examples=15 if backend.name == "sqlite" else 8,  # a database each
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
