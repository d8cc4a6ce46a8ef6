"""A registry on PostgreSQL: which folder belongs to which database, and what happens when the server isn't well."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from registry import database
from registry.address import VARIABLE
from registry.database import open_engine, writing
from registry.entities import Version
from registry.errors import (
    DatabaseRefused,
    DatabaseUnreachable,
    RegistryBusy,
    RegistryNotFound,
    WrongDatabase,
)
from registry.gate import Policy
from registry.layout import BINDING, DATABASE
from registry.lookup import Lookup
from registry.manifest import Manifest, describe_files
from registry.postgres_writing import WRITE_LOCK
from registry.store import Registry

pytestmark = pytest.mark.integration
SECRET = "s3cr3t"
Write = Callable[..., dict[str, Path]]


@pytest.fixture(params=["postgresql"])
def backend(request: pytest.FixtureRequest, postgres_backend: Any) -> Any:
    """These tests are about the one."""
    return postgres_backend


def _registered(folder: Path, write_files: Write, fingerprint: str, database: str | None = None) -> Version:
    files = write_files()
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprint)
    with Registry.open(folder, database=database) as registry:
        return registry.register("m", manifest, files)


def _name(address: str) -> str:
    return address.partition("?")[0].rpartition("/")[2]


def test_folder_remembers_its_database(
    tmp_path: Path, make_database: Any, write_files: Write, fingerprints: tuple[str, str]
) -> None:
    address = make_database()
    version = _registered(tmp_path / "r", write_files, fingerprints[0], address)
    assert not (tmp_path / "r" / DATABASE).exists()
    assert json.loads((tmp_path / "r" / BINDING).read_text())["database"] == address
    with Lookup(tmp_path / "r") as lookup, Registry.open(tmp_path / "r", create=False) as registry:
        assert lookup.resolve("m") == registry.resolve("m") == version
        assert registry.verify().intact


def test_variable_names_the_database_of_a_new_registry_and_its_password_stays_there(
    tmp_path: Path,
    make_database: Any,
    write_files: Write,
    fingerprints: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    address = make_database()
    with_password = address.replace("postgres@", f"postgres:{SECRET}@", 1)
    assert with_password != address
    monkeypatch.setenv(VARIABLE, with_password)
    version = _registered(tmp_path / "r", write_files, fingerprints[0])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in caplog.text
    monkeypatch.setenv(VARIABLE, with_password.replace(_name(address), "no_such_database"))
    with pytest.raises(DatabaseUnreachable, match="no_such_database") as caught:
        Lookup(tmp_path / "r")
    assert SECRET not in str(caught.value) + str(caught.value.__cause__) + caplog.text
    monkeypatch.delenv(VARIABLE)
    with Lookup(tmp_path / "r") as lookup:
        assert lookup.resolve("m") == version


@pytest.mark.parametrize("way", ["the variable", "PGPASSWORD", "PGPASSFILE"])
def test_password_that_the_server_asks_for(
    tmp_path: Path, make_database: Any, server: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    import psycopg

    address = make_database()
    server.execute(f"CREATE ROLE tunewright_guest LOGIN PASSWORD '{SECRET}'")
    try:
        server.execute(f"ALTER DATABASE {_name(address)} OWNER TO tunewright_guest")
        guest = address.replace("postgres@", "tunewright_guest@", 1)
        with suppress(psycopg.OperationalError):
            psycopg.connect(guest).close()
            pytest.skip("this server trusts whoever comes")
        for wrong in (None, SECRET[:-1]):
            if wrong is not None:
                monkeypatch.setenv("PGPASSWORD", wrong)
            with pytest.raises(DatabaseUnreachable, match="password") as caught:
                Registry.open(tmp_path / "r", database=guest)
            assert wrong is None or wrong not in str(caught.value).replace(VARIABLE, "")
        monkeypatch.delenv("PGPASSWORD")
        database: str | None = guest
        if way == "the variable":
            monkeypatch.setenv(VARIABLE, address.replace("postgres@", f"tunewright_guest:{SECRET}@", 1))
            database = None
        elif way == "PGPASSWORD":
            monkeypatch.setenv("PGPASSWORD", SECRET)
        else:
            (tmp_path / "pgpass").write_text(f"*:*:*:tunewright_guest:{SECRET}\n")
            (tmp_path / "pgpass").chmod(0o600)
            monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        with Registry.open(tmp_path / "r", database=database) as registry, Lookup(tmp_path / "r") as lookup:
            assert registry.versions() == lookup.versions() == []
        assert json.loads((tmp_path / "r" / BINDING).read_text())["database"] == guest
    finally:
        server.execute(f"DROP DATABASE {_name(address)} WITH (FORCE)")
        server.execute("DROP ROLE tunewright_guest")


def test_folder_on_another_database_is_refused(
    tmp_path: Path,
    make_database: Any,
    write_files: Write,
    fingerprints: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, others, empty = make_database(), make_database(), make_database()
    _registered(tmp_path / "mine", write_files, fingerprints[0], mine)
    _registered(tmp_path / "others", write_files, fingerprints[0], others)
    for wrong, says in ((others, "holds registry"), (empty, "holds no registry")):
        monkeypatch.setenv(VARIABLE, wrong)
        for use in (Lookup, Registry.open):
            with pytest.raises(WrongDatabase, match=says) as caught:
                use(tmp_path / "mine")
            assert caught.value.exit_status == 2
            assert caught.value.next_step
    monkeypatch.setenv(VARIABLE, mine)
    with pytest.raises(WrongDatabase, match="this folder is not its folder"):
        Registry.open(tmp_path / "new")
    assert not (tmp_path / "new" / BINDING).exists()
    with pytest.raises(RegistryNotFound):
        Lookup(tmp_path / "new")
    monkeypatch.delenv(VARIABLE)
    assert _registered(tmp_path / "mine", write_files, fingerprints[0]).version == 1


def test_two_folders_that_claim_one_empty_database_at_once_are_told_apart(tmp_path: Path, make_database: Any) -> None:
    address = make_database()

    def claim(number: int) -> Any:
        try:
            Registry.open(tmp_path / str(number), database=address).close()
        except WrongDatabase:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        won = [number for number in pool.map(claim, range(4)) if number is not None]
    assert len(won) == 1
    assert [number for number in range(4) if (tmp_path / str(number) / BINDING).exists()] == won


def test_making_cut_off_between_database_and_folder_is_finished_by_the_next(
    tmp_path: Path, make_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, write = make_database(), database.write_binding

    def cut_off(folder: Path, binding: Any) -> None:
        if binding.made:
            raise KeyboardInterrupt
        write(folder, binding)

    monkeypatch.setattr(database, "write_binding", cut_off)
    with pytest.raises(KeyboardInterrupt):
        Registry.open(tmp_path / "r", database=address)
    monkeypatch.undo()
    claim = json.loads((tmp_path / "r" / BINDING).read_text())
    with pytest.raises(WrongDatabase):  # nobody else gets it
        Registry.open(tmp_path / "other", database=address)
    with Registry.open(tmp_path / "r") as registry:  # a claim remembers the address, too
        assert registry.versions() == []
    assert json.loads((tmp_path / "r" / BINDING).read_text()) == {**claim, "made": True}


def test_database_or_schema_of_something_else_is_left_alone(tmp_path: Path, make_database: Any) -> None:
    import psycopg

    address = make_database()
    with psycopg.connect(address, autocommit=True) as other:
        other.execute("CREATE TABLE versions (id integer)")
        with pytest.raises(WrongDatabase, match="something else"):
            Registry.open(tmp_path / "r", database=address)
        found = other.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert found == (1,)
        # a schema of its own in the same database is as good as a database
        other.execute("CREATE SCHEMA registry")
    own = address + ("&" if "?" in address else "?") + "options=-csearch_path%3Dregistry"
    with Registry.open(tmp_path / "r", database=own) as registry:
        assert registry.versions() == []
    with Lookup(tmp_path / "r") as lookup:
        assert lookup.versions() == []


def test_database_in_another_encoding_is_refused(tmp_path: Path, make_database: Any, server: Any) -> None:
    address = make_database()
    server.execute(f"DROP DATABASE {_name(address)}")
    server.execute(f"CREATE DATABASE {_name(address)} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(DatabaseRefused, match="LATIN1"):
        Registry.open(tmp_path / "r", database=address)


def test_user_without_rights_is_told(tmp_path: Path, make_database: Any, server: Any) -> None:
    address = make_database()
    role = f"guest_{_name(address)[-8:]}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    try:
        guest = address.replace("postgres@", f"{role}@", 1)
        with pytest.raises(DatabaseRefused, match="permission denied") as caught:
            Registry.open(tmp_path / "r", database=guest)
        assert "GRANT" in str(caught.value)
        assert caught.value.exit_status == 2
        # nothing was committed, so the folder is as free as before
        assert not (tmp_path / "r" / BINDING).exists()
        with Registry.open(tmp_path / "r") as registry:
            assert registry.verify().intact
        # a claim of another making, which may have come to its end, is not this call's to withdraw
        claim = json.dumps({"database": address, "registry": "b" * 32, "made": False})
        (tmp_path / "claimed").mkdir()
        (tmp_path / "claimed" / BINDING).write_text(claim)
        with pytest.raises(DatabaseRefused, match="permission denied"):
            Registry.open(tmp_path / "claimed", database=guest)
        assert json.loads((tmp_path / "claimed" / BINDING).read_text()) == json.loads(claim)
        with pytest.raises(RegistryNotFound, match="begun and not finished") as unfinished:
            Lookup(tmp_path / "claimed")
        assert _name(address) in str(unfinished.value)
        assert BINDING in str(unfinished.value)
        with pytest.raises(RegistryNotFound, match="begun and not finished"):
            Registry.open(tmp_path / "claimed", create=False)
    finally:
        server.execute(f"DROP ROLE {role}")


def test_server_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    nowhere = "postgresql://ada@127.0.0.1:1/models"
    with pytest.raises(DatabaseUnreachable, match=r"ada@127\.0\.0\.1:1/models") as caught:
        Registry.open(tmp_path / "r", database=nowhere)
    assert caught.value.exit_status == 2
    assert caught.value.allowed
    assert caught.value.next_step
    assert not (tmp_path / "r").exists()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / BINDING).write_text(json.dumps({"database": nowhere, "registry": "a", "made": True}))
    for use in (Lookup, Registry.open):
        with pytest.raises(DatabaseUnreachable):
            use(tmp_path / "r")


def test_read_only_database_can_be_looked_up_and_refuses_to_be_written(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any
) -> None:
    version = passing("one")
    name = _name(json.loads((registry.folder / BINDING).read_text())["database"])
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Registry.open(registry.folder) as fresh:
        assert fresh.resolve("text2sql") == version
        with pytest.raises(DatabaseRefused, match="read-only"):
            fresh.promote("text2sql", "champion", policy=policy, actor="ada")


def test_servers_own_settings_weaken_nothing(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, server: Any
) -> None:
    name = _name(json.loads((registry.folder / BINDING).read_text())["database"])
    settings = ["default_transaction_isolation = 'serializable'", "synchronous_commit = off", "lock_timeout = 1"]
    limits = ["statement_timeout"] + ["transaction_timeout"] * (server.info.server_version >= 170000)
    for setting in settings + [f"{limit} = '2s'" for limit in limits]:
        server.execute(f"ALTER DATABASE {name} SET {setting}")
    for number in range(4):
        passing(str(number))
    engine = open_engine(registry.folder, create=False)
    with writing(engine) as writer:
        shown = [
            writer.query(f"SHOW {setting}", ())[0][0]
            for setting in ("transaction_isolation", "synchronous_commit", "lock_timeout", *limits)
        ]
    assert shown == ["read committed", "on", f"{database.BUSY_TIMEOUT_SECONDS}s"] + ["0"] * len(limits)
    engine.dispose()
    with ThreadPoolExecutor(4) as pool:
        act = lambda n: registry.promote(f"text2sql:v{n}", "champion", policy=policy, actor="ada")  # noqa: E731
        changes = list(pool.map(act, range(1, 5)))
    assert sorted(change.revision for change in changes) == [1, 2, 3, 4]
    assert registry.verify().intact


def test_waiting_for_the_write_lock_is_no_statement_that_took_too_long(
    registry: Registry, add_base: Any, backend: Any, server: Any
) -> None:
    name = _name(json.loads((registry.folder / BINDING).read_text())["database"])
    holder = backend.connect(registry.folder)
    holder.execute("SELECT pg_advisory_lock(?)", (WRITE_LOCK,))
    server.execute(f"ALTER DATABASE {name} SET statement_timeout = '500ms'")
    with Registry.open(registry.folder) as limited, ThreadPoolExecutor(1) as pool:
        writing_one = pool.submit(
            limited.record_run, "m", "s", 0, base_fingerprint="0" * 64, content_key=None, document={}
        )
        time.sleep(1.5)
        assert not writing_one.done()
        holder.execute("SELECT pg_advisory_unlock(?)", (WRITE_LOCK,))
        assert writing_one.result().number == 0
        with pytest.raises(DatabaseRefused, match="broke off what was asked") as caught:
            limited._lookup.query("SELECT pg_sleep(2)", ())
    assert "statement_timeout" in str(caught.value)
    assert "GRANT" not in str(caught.value)


def test_write_lock_held_too_long_is_told(
    registry: Registry, add_base: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 1)
    holder = backend.connect(registry.folder)
    holder.execute("SELECT pg_advisory_lock(?)", (WRITE_LOCK,))
    with pytest.raises(RegistryBusy, match="write lock") as caught:
        add_base()
    assert caught.value.exit_status == 4
    assert registry.versions() == []  # readers go on
    holder.execute("SELECT pg_advisory_unlock(?)", (WRITE_LOCK,))
    assert add_base().version == 1


def test_ids_are_committed_in_their_order_though_they_leave_gaps(
    registry: Registry, add_base: Any, passing: Callable[[str], Version], backend: Any
) -> None:
    add_base()
    raw = backend.connect(registry.folder)
    for table in ("versions", "outbox", "evaluations"):
        raw.execute("SELECT nextval(pg_get_serial_sequence(?, 'id'))", (table,))  # as an act that was undone leaves it
    version = passing("one")
    assert version.id > version.version + 1
    ids = [entry.id for entry in registry.outbox()]
    assert ids == sorted(ids)
    assert registry.outbox(after=ids[0]) == registry.outbox()[1:]
    assert registry.lineage("text2sql").edges[0].role == "base"
    assert registry.verify().intact


def test_rules_hold_for_whoever_turns_triggers_off_or_shadows_a_table(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, backend: Any
) -> None:
    passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="ada")
    raw = backend.connect(registry.folder)
    raw.execute("SET session_replication_role = replica")
    for statement in ("UPDATE versions SET number = 7", "TRUNCATE audit", "DELETE FROM outbox"):
        with pytest.raises(raw.error, match="insert-only"):
            raw.execute(statement)
    raw.execute("SET session_replication_role = origin")
    raw.execute("CREATE TEMPORARY TABLE alias_events (LIKE public.alias_events)")
    with pytest.raises(raw.error, match="not the next one"):
        raw.execute(
            "INSERT INTO public.alias_events (name, alias, revision, version_id, action, actor, created_at) "
            "VALUES ('text2sql', 'champion', 1, 2, 'promote', 'eve', 't')"
        )


def test_names_are_sorted_as_on_sqlite_whatever_the_servers_locale(
    registry: Registry, write_files: Write, fingerprints: tuple[str, str]
) -> None:
    names = ["b", "B", "a-c", "ab", "a.d", "A"]
    for name in names:
        files = write_files(name)
        registry.register(
            name, Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0]), files
        )
    assert [version.name for version in registry.versions()] == sorted(names)
    raw_collations = registry._lookup.query(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND column_name IN ('name', 'alias', 'digest')",
        (),
    )
    assert [tuple(row) for row in raw_collations] == [("C",)]
