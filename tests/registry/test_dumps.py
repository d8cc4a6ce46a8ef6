"""Registries that earlier releases wrote: read as they are, brought up to date without losing a row, and worked on."""

from __future__ import annotations

import json
import runpy
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.audit import verify_chain
from registry.database import _locked, open_engine
from registry.layout import BINDING, DATABASE, READABLE_REVISIONS, SCHEMA_REVISION
from registry.lineage import trace
from registry.lookup import Lookup
from registry.schema import metadata
from registry.store import Registry

DUMPS = Path(__file__).parent / "dumps"
TABLES = [table for table in metadata.tables if table != "identity"]
CAME_WITH = {"runs": "0002", "version_events": "0004", "protections": "0005", "approvals": "0005"}


def _all() -> list[Any]:
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.integration] if path.name.startswith("postgresql") else [])
        for path in sorted(DUMPS.glob("*.sql"))
    ]


@pytest.fixture(params=_all())
def restored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A registry's folder with the rows of a dump, without its blobs."""
    folder = tmp_path / "registry"
    folder.mkdir()
    if request.param.name.startswith("sqlite"):
        connection = sqlite3.connect(folder / DATABASE)
        connection.executescript(request.param.read_text())
        connection.close()
        return folder
    import psycopg

    address = request.getfixturevalue("make_database")()
    with psycopg.connect(address, autocommit=True) as server:
        server.execute(request.param.read_text())
        found = server.execute("SELECT registry FROM public.identity").fetchone()
    assert found is not None
    (folder / BINDING).write_text(json.dumps({"database": address, "registry": found[0], "made": True}))
    return folder


def _rows(folder: Path) -> dict[str, list[Any]]:
    with Lookup(folder) as lookup:
        revision = lookup.query("SELECT version_num FROM alembic_version", ())[0][0]
        there = [table for table in TABLES if revision >= CAME_WITH.get(table, "0001")]
        return {table: sorted(map(repr, lookup.query(f"SELECT * FROM {table}", ()))) for table in there}


def test_every_schema_has_its_dump() -> None:
    dumped = {path.stem for path in DUMPS.glob("*.sql")}
    # PostgreSQL came with the third
    assert {f"sqlite-{revision}" for revision in READABLE_REVISIONS} <= dumped
    assert {f"postgresql-{revision}" for revision in READABLE_REVISIONS if revision >= "0003"} <= dumped


def test_look_ups_read_what_an_earlier_release_wrote(restored: Path) -> None:
    with Lookup(restored) as lookup:
        champion = lookup.resolve("text2sql@champion")
        assert champion.label == "text2sql:v1"
        assert champion.manifest.metadata["note"] == "naïve – 模型 %s ?"
        assert [(a.alias, a.version, a.revision) for a in lookup.aliases()] == [("candidate", 2, 1), ("champion", 1, 3)]
        assert {node.label for node in trace(lookup.query, champion).nodes} >= {"tiny:v1", "text2sql:v1"}
        assert verify_chain(lookup.query)


def test_opened_it_is_brought_up_to_date_and_goes_on(restored: Path, tmp_path: Path) -> None:
    fill: Callable[..., None] = runpy.run_path(str(DUMPS / "make.py"))["fill"]
    before = _rows(restored)
    with Registry.open(restored) as registry:
        after = _rows(restored)
        assert {table: after[table] for table in before} == before
        fill(registry, tmp_path / "files")  # puts the bytes back
        assert registry.verify().intact
        assert [s.version for s in registry.history("text2sql", "champion")] == [1, 2, 1]
        assert registry.promote("text2sql:v2", "champion", actor="ada").revision == 4
        assert registry.retire("text2sql:v3", actor="ada", reason="no use").previous_state == "active"
        assert registry.verify().intact


def test_opened_it_has_the_newest_schema_with_all_its_rules(restored: Path, request: pytest.FixtureRequest) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Registry.open(restored).close()
    engine = open_engine(restored, create=False)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA_REVISION

    def change(statement: str) -> None:
        with _locked(engine) as connection:
            # SQLite's rules are by row, and an earlier registry has no runs, version events or approvals
            connection.exec_driver_sql("INSERT INTO runs SELECT 9, 'n', 's', 9, 'd', 'b', NULL, '{}', 't'")
            connection.exec_driver_sql("INSERT INTO version_events SELECT 99, 1, 'deprecate', 'a', 'r', 't'")
            connection.exec_driver_sql("INSERT INTO protections SELECT 99, 'n', 'a', 1, 0, 'a', 'r', 't'")
            connection.exec_driver_sql(
                "INSERT INTO approvals SELECT 99, 'n', 'a', 'unprotect', NULL, NULL, 1, 0, 0, 'd', '{}', 'approve', "
                "'a', NULL, 't'"
            )
            connection.exec_driver_sql(statement)

    for table in metadata.tables:
        key = "sequence" if table == "audit" else "id"
        for statement in (f"UPDATE {table} SET {key} = {key}", f"DELETE FROM {table}"):
            with pytest.raises(Exception, match=f"{table} is insert-only"):
                change(statement)
    engine.dispose()
