"""A registry beside its model: made, watched inside its transactions, and held against the model after each act."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from registry.entities import Version
from registry.errors import RegistryError
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry
from registry.writer import Writer
from tests.registry.machine.mirrored import RecordingTarget
from tests.registry.machine.model import POLICIES, REGISTRANT, Model, Refusal, Report

FINGERPRINT = hashlib.sha256(b"base").hexdigest()
# Kills are SIGKILL, which loses nothing that was written: where it was written to doesn't matter, and memory is fast.
MEMORY = Path("/dev/shm")
_SIZES = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {table})"
    for table in ("versions", "version_parents", "evaluations", "alias_events", "version_events", "protections",
                  "approvals", "audit", "outbox")
)  # fmt: skip
# Two keys have the base's content, and two another one.
CONTENTS = (0, 0, 1, 1, 2, 3)


def report(passes: bool, tuned: int, asks: int | None, salt: int) -> dict[str, Any]:
    delta = 0.2 if passes else 0.0
    task: dict[str, Any] = {"n": 128, "delta": delta, "low": delta - 0.05, "high": delta + 0.05, "salt": salt}
    task.update(metric="exact_match", tuned=tuned / 4, test_digest="t")
    found: dict[str, Any] = {"task": task, "tax": [{"suite": "a", "low": 0.0}]}
    return found if asks is None else {**found, "policy": POLICIES["given", asks].to_dict()}


class Watched(RuleBasedStateMachine):
    """Its subclasses have the rules: what is done, and what the model says of it."""

    tally: ClassVar[Counter[str]]

    def __init__(self, prepare: Callable[[Path], object], run_and_die: Callable[..., bool]) -> None:
        super().__init__()
        self.prepare = prepare
        self.run_and_die = run_and_die

    @initialize()
    def make(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.prepare(self.root / "registry")
        self.sources = [self.root / f"{content}.json" for content in range(4)]
        for content, source in enumerate(self.sources):
            source.write_text(f'{{"layers": {content}}}')
        self.described = [describe_files({"config.json": source}) for source in self.sources]
        self.manifests: dict[tuple[int, int], Manifest] = {}
        self.target = RecordingTarget(self.root / "registry" / "told")
        self.model = Model()
        self.seen: tuple[int, ...] | None = None
        self.watching = True
        self._watch_inserts()
        self.chain = (0, "0" * 64)
        self.salt = 0
        self.open()
        base = Manifest(kind="base", files=self.described[0], base_fingerprint=FINGERPRINT)
        self.base = self.registry.register("base", base, self.files(0), actor=REGISTRANT)
        self.adapters: list[Version] = []
        for key in (0, 2):
            version = self.registry.register("m", self.manifest(key, 0), self.files(key), actor=REGISTRANT)
            self.note_version(key, version)
            self.evaluate_as(version, True, 2, None)

    def open(self) -> None:
        self.registry = Registry.open(self.root / "registry")

    def sizes(self) -> tuple[int, ...]:
        return tuple(self.registry._lookup.query(_SIZES, ())[0])

    def _watch_inserts(self) -> None:
        insert, end = Writer._insert, Writer.end

        def look_and_insert(writer: Writer, *arguments: Any, **options: Any) -> Any:
            self._look_at_insert()
            return insert(writer, *arguments, **options)

        def look_and_end(writer: Writer) -> None:
            self._look_at_commit()
            end(writer)

        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Writer, "_insert", look_and_insert)
        self.patch.setattr(Writer, "end", look_and_end)

    def _look_at_insert(self) -> None:
        """A reader beside the writer sees nothing of a transaction before its end."""
        if self.watching:
            if self.seen is None:
                self.seen = self.sizes()
            assert self.sizes() == self.seen

    def _look_at_commit(self) -> None:
        if self.watching and self.seen is not None:
            assert self.sizes() == self.seen
            self.seen = None

    def files(self, key: int) -> dict[str, Path]:
        return {"config.json": self.sources[CONTENTS[key]]}

    def manifest(self, key: int, seed: int) -> Manifest:
        if (key, seed) not in self.manifests:
            self.manifests[key, seed] = Manifest(
                kind="adapter",
                files=self.described[CONTENTS[key]],
                base_fingerprint=FINGERPRINT,
                parents=(Parent(self.base.digest, "base"),),
                content_key=str(key),
                seed=seed,
            )
        return self.manifests[key, seed]

    def note_version(self, key: int, version: Version) -> None:
        if self.model.register(key, version.version):
            self.adapters.append(version)

    def evaluate_as(self, version: Version, passes: bool, tuned: int, asks: int | None) -> None:
        self.salt += 1
        found = self.registry.record_evaluation(version.digest, report(passes, tuned, asks, self.salt))
        self.model.reports[version.version].append(Report(self.salt, found.digest, passes, tuned, asks))

    def choose(self, data: st.DataObject, wanted: list[Version] | None = None) -> Version:
        """Draw a version; every other time one of those that are wanted, if there are any."""
        return data.draw(st.sampled_from(wanted if wanted and data.draw(st.booleans()) else self.adapters))

    def approved(self, act: str) -> list[Version]:
        """The versions of which somebody has approved something."""
        found = {matter.version for matter, _ in self.model.standing if matter.act == act}
        return [version for version in self.adapters if version.version in found]

    def promotable(self) -> list[Version]:
        """The versions that the gate would take, approvals apart."""
        model = self.model
        return [v for v in self.adapters if model.champion != v.version and model.refused_by_gate(v.version) is None]

    @staticmethod
    def tried(act: Callable[[], Any]) -> tuple[Any, Refusal | None]:
        """What an act came to, and how it was refused."""
        try:
            return act(), None
        except RegistryError as error:
            return error, type(error)

    def stored(self) -> set[str]:
        """What lies among the blobs, as the disk has it."""
        found: set[str] = set()
        for _, _, names in os.walk(self.root / "registry" / "blobs" / "sha256"):
            found.update(names)
        return found

    def needed(self) -> set[str]:
        """Every blob of a version that isn't retired, or that the alias's history reaches."""
        held = set(self.model.history)
        alive = [v for v in self.adapters if self.model.states[v.version] != "retired" or v.version in held]
        return {sha256 for v in (self.base, *alive) for sha256 in v.manifest.file_digests.values()}

    @invariant()
    def tells_what_was_done(self) -> None:
        if not hasattr(self, "registry"):
            return
        self.tally["operations"] += 1
        model, registry = self.model, self.registry
        sizes = self.sizes()
        assert sizes[0] == sizes[1] + 1, "a version without its parent"
        for entry in registry.audit(after=self.chain[0]):
            assert (entry.sequence, entry.previous_hash) == (self.chain[0] + 1, self.chain[1])
            self.chain = (entry.sequence, entry.hash)
        assert registry.versions("m") == self.adapters
        steps = registry.history("m", "champion")
        assert [s.version for s in steps] == model.history
        assert [s.revision for s in steps] == list(range(1, len(steps) + 1))
        if model.champion is None:
            assert registry.aliases("m") == []
        else:
            assert registry.resolve("m@champion").version == model.champion
        statuses = registry.statuses("m")
        assert {v.version: statuses[v.digest].state for v in self.adapters} == model.states
        protections = [(one.required, one.self_approval) for one in registry.protections("m")]
        assert protections == ([model.protection] if model.protection[0] else [])
        assert self.needed() <= self.stored()
        self.seen = sizes  # whatever the next act writes before its transaction would show

    def check_at_the_end(self) -> None:
        found = self.registry.verify()
        assert found.intact, found.problems

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()
        if hasattr(self, "registry"):
            try:
                if not isinstance(sys.exc_info()[1], Exception):  # which would be hidden by what follows from it
                    self.check_at_the_end()
            finally:
                self.registry.close()
                shutil.rmtree(self.root)
