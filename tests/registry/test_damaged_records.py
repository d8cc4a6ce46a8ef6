"""What the database says was recorded is held against its digest wherever it is used, not only by `verify`."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import whole_file
from registry.entities import Version
from registry.errors import BaseMismatch, RecordDamaged, RegistryError
from registry.gate import Policy
from registry.layout import DATABASE
from registry.lineage import trace
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

Add = Callable[..., Version]


@pytest.fixture
def raw(registry: Registry, backend: Any) -> Any:
    return backend.connect(registry.folder)


def test_no_flipped_bit_of_a_manifest_is_checked_out_and_every_one_is_told(
    tmp_path: Path, write_files: Callable[..., dict[str, Path]]
) -> None:
    files = write_files("one")
    folder = tmp_path / "registry"
    with Registry.open(folder) as registry:
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint="a" * 64)
        version = registry.register("tiny", manifest, files)
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    text = version.manifest_json.encode()
    intact = (folder / DATABASE).read_bytes()
    start = intact.index(text)
    assert intact.count(text) == 1
    for bit in range(0, 8 * len(text), 7):
        content = bytearray(intact)
        content[start + bit // 8] ^= 1 << bit % 8
        (folder / DATABASE).write_bytes(content)
        with Registry.open_to_read(folder) as registry:
            with pytest.raises(RegistryError):
                registry.checkout("tiny", tmp_path / "out")
            problems = [p.problem for p in registry.verify().problems]
            assert problems == ["the manifest doesn't have the version's digest"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["name", "digest", "kind", "manifest"])
def test_a_text_that_is_no_utf8_any_more_ends_no_command(
    registry: Registry, add_base: Add, raw: Any, column: str
) -> None:
    if raw.postgres:
        pytest.skip("PostgreSQL holds what it reads against its pages' checksums")
    add_base()
    raw.lift("versions")
    raw.execute(f"UPDATE versions SET {column} = CAST(CAST(substr({column}, 1, 3) AS BLOB) || x'FF' AS TEXT)")
    found = registry.verify()
    assert not found.intact
    assert len(registry.versions()) == 1
    if column != "name":
        with pytest.raises(RegistryError):
            registry.checkout("tiny-base")


@pytest.mark.parametrize("column", ["kind", "base_fingerprint"])
def test_a_row_that_differs_from_its_manifest_is_not_used(
    registry: Registry, add_base: Add, raw: Any, column: str
) -> None:
    version = add_base()
    raw.lift("versions")
    raw.execute(f"UPDATE versions SET {column} = 'full'")
    with pytest.raises(RecordDamaged, match="kind or base of tiny-base:v1 differ"):
        registry.checkout("tiny-base")
    blob = registry.blobs.local_path(version.manifest.files["config.json"].sha256)
    assert blob is not None
    blob.unlink()
    found = registry.verify()  # looks at the files all the same
    assert (found.files, [(one.subject, one.path) for one in found.problems]) == (
        2,
        [("tiny-base:v1", None), ("tiny-base:v1", "config.json")],
    )


def test_a_report_that_was_changed_promotes_nothing(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy, raw: Any
) -> None:
    version = add_adapter()
    registry.record_evaluation(version.digest, make_report(-0.2, low=-0.3))
    raw.lift("evaluations")
    raw.execute("UPDATE evaluations SET report = ?", (json.dumps(make_report()),))
    with pytest.raises(RecordDamaged, match=f"a report on the version with digest {version.digest[:12]}"):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")
    with pytest.raises(RecordDamaged, match=r"a report on text2sql:v1"):
        registry.search(metric="execution_match")
    assert registry.aliases() == []


def test_a_manifest_that_was_changed_is_not_promoted(
    registry: Registry, passing: Add, policy: Policy, raw: Any
) -> None:
    version = passing("one")
    raw.lift("versions")
    changed = version.manifest_json.replace('"seed":7', '"seed":8')
    assert changed != version.manifest_json
    raw.execute("UPDATE versions SET manifest = ? WHERE id = ?", (changed, version.id))
    with pytest.raises(RecordDamaged, match="the manifest of text2sql:v1"):
        registry.promote("text2sql", "champion", policy=policy, actor="ada")
    assert registry.aliases() == []


def test_a_run_that_was_changed_is_not_told(registry: Registry, raw: Any, fingerprints: tuple[str, str]) -> None:
    registry.record_run("text2sql", "sweep", 0, base_fingerprint=fingerprints[0], content_key=None, document={"a": 1})
    raw.lift("runs")
    raw.execute("UPDATE runs SET document = replace(document, '1', '2')")
    with pytest.raises(RecordDamaged, match="the document of text2sql sweep sweep trial 0"):
        _ = registry.runs("text2sql")[0].document


def test_a_cycle_that_was_forced_upon_the_database_is_told(registry: Registry, add_adapter: Add, raw: Any) -> None:
    if raw.postgres:
        pytest.skip("PostgreSQL's owner would have to take the constraint away for good")
    version = add_adapter()
    base = registry.resolve("tiny-base")
    raw.execute("PRAGMA ignore_check_constraints = ON")
    raw.execute("INSERT INTO version_parents (child_id, parent_id, role) VALUES (?, ?, 'base')", (base.id, version.id))
    with pytest.raises(RecordDamaged, match="has a cycle"):
        trace(registry._lookup.query, base)


def test_a_learnt_prompt_is_a_part_of_nothing_on_another_base(
    registry: Registry, add_base: Add, write_files: Any, fingerprints: tuple[str, str]
) -> None:
    base, files = add_base(), write_files("prompt")
    prompt = registry.register(
        "prompt",
        Manifest(
            "prompt", describe_files(files), base_fingerprint=base.base_fingerprint,
            parents=(Parent(base.digest, "base"),),
        ),
        files,
    )  # fmt: skip
    other_files = write_files("other base")
    other = registry.register(
        "other", Manifest("base", describe_files(other_files), base_fingerprint=fingerprints[1]), other_files
    )
    merged = Manifest(
        "merged", describe_files(files), base_fingerprint="c" * 64,
        parents=(Parent(other.digest, "base"), Parent(prompt.digest, "prompt")),
    )  # fmt: skip
    with pytest.raises(BaseMismatch, match="belongs to different bases"):
        registry.register("merged", merged, files)


def test_a_folder_that_a_blob_needs_is_on_the_disk_before_its_row(
    registry: Registry, add_base: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, int]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        status = os.fstat(descriptor)
        flushed.append((status.st_dev, status.st_ino))
        fsync(descriptor)

    monkeypatch.setattr(whole_file.os, "fsync", noted)
    version = add_base()
    for entry in version.manifest.files.values():
        path = registry.blobs.local_path(entry.sha256)
        assert path is not None
        for folder in (path.parent, path.parent.parent):
            assert (folder.stat().st_dev, folder.stat().st_ino) in flushed
