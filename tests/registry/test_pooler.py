"""A registry behind PgBouncer, which gives each transaction to whatever session of the server is free."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from registry.errors import DatabaseUnreachable
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

pytestmark = pytest.mark.integration

SETTINGS = """
[databases]
* = host={server} user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = {mode}
default_pool_size = 2
"""
FINGERPRINT = "b" * 64


@pytest.fixture
def pooler(request: pytest.FixtureRequest, postgres_server: str, make_database: Callable[..., str]) -> Iterator[str]:
    """The address of an empty database behind a pooler with two sessions on it."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    server = parse_qs(urlsplit(postgres_server).query).get("host", [""])[0]
    if program is None or not server.startswith("/"):
        pytest.skip("PgBouncer isn't installed here, or the tests' server is elsewhere")
    folder = Path(tempfile.mkdtemp(prefix="pooler-"))  # a socket's path is short
    owner = Path(server).owner()
    shutil.chown(folder, owner)
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(server=server, folder=folder, mode=request.param))
    with (folder / "log").open("wb") as log:
        # it refuses to run as root, and the server's socket is its owner's
        process = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, user=owner)
        try:
            for _ in range(200):
                if (folder / ".s.PGSQL.6432").exists():
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            name = urlsplit(make_database()).path
            yield f"postgresql://postgres@{name}?host={folder}&port=6432"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_many_threads_share_two_sessions_that_change_hands(
    pooler: str, write_files: Callable[..., dict[str, Path]], make_report: Callable[..., Any], tmp_path: Path
) -> None:
    files = write_files()
    described = describe_files(files)

    def work(number: int) -> None:
        with Registry.open(tmp_path / "registry") as registry:
            for turn in range(5):
                manifest = Manifest(
                    kind="adapter", files=described, base_fingerprint=FINGERPRINT,
                    parents=(Parent(base.digest, "base"),), metadata={"of": [number, turn]},
                )  # fmt: skip
                version = registry.register("text2sql", manifest, files)
                registry.record_evaluation(version.digest, make_report())
                registry.promote(version.digest, "champion", policy=Policy(), actor=f"worker-{number}")
                for _ in range(4):  # the third of a kind would be kept, were the session its own
                    assert registry.resolve(version.digest) == version
                    assert registry.resolve("text2sql@champion").name == "text2sql"

    with Registry.open(tmp_path / "registry", database=pooler) as registry:
        base = registry.register("tiny", Manifest("base", described, base_fingerprint=FINGERPRINT), files)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert registry.verify().intact
        assert len(registry.versions("text2sql")) == 30
        actions = [entry.action for entry in registry.audit()]
        assert [actions.count(one) for one in ("register", "evaluate", "promote")] == [31, 30, 30]
        assert registry.aliases("text2sql")[0].revision == 30
        assert registry._lookup.query("SELECT count(*) FROM pg_prepared_statements", ())[0][0] == 0


@pytest.mark.parametrize("pooler", ["statement"], indirect=True)
def test_a_pooler_without_transactions_is_said_to_be_none_for_a_registry(pooler: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="transaction blocks not allowed in statement pooling mode"):
        Registry.open(tmp_path / "registry", database=pooler)
