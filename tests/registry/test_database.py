"""Migrations: the database that they build is the one that the store uses, and opening one that is current is cheap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from registry.database import open_engine
from registry.entities import Version
from registry.errors import RegistryBusy, SchemaUnsupported
from registry.layout import BINDING, DATABASE, SCHEMA_REVISION
from registry.lookup import Lookup
from registry.schema import metadata
from registry.store import Registry


def test_migrated_database_is_the_one_that_the_store_uses(registry: Registry) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_engine(registry.folder, create=False)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA_REVISION
    engine.dispose()


def test_release_knows_its_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import registry as package

    config = Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION


def test_sqlite_is_durable_and_lets_readers_go_on(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, create=True)
    with engine.connect() as connection:
        pragmas = {
            p: connection.exec_driver_sql(f"PRAGMA {p}").scalar()
            for p in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_schema_of_a_newer_release_is_refused(registry: Registry, backend: Any) -> None:
    backend.connect(registry.folder).execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaUnsupported, match="9999"):
        Registry.open(registry.folder)
    with pytest.raises(SchemaUnsupported, match="9999"):
        Lookup(registry.folder)


def test_folder_with_odd_characters_is_one_registry(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1"
    with Registry.open(folder) as registry:
        assert registry.versions() == []
    assert (folder / DATABASE).is_file()


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def test_many_threads_may_make_one_registry(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    database = None if where == "sqlite" else request.getfixturevalue("make_database")()
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: Registry.open(tmp_path / "registry", database=database), range(6)))
    assert [r.versions() for r in opened] == [[]] * 6
    for one in opened:
        one.close()


def test_migration_that_another_process_is_at_for_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.database.BUSY_TIMEOUT_SECONDS", 0.2)
    with FileLock(tmp_path / "migrate.lock"), pytest.raises(RegistryBusy, match="another process") as caught:
        Registry.open(tmp_path)
    assert caught.value.exit_status == 4


def test_one_registry_serves_many_threads(registry: Registry, add_adapter: Callable[..., Version]) -> None:
    version = add_adapter()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: registry.resolve("text2sql").digest, range(40))) == {version.digest}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("registry.lookup", ["sqlalchemy", "alembic", "fsspec", "pydantic", "filelock"]),
        ("registry.store", ["alembic", "torch", "prefect", "pydantic", "components"]),
    ],
)
def test_looking_up_loads_nothing_heavy(registry: Registry, module: str, absent: list[str]) -> None:
    opening = {"registry.lookup": "Lookup(Path(f))", "registry.store": "Registry.open(f)"}[module]
    code = (
        f"import sys; from pathlib import Path; from {module} import *; f = sys.argv[1]; {opening}; "
        "print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(registry.folder)], capture_output=True, text=True, check=True)
    loaded = out.stdout
    assert [name for name in absent if f"'{name}'" in loaded] == []
    assert ("'psycopg'" in loaded) == (registry.folder / BINDING).is_file()
