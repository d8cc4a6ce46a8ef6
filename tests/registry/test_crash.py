"""Killed with SIGKILL at file operations and SQL statements: no half version, no second one, no lost promotion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.blobs import BlobStore
from registry.gate import Policy
from registry.http.uploads import Uploads
from registry.manifest import Manifest, describe_files
from registry.store import Registry

Write = Callable[..., dict[str, Path]]
RunAndDie = Callable[..., bool]


def _register(folder: Path, files: dict[str, Path], fingerprint: str, database: str | None) -> str:
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprint, content_key="key")
    with Registry.open(folder, database=database) as registry:
        return registry.register("m", manifest, files).digest


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def test_killed_while_making_and_registering_the_second_run_finishes_the_first(
    where: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    write_files: Write,
    fingerprints: tuple[str, str],
    run_and_die: RunAndDie,
) -> None:
    files = write_files()
    # imported before the forks, so that children don't pay for it
    import alembic.command  # noqa: F401

    deaths = 0
    # making a registry has hundreds of steps, most of them of the migration's one transaction: some of them
    for deadly in range(1, 700, 7 if where == "sqlite" else 11):
        folder = tmp_path / f"run{deadly}"
        database = None if where == "sqlite" else request.getfixturevalue("make_database")()

        def act(folder: Path = folder, database: str | None = database) -> str:
            return _register(folder, files, fingerprints[0], database)

        died = run_and_die(act, folder, deadly)
        digest = act()  # the second run finishes what the first began
        with Registry.open(folder) as registry:
            assert [v.digest for v in registry.versions()] == [digest]
            assert registry.verify().intact
            assert [e.action for e in registry.audit()] == ["register"]
            assert [e.topic for e in registry.outbox()] == ["version.registered"]
        deaths += died
        if not died:
            break
    assert deaths > 10, "the steps were not counted"
    assert not died, "the act has more steps than were tried"


def test_killed_at_any_step_of_registering_never_leaves_a_version_without_its_bytes(
    registry: Registry, write_files: Write, fingerprints: tuple[str, str], run_and_die: RunAndDie
) -> None:
    registry.close()
    folder = registry.folder
    seen_absent = seen_present = 0
    for deadly in range(1, 200):
        files = write_files(f"weights {deadly}")
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])

        def act(files: dict[str, Path] = files, manifest: Manifest = manifest) -> None:
            with Registry.open(folder) as mine:
                mine.register("m", manifest, files)

        died = run_and_die(act, folder, deadly)
        with Registry.open(folder) as after:
            there = any(v.digest == manifest.digest for v in after.versions())
            seen_absent, seen_present = seen_absent + (not there), seen_present + there
            assert after.verify().intact
        if not died:
            break
    assert not died
    assert seen_absent > 10
    assert seen_present >= 1


def test_killed_at_any_step_of_a_promotion_leaves_all_of_it_or_nothing(
    registry: Registry, passing: Callable[[str], Any], policy: Policy, run_and_die: RunAndDie
) -> None:
    passing("one"), passing("two")
    registry.close()
    folder = registry.folder
    for deadly in range(1, 100):
        with Registry.open(folder) as before:
            revision = len(before.history("text2sql", "champion"))
        ref = f"text2sql:v{1 + revision % 2}"

        def act(ref: str = ref) -> None:
            with Registry.open(folder) as mine:
                mine.promote(ref, "champion", policy=policy, actor="ada")

        died = run_and_die(act, folder, deadly)
        with Registry.open(folder) as after:
            steps = after.history("text2sql", "champion")
            assert len(steps) in (revision, revision + 1)
            assert died or len(steps) == revision + 1
            assert sum(e.action == "promote" for e in after.audit()) == len(steps)
            assert sum(e.topic == "alias.promote" for e in after.outbox()) == len(steps)
            assert after.verify().intact
        if not died:
            break
    assert not died
    assert deadly > 10


def test_killed_at_any_step_of_an_upload_the_next_one_goes_on(tmp_path: Path, run_and_die: RunAndDie) -> None:
    content = b"some weights" * 100
    digest = hashlib.sha256(content).hexdigest()
    begun = 0
    for deadly in range(1, 60):
        folder = tmp_path / str(deadly)
        blobs = BlobStore(folder / "blobs")
        uploads = Uploads(folder / "uploads", blobs)

        def act(blobs: BlobStore = blobs, uploads: Uploads = uploads) -> None:
            there = uploads.offset(digest)
            with uploads.appending(digest, there, len(content)) as stream:
                for start in range(there, len(content), 500):
                    stream.write(content[start : start + 500])
                    stream.flush()
                uploads.finish(stream, digest)

        died = run_and_die(act, folder, deadly, writes=True)
        there = uploads.offset(digest)
        begun += 0 < there < len(content)
        if (folder / "uploads").exists():
            assert all(content.startswith(part.read_bytes()) for part in (folder / "uploads").glob("*.part"))
        stored = list((folder / "blobs").rglob(digest))
        assert not stored or (blobs.read(digest) == len(content) and there == 0)
        if not stored:
            act()
        assert blobs.read(digest) == len(content)
        if not died:
            break
    assert not died
    assert begun >= 2
    assert deadly > 8
