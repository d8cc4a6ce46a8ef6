"""Damage is found: flipped bits, lost blobs, changed rows, rewritten audit chains. The database refuses rewriting."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from registry.audit import verify_chain
from registry.audited_rows import differences_from_audit
from registry.entities import Version
from registry.errors import AuditBroken, BlobCorrupted, FileRefused
from registry.gate import Policy
from registry.lookup import Lookup
from registry.store import Registry

Add = Callable[..., Version]
Write = Callable[..., dict[str, Path]]
TABLES = ["versions", "version_parents", "evaluations", "alias_events", "audit", "outbox", "runs", "identity"]
CHANGES = ["update", "delete", "replace", "truncate"]


def _blob(registry: Registry, version: Version, name: str = "model.safetensors") -> Path:
    path = registry.blobs.local_path(version.manifest.files[name].sha256)
    assert path is not None
    return path


def _flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def raw(registry: Registry, passing: Add, policy: Policy, backend: Any, fingerprints: tuple[str, str]) -> Any:
    """Another client's connection to a registry with a row in every table."""
    passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="ada")
    registry.record_run("text2sql", "sweep", 0, base_fingerprint=fingerprints[0], content_key="one", document={})
    return backend.connect(registry.folder)


def test_intact_registry_verifies(registry: Registry, raw: Any) -> None:
    found = registry.verify()
    assert (found.intact, found.versions, found.files, found.audit_rows) == (True, 2, 4, 5)
    assert found.audit_head == registry.audit()[-1].hash
    assert found.bytes == sum(p.stat().st_size for p in (registry.folder / "blobs/sha256").rglob("*") if p.is_file())


def test_every_flipped_bit_is_refused_at_checkout_and_found_by_verify(
    registry: Registry, add_base: Add, tmp_path: Path
) -> None:
    version = add_base()
    blob = _blob(registry, version, "config.json")
    for bit in range(8 * blob.stat().st_size):
        _flip(blob, bit)
        with pytest.raises(BlobCorrupted):
            registry.checkout("tiny-base", tmp_path / "out")
        _flip(blob, bit)
    _flip(blob, 3)
    assert [(p.subject, p.path) for p in registry.verify().problems] == [("tiny-base:v1", "config.json")]
    assert not (tmp_path / "out").exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_damaged_or_lost_blob_is_put_back_by_registering_again(
    registry: Registry, add_base: Add, write_files: Write
) -> None:
    version = add_base()
    _flip(_blob(registry, version), 100)
    _blob(registry, version, "config.json").unlink()
    assert len(registry.verify("tiny-base").problems) == 2
    assert registry.register("tiny-base", version.manifest, write_files("base")) == version
    assert registry.verify().intact


def test_same_files_put_back_lost_blobs_though_another_run_made_them(registry: Registry, add_adapter: Add) -> None:
    version = add_adapter("key", flow_run_id="first run")
    _flip(_blob(registry, version), 100)
    _blob(registry, version, "config.json").unlink()
    assert add_adapter("key", flow_run_id="second run") == version
    assert registry.verify().intact


def test_checkout_is_complete_linked_and_kept(registry: Registry, add_base: Add, tmp_path: Path) -> None:
    version = add_base()
    folder = registry.checkout("tiny-base", tmp_path / "deep" / "out")
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert _blob(registry, version).samefile(folder / "model.safetensors")
    assert registry.checkout("tiny-base", folder) == folder
    own = registry.checkout("tiny-base")
    assert own == registry.folder / "checkouts" / version.digest


def test_checkout_refuses_a_folder_with_other_files_and_mends_its_own(
    registry: Registry, add_base: Add, tmp_path: Path
) -> None:
    from registry.errors import RegistryPathError

    add_base()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(RegistryPathError, match="holds other files"):
        registry.checkout("tiny-base", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    own = registry.checkout("tiny-base")
    (own / "config.json").unlink()
    (own / "extra.json").write_text("{}")
    assert {p.name for p in registry.checkout("tiny-base").iterdir()} == {"model.safetensors", "config.json"}


def test_checkout_copies_where_links_are_not_possible(
    registry: Registry, add_base: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_base()

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    folder = registry.checkout("tiny-base", tmp_path / "out")
    assert not _blob(registry, version, "config.json").samefile(folder / "config.json")
    _flip(_blob(registry, version), 9)
    with pytest.raises(BlobCorrupted):
        registry.checkout("tiny-base", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES)
def test_no_client_can_rewrite_a_row(raw: Any, table: str, change: str) -> None:
    key = "sequence" if table == "audit" else "id"
    statement = {
        "update": f"UPDATE {table} SET {key} = {key}",
        "delete": f"DELETE FROM {table}",
        "replace": f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 1 ON CONFLICT ({key}) "
        f"DO UPDATE SET {key} = excluded.{key}"
        if raw.postgres
        else f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        # SQLite has no TRUNCATE; a DELETE of everything is its short way to the same
        "truncate": f"TRUNCATE {table} CASCADE" if raw.postgres else f"DELETE FROM {table} WHERE 1",
    }[change]
    before = raw.execute(f"SELECT * FROM {table}").fetchall()
    assert before
    with pytest.raises(raw.error, match=r"insert-only|next one|continue the chain"):
        raw.execute(statement)
    assert raw.execute(f"SELECT * FROM {table}").fetchall() == before


@pytest.mark.parametrize(
    ("table", "row", "says"),
    [
        ("alias_events", "9, 'text2sql', 'champion', 3, 2, 'promote', 'eve', NULL, NULL, NULL, 't'", "next one"),
        ("alias_events", "9, 'text2sql', 'champion', 2, 1, 'promote', 'eve', NULL, NULL, NULL, 't'", "this model"),
        ("audit", "6, 't', 'eve', 'promote', 's', '{}', 'wrong', 'hash'", "continue"),
        ("audit", "9, 't', 'eve', 'promote', 's', '{}', (SELECT max(hash) FROM audit), 'hash'", "continue"),
        ("version_parents", "9, 1, 2, 'base', NULL", "ck_version_parents_older"),
        ("identity", "2, 'another', 't'", "ck_identity_one_row"),
    ],
)
def test_no_client_can_add_a_row_out_of_order(raw: Any, table: str, row: str, says: str) -> None:
    with pytest.raises(raw.error, match=says):
        raw.execute(f"INSERT INTO {table} VALUES ({row})")


def test_alias_moved_behind_the_registry_is_found(registry: Registry, raw: Any, passing: Add) -> None:
    version = passing("two")
    raw.execute(
        "INSERT INTO alias_events VALUES (9, 'text2sql', 'champion', 2, ?, 'promote', 'eve', NULL, NULL, NULL, 't')",
        (version.id,),
    )
    problems = registry.verify().problems
    assert len(problems) == 1
    assert "without its alias row in the audit" in problems[0].problem


@pytest.mark.parametrize("trigger_of", ["versions", "evaluations", "audit"])
def test_row_changed_by_someone_who_dropped_the_trigger_is_found(registry: Registry, raw: Any, trigger_of: str) -> None:
    raw.lift(trigger_of)
    column = {"versions": "manifest", "evaluations": "report", "audit": "payload"}[trigger_of]
    raw.execute(f"UPDATE {trigger_of} SET {column} = replace({column}, '0', '1')")
    assert not registry.verify().intact


def test_report_deleted_with_its_trigger_is_missed_by_the_audit(registry: Registry, raw: Any, make_report: Any) -> None:
    registry.record_evaluation(registry.resolve("text2sql").digest, make_report(0.4))
    raw.lift("evaluations")
    raw.execute("DELETE FROM evaluations WHERE id = (SELECT max(id) FROM evaluations)")
    assert ["gone from the database" in p.problem for p in registry.verify().problems] == [True]


@pytest.mark.parametrize(
    "table", ["versions", "evaluations", "alias_events", "runs", "version_events", "protections", "approvals"]
)
def test_time_that_was_changed_in_the_database_is_found(
    registry: Registry, raw: Any, policy: Policy, table: str
) -> None:
    registry.deprecate("tiny-base", actor="ada", reason="a newer one is there")
    registry.protect("text2sql", "released", required=1, actor="ada", reason="customers use it")
    registry.approve("text2sql", "released", policy=policy, actor="bob")
    assert registry.verify().intact
    (before,) = raw.execute(f"SELECT created_at FROM {table} ORDER BY id LIMIT 1").fetchone()
    raw.lift(table)
    for at in ("2020-01-01T00:00:00.000000Z", before[:-2] + ("1Z" if before[-2] == "0" else "0Z")):
        raw.execute(f"UPDATE {table} SET created_at = ? WHERE id = (SELECT min(id) FROM {table})", (at,))
        problems = registry.verify().problems
        assert [problem.subject for problem in problems] == ["audit"]
        told = f"written at {at} as the database has it, at {before} as the audit has it"
        assert problems[0].problem.endswith(told)
    raw.execute(f"UPDATE {table} SET created_at = ? WHERE id = (SELECT min(id) FROM {table})", (before,))
    assert registry.verify().intact


def test_times_that_two_versions_changed_with_each_other_are_found(registry: Registry, raw: Any) -> None:
    times = raw.execute("SELECT created_at FROM versions ORDER BY id").fetchall()
    raw.lift("versions")
    for identity, (at,) in zip((2, 1), times, strict=True):
        raw.execute("UPDATE versions SET created_at = ? WHERE id = ?", (at, identity))
    problems = [problem.problem for problem in registry.verify().problems]
    assert [problem.partition(" ")[0] for problem in problems] == ["text2sql:v1", "tiny-base:v1"]


def test_report_that_was_put_in_a_second_time_is_found(registry: Registry, raw: Any) -> None:
    raw.execute("INSERT INTO evaluations SELECT 9, version_id, digest, report, created_at FROM evaluations")
    problems = [problem.problem for problem in registry.verify().problems]
    assert ["without its evaluate row in the audit" in problem for problem in problems] == [True]


def test_holding_rows_against_the_audit_asks_as_often_whatever_is_there(
    registry: Registry, raw: Any, passing: Add
) -> None:
    def asked() -> int:
        counted: list[str] = []
        with Lookup(registry.folder) as lookup:
            found = differences_from_audit(lambda sql, values: (counted.append(sql), lookup.query(sql, values))[1])
            assert list(found) == []
        return len(counted)

    few = asked()
    for key in ("two", "three", "four"):
        passing(key)
    assert asked() == few


@pytest.mark.parametrize("row", [1, 2, 5])
def test_broken_audit_chain_names_its_row(registry: Registry, raw: Any, row: int) -> None:
    raw.lift("audit")
    raw.execute("UPDATE audit SET actor = 'eve' WHERE sequence = ?", (row,))
    with pytest.raises(AuditBroken, match=f"row {row} "):
        verify_chain(Lookup(registry.folder).query)


def test_row_cut_from_the_middle_of_the_audit_is_found(registry: Registry, raw: Any) -> None:
    raw.lift("audit")
    raw.execute("DELETE FROM audit WHERE sequence = 2")
    with pytest.raises(AuditBroken):
        verify_chain(Lookup(registry.folder).query)


def test_source_swapped_between_scan_and_copy_is_refused(
    registry: Registry, write_files: Write, fingerprints: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry import recording
    from registry.manifest import Manifest, describe_files

    files = write_files()
    innocent = files["config.json"].read_bytes()
    files["config.json"].write_bytes(b'{"auto_map": {"AutoModel": "code.Model"}}')
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    files["config.json"].write_bytes(innocent)
    scan = recording.scan
    calls: list[str] = []

    def swap_after_scan(path: str, stream: object, size: int, beside: Collection[str]) -> None:
        scan(path, stream, size, beside)  # type: ignore[arg-type]
        calls.append(path)
        if len(calls) == len(files):
            files["config.json"].write_bytes(b'{"auto_map": {"AutoModel": "code.Model"}}')

    monkeypatch.setattr(recording, "scan", swap_after_scan)
    with pytest.raises(FileRefused, match="auto_map"):
        registry.register("m", manifest, files)
    assert registry.versions() == []
