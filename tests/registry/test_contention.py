"""Eight processes promote, register and roll back at once and are killed at random moments, on both databases.

What must hold whatever dies: an alias's history is one chain, no acknowledged promotion is lost, none is there without
a passing report, no reader sees half of anything, and the audit chain verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.entities import Version
from registry.errors import AliasConflict, GateRefused, RollbackRefused
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

PROCESSES = 8
SECONDS = 5.0


def _fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _write(folder: Path, acknowledged: Path, files: dict[str, Path], base: str, policy: Policy, seed: int) -> None:
    """Work until killed; what the registry has acknowledged is noted at once, in one line."""
    chance = random.Random(seed)
    with Registry.open(folder) as registry, acknowledged.open("ab", buffering=0) as notes:
        for turn in itertools.count():
            act = chance.random()
            with contextlib.suppress(AliasConflict, RollbackRefused):
                if act < 0.1:
                    manifest = Manifest(
                        kind="adapter",
                        files=describe_files(files),
                        base_fingerprint=hashlib.sha256(b"base weights").hexdigest(),
                        parents=(Parent(base, "base"),),
                        seed=seed * 10_000 + turn,
                    )
                    made = registry.register("text2sql", manifest, files)
                    notes.write(json.dumps({"registered": made.digest}).encode() + b"\n")
                    try:
                        registry.promote(made.digest, "champion", policy=policy, actor=str(seed))
                    except GateRefused:
                        continue
                    raise AssertionError("a version without a report was promoted")
                if act < 0.2:
                    change = registry.rollback("text2sql", "champion", actor=str(seed), reason="chance")
                else:
                    seen = registry.history("text2sql", "champion")
                    change = registry.promote(
                        f"text2sql:v{chance.randint(1, 4)}",
                        "champion",
                        policy=policy,
                        actor=str(seed),
                        expected_revision=len(seen),
                    )
                if change.changed:
                    notes.write(json.dumps({"revision": change.revision, "digest": change.digest}).encode() + b"\n")


def _read(folder: Path, end: Path) -> None:
    """Look again and again: whole versions with their parents, one chain, and no row without its audit row."""
    from registry.lookup import Lookup

    with Registry.open(folder) as registry, Lookup(folder) as lookup:
        looks = last = 0
        told_of: list[int] = []
        while not end.exists() or looks < 3:
            with lookup.snapshot():
                events = lookup.query("SELECT count(*) FROM alias_events", ())[0][0]
                told = lookup.query("SELECT count(*) FROM outbox WHERE topic LIKE 'alias.%'", ())[0][0]
            assert events == told >= last
            last = events
            for version in registry.versions("text2sql"):
                assert lookup.query("SELECT count(*) FROM version_parents WHERE child_id = ?", (version.id,))[0][0] == 1
            held = registry.resolve("text2sql@champion")
            assert registry.evaluations(held.digest), "the champion has no report"
            assert registry.verify(held.digest).problems == ()
            # whoever keeps a place in the outbox is told of everything: nothing appears behind it
            told_of += [event.id for event in registry.outbox(after=told_of[-1] if told_of else 0)]
            looks += 1
        assert [event.id for event in registry.outbox() if event.id <= told_of[-1]] == told_of


def test_eight_processes_that_are_killed_at_random_leave_one_true_history(
    registry: Registry,
    passing: Callable[[str], Version],
    policy: Policy,
    write_files: Callable[..., dict[str, Path]],
    tmp_path: Path,
) -> None:
    proven = [passing(str(number)) for number in range(4)]
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    folder, base = registry.folder, registry.resolve("tiny-base").digest
    registry.close()  # nothing open goes through a fork
    files = write_files("contention")
    notes = tmp_path / "notes"
    notes.mkdir()
    chance = random.Random(20)
    seeds = itertools.count(1)
    begun = time.monotonic()

    def start() -> int:
        seed = next(seeds)
        return _fork(lambda: _write(folder, notes / str(seed), files, base, policy, seed))

    def acknowledged() -> int:
        return sum(file.read_bytes().count(b"revision") for file in notes.iterdir())

    reader = _fork(lambda: _read(folder, tmp_path / "end"))
    workers = [start() for _ in range(PROCESSES)]
    killed = 0
    try:
        # on busy cores until enough has happened
        while (passed := time.monotonic() - begun) < SECONDS or (
            passed < 12 * SECONDS and (acknowledged() < 20 or killed <= 10)
        ):
            time.sleep(chance.uniform(0.05, 0.25))
            victim = workers.pop(chance.randrange(len(workers)))
            os.kill(victim, signal.SIGKILL)
            _, status = os.waitpid(victim, 0)
            assert os.WIFSIGNALED(status), "a writer failed by itself"
            killed += 1
            workers.append(start())
    finally:
        (tmp_path / "end").touch()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        _, read = os.waitpid(reader, 0)
    assert os.WIFEXITED(read)
    assert os.WEXITSTATUS(read) == 0, "a reader saw half of something"
    assert killed > 10

    with Registry.open(folder) as after:
        # takes the write lock: a server may still be at the last commit of a client that is dead
        after.promote("text2sql:v1", "champion", policy=policy, actor="ada", dry_run=True)
        history = after.history("text2sql", "champion")
        assert [step.revision for step in history] == list(range(1, len(history) + 1))
        assert {step.digest for step in history} <= {version.digest for version in proven}
        lines = [json.loads(line) for file in notes.iterdir() for line in file.read_bytes().splitlines()]
        promised: list[Any] = [(line["revision"], line["digest"]) for line in lines if "revision" in line]
        held = {(step.revision, step.digest) for step in history}
        assert set(promised) <= held, "an acknowledged promotion is lost"
        assert len(promised) == len(set(promised)) >= 20
        assert {line["registered"] for line in lines if "registered" in line} <= {v.digest for v in after.versions()}
        told = [e.payload for e in after.outbox() if e.topic.startswith("alias.")]
        assert [(e["revision"], e["digest"]) for e in told] == [(step.revision, step.digest) for step in history]
        assert all(entry.payload["gate"]["passed"] for entry in after.audit() if entry.action == "promote")
        numbers = [version.version for version in after.versions("text2sql")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert after.verify().problems == ()
