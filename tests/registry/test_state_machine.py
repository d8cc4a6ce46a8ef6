"""Any order of acts, kills, reopenings and refusals: the registry agrees with a model of it that has no database.

On SQLite 10,000 operations; more with `TUNEWRIGHT_TEST_OPERATIONS=100000 pytest tests/registry/test_state_machine.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
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
from sqlalchemy import event

from registry.entities import AuditEntry, Version
from registry.errors import (
    AliasConflict,
    GateRefused,
    RegistryError,
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
OPERATIONS = int(os.environ.get("TUNEWRIGHT_TEST_OPERATIONS", "10000"))
# An example is one registry; on PostgreSQL a database each.
STEPS = {"sqlite": 100, "postgresql": 25}
# Kills are SIGKILL, which loses nothing that was written: where it was written to doesn't matter, and memory is fast.
MEMORY = Path("/dev/shm")
_SIZES = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {table})"
    for table in ("versions", "version_parents", "evaluations", "alias_events", "version_events", "audit", "outbox")
)


def _report(passes: bool, tuned: int, salt: int) -> dict[str, Any]:
    delta = 0.2 if passes else 0.0
    task: dict[str, Any] = {"n": 128, "delta": delta, "low": delta - 0.05, "high": delta + 0.05, "salt": salt}
    task.update(metric="exact_match", tuned=tuned / 4, test_digest="t")
    return {"task": task, "tax": [{"suite": "a", "low": 0.0}]}


class RegistryMachine(RuleBasedStateMachine):
    """Keeps beside the registry what it should say: versions' verdict, score and state, the alias's steps."""

    operations = 0
    kills = 0

    def __init__(self, prepare: Callable[[Path], object], run_and_die: Callable[..., bool]) -> None:
        super().__init__()
        self.prepare = prepare
        self.run_and_die = run_and_die

    @initialize()
    def make(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.prepare(self.root / "registry")
        self.seen: tuple[int, ...] | None = None
        self.chain = (0, "0" * 64)
        self._open()
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
        for key in (0, 2):
            version = self.registry.register("m", self._manifest(key, 0), self._files(key))
            self._note_version(key, version)
            self._note_report(version, True, 2)

    def _open(self) -> None:
        self.registry = Registry.open(self.root / "registry")
        event.listen(self.registry._engine, "before_cursor_execute", self._look_at_insert)
        event.listen(self.registry._engine, "commit", self._look_at_commit)

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.registry._lookup.query(_SIZES, ())[0])

    def _look_at_insert(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """A reader beside the writer sees nothing of a transaction before its end."""
        if statement.startswith("INSERT"):
            if self.seen is None:
                self.seen = self._sizes()
            assert self._sizes() == self.seen

    def _look_at_commit(self, _connection: Any) -> None:
        if self.seen is not None:
            assert self._sizes() == self.seen
            self.seen = None

    def _files(self, key: int) -> dict[str, Path]:
        """Two keys have the base's content, and two another one."""
        content = (0, 0, 1, 1, 2, 3)[key]
        source = self.root / f"{content}.json"
        source.write_text(f'{{"layers": {content}}}')
        return {"config.json": source}

    @property
    def champion(self) -> int | None:
        return self.history[-1] if self.history else None

    def _manifest(self, key: int, seed: int) -> Manifest:
        return Manifest(
            kind="adapter",
            files=describe_files(self._files(key)),
            base_fingerprint=FINGERPRINT,
            parents=(Parent(self.base.digest, "base"),),
            content_key=str(key),
            seed=seed,
        )

    @rule(key=st.integers(0, 5), seed=st.integers(0, 2))
    def register(self, key: int, seed: int) -> None:
        self._note_version(key, self.registry.register("m", self._manifest(key, seed), self._files(key)))

    def _note_version(self, key: int, version: Version) -> None:
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

    @rule(data=st.data(), passes=st.booleans(), tuned=st.integers(1, 3))
    def evaluate(self, data: st.DataObject, passes: bool, tuned: int) -> None:
        self._note_report(data.draw(st.sampled_from(self.adapters)), passes, tuned)

    def _note_report(self, version: Version, passes: bool, tuned: int) -> None:
        self.reports += 1
        self.registry.record_evaluation(version.digest, _report(passes, tuned, self.reports))
        self.passes[version.version] = passes
        self.scores[version.version] = tuned

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

    @rule(which=st.sampled_from(["reopen", "retire_base", "demote", "demote"]))
    def do_what_is_rare(self, which: str) -> None:
        getattr(self, f"_{which}")()

    def _retire_base(self) -> None:
        """It is held by what was made from it, and is wanted again at once."""
        alive = [number for number, state in self.states.items() if state != "retired"]
        try:
            self.registry.retire("base", actor="a", reason="r")
        except VersionHeld:
            assert alive
        else:
            assert not alive
            self.registry.restore("base", actor="a", reason="r")

    def _demote(self) -> None:
        if self.champion is None:
            return
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

    def _reopen(self) -> None:
        self.registry.close()
        self._open()

    @rule(
        data=st.data(),
        act=st.sampled_from(["register", "evaluate", "promote", "rollback", "demote", "retire", "restore", "collect"]),
        deadly=st.integers(1, 18),
    )
    def die(self, data: st.DataObject, act: str, deadly: int) -> None:
        """A process is killed at one of the steps of an act; all of it was done, or nothing."""
        chosen = data.draw(st.sampled_from(self.adapters))
        key = data.draw(st.integers(0, 5))
        self.reports += 1
        report = _report(True, 1 + self.reports % 3, self.reports)
        acknowledged = self.root / "acknowledged"
        acknowledged.unlink(missing_ok=True)
        manifest, files = self._manifest(key, 0), self._files(key)

        def do() -> None:
            acts: dict[str, Callable[[Registry], object]] = {
                "register": lambda one: one.register("m", manifest, files),
                "evaluate": lambda one: one.record_evaluation(chosen.digest, report),
                "promote": lambda one: one.promote(chosen.digest, "champion", policy=POLICY, actor="a"),
                "rollback": lambda one: one.rollback("m", "champion", actor="a", reason="r"),
                "demote": lambda one: one.demote("m", "champion", actor="a", reason="r"),
                "retire": lambda one: one.retire(chosen.digest, actor="a", reason="r"),
                "restore": lambda one: one.restore(chosen.digest, actor="a", reason="r"),
                "collect": lambda one: one.collect(actor="a", grace_seconds=0.0),
            }
            with pytest.MonkeyPatch.context() as patch, Registry.open(self.root / "registry") as one:
                patch.setattr("registry.leases.LEASE_SECONDS", 0.0)  # what the dead leave has ended
                with suppress(RegistryError):
                    acts[act](one)
                    acknowledged.touch()

        before = self.chain[0]
        self.registry.close()  # nothing open goes through a fork
        type(self).kills += self.run_and_die(do, self.root / "registry", deadly)
        self._open()
        self._note_collected()
        told = self.registry.audit(after=before)
        assert len(told) <= 1
        if acknowledged.exists() and act in ("evaluate", "rollback", "demote"):
            assert told, "what was acknowledged is lost"
        for entry in told:
            self._note_entry(entry, chosen, key, report)
        if acknowledged.exists() and act == "promote":
            assert self.champion == chosen.version, "an acknowledged promotion is lost"

    def _note_entry(self, entry: AuditEntry, chosen: Version, key: int, report: dict[str, Any]) -> None:
        """Take over what the act came to, if it might."""
        number = chosen.version
        if entry.action in ("register", "restore") and entry.subject != chosen.label:
            self._note_version(key, self.registry.resolve(entry.subject))
        elif entry.action == "register":
            raise AssertionError(f"{entry.subject} was registered twice")
        elif entry.action == "evaluate":
            self.passes[number], self.scores[number] = True, round(4 * report["task"]["tuned"])
        elif entry.action == "promote":
            assert self.states[number] == "active"
            assert self.passes[number]
            assert not self._loses_to_champion(number)
            self.history.append(number)
        elif entry.action == "rollback":
            assert entry.payload["version"] in self.history[:-1]
            self.history.append(entry.payload["version"])
        elif entry.action == "demote":
            self.history.append(None)
        elif entry.action == "retire":
            assert number not in self.history
            self.states[number] = "retired"
        elif entry.action == "restore":
            self.states[number] = "active"
            self.collected.discard(number)
        else:
            assert entry.action in ("refuse", "collect")

    def _note_collected(self) -> None:
        here = {sha256 for sha256, _ in self.registry.blobs.stored()}
        for version in self.adapters:
            if self.states[version.version] == "retired" and not here.issuperset(
                version.manifest.file_digests.values()
            ):
                self.collected.add(version.version)

    @invariant()
    def tells_what_was_done(self) -> None:
        if not hasattr(self, "registry"):
            return
        type(self).operations += 1
        self.seen = self._sizes()
        assert self.seen[0] == self.seen[1] + 1, "a version without its parent"
        for entry in self.registry.audit(after=self.chain[0]):
            assert (entry.sequence, entry.previous_hash) == (self.chain[0] + 1, self.chain[1])
            self.chain = (entry.sequence, entry.hash)
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


@pytest.mark.timeout(300 + OPERATIONS // 5)  # busy cores, too
def test_registry_agrees_with_its_model(backend: Any, tmp_path: Path, run_and_die: Callable[..., bool]) -> None:
    prepare: Callable[[Path], object] = backend.prepare
    if backend.name == "sqlite":
        Registry.open(tmp_path / "template").close()

        def prepare(folder: Path) -> object:
            return shutil.copytree(tmp_path / "template", folder)

    class Machine(RegistryMachine):
        """Counts for itself."""

    wanted, steps = OPERATIONS if backend.name == "sqlite" else 200, STEPS[backend.name]
    while (left := wanted - Machine.operations) > 0:
        run_state_machine_as_test(
            lambda: Machine(prepare, run_and_die),
            settings=settings(
                max_examples=-(-left // steps),
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert Machine.kills > wanted // 200 or wanted < 1000  # of which one can't count on
