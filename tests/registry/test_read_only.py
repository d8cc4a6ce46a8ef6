"""A registry in a folder that can't be written, a read-only mount for instance: looked up, verified and exported."""

from __future__ import annotations

import json
import runpy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from registry.errors import RegistryNotFound, RegistryPathError
from registry.http.tokens import Tokens
from registry.layout import DATABASE, READABLE_REVISIONS
from registry.lookup import Lookup
from registry.manifest import Manifest, describe_files
from registry.store import Registry

DUMPS = Path(__file__).parent / "dumps"
Add = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def add(folder: Path, tmp_path: Path, fingerprints: tuple[str, str]) -> Add:
    """Register a base by a name, and close the registry again."""

    def one(name: str) -> None:
        source = tmp_path / "config.json"
        source.write_text(json.dumps({"name": name}))
        files = {"config.json": source}
        with Registry.open(folder) as registry:
            registry.register(name, Manifest("base", describe_files(files), base_fingerprint=fingerprints[0]), files)

    return one


@pytest.fixture
def mounted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder by another path, where SQLite can't make the files that it wants beside one in WAL mode."""
    from registry.sqlite import _open_file

    mounted = folder.with_name("mounted")
    mounted.symlink_to(folder)
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN

    def refuse(path: Path) -> sqlite3.Connection:
        if path.parent == mounted:
            raise error
        return _open_file(path)

    monkeypatch.setattr("registry.sqlite._open_file", refuse)
    return mounted


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def test_look_ups_see_what_is_there_and_what_is_written_later(add: Add, mounted: Path) -> None:
    add("one")
    with Lookup(mounted) as lookup:
        assert [v.name for v in lookup.versions()] == ["one"]
        with lookup.snapshot():
            assert lookup.resolve("one").label == "one:v1"
            add("two")
            assert [v.name for v in lookup.versions()] == ["one"]
        assert [v.name for v in lookup.versions()] == ["one", "two"]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            lookup.query("DELETE FROM versions RETURNING id", ())


def test_rows_that_are_still_in_the_log_are_not_passed_over(folder: Path, add: Add, mounted: Path) -> None:
    add("one")
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    connection.execute("INSERT INTO outbox (topic, payload, created_at) VALUES ('a', '{}', 't')")
    with pytest.raises(RegistryPathError, match="unable to open") as refused:  # as a killed writer leaves it
        Lookup(mounted)
    connection.close()
    lookup = Lookup(mounted)
    assert "registry.db-wal" in str(refused.value.next_step)
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    connection.execute("INSERT INTO outbox (topic, payload, created_at) VALUES ('b', '{}', 't')")
    for _ in range(2):  # one that was open is told so as often as it asks, and goes on once they are in the file
        with pytest.raises(RegistryPathError, match="unable to open"):
            lookup.versions()
    connection.close()
    aside = (folder / DATABASE).rename(folder / "aside.db")
    with pytest.raises(RegistryNotFound):
        lookup.versions()
    aside.rename(folder / DATABASE)
    assert [v.name for v in lookup.versions()] == ["one"]
    assert lookup.query("SELECT topic FROM outbox WHERE topic IN ('a', 'b') ORDER BY topic", ()) == [("a",), ("b",)]
    lookup.close()


def test_verifying_and_exporting_write_nothing_there(folder: Path, add: Add, tmp_path: Path) -> None:
    from flows.registry_export import export_version

    add("one")
    before = _listing(folder)
    with Registry.open_to_read(folder) as registry:
        assert registry.verify().intact
        assert export_version(registry, "one", tmp_path / "out", "oci")["version"] == "one:v1"
        acts: list[Callable[[], Any]] = [
            lambda: registry.promote("one", "champion", actor="ada"),
            lambda: registry.record_evaluation(registry.resolve("one").digest, {}),
            lambda: registry.deprecate("one", actor="ada", reason="old"),
            lambda: registry.collect(),
        ]
        for act in acts:
            with pytest.raises(RegistryPathError, match="was opened to be read"):
                act()
    after = {name: found for name, found in _listing(folder).items() if not name.startswith(f"{DATABASE}-")}
    assert after == before


@pytest.mark.parametrize("revision", READABLE_REVISIONS)
def test_one_of_an_earlier_release_is_verified_as_it_is(folder: Path, tmp_path: Path, revision: str) -> None:
    fill: Callable[..., None] = runpy.run_path(str(DUMPS / "make.py"))["fill"]
    with Registry.open(tmp_path / "newest") as newest:
        fill(newest, tmp_path / "files")
    folder.mkdir()
    connection = sqlite3.connect(folder / DATABASE)
    connection.executescript((DUMPS / f"sqlite-{revision}.sql").read_text())
    connection.close()
    shutil.copytree(tmp_path / "newest" / "blobs", folder / "blobs")
    with Registry.open_to_read(folder) as registry:
        assert registry.verify().problems == ()
        assert registry.resolve("text2sql@champion").label == "text2sql:v1"
    connection = sqlite3.connect(folder / DATABASE)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)
    connection.close()


def test_a_token_that_can_not_be_noted_is_told(folder: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("one")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", refuse)
        with pytest.raises(RegistryPathError, match=r"tokens\.json can't be written: Read-only file system"):
            Tokens(folder).add("ci", "read")
    assert Tokens(folder).all() == ()
    Tokens(folder).add("ci", "read")


MOUNTED = """
set -e
mount --bind {folder} {folder}
mount -o remount,bind,ro {folder}
! touch {folder}/x 2>/dev/null
exec {python} -c '
import sys
from pathlib import Path
from registry.errors import RegistryNotFound, RegistryPathError
from registry.http.tokens import Tokens
from registry.store import Registry
folder = Path("{folder}")
with Registry.open_to_read(folder) as registry:
    print(registry.resolve("one").label, registry.verify().intact, registry.is_writable)
for act in (lambda: Tokens(folder).add("ci", "read"), lambda: Registry.open(folder)):
    try:
        act()
    except RegistryPathError as error:
        print("Read-only file system" in str(error) and "owner" not in str(error))
'
"""


@pytest.mark.integration
def test_a_real_read_only_mount(folder: Path, add: Add) -> None:
    add("one")
    unshare = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mounts of one's own here")
    script = MOUNTED.format(folder=folder, python=sys.executable)
    done = subprocess.run([*unshare, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["one:v1 True False", "True", "True", ""]), done.stderr
