"""Rows that make the contestants' tables long, written in bulk past the stores, through each one's own schema.

Both get the same models: `VERSIONS_A_MODEL` versions each, an alias at one of them. Ours get what a registry has beside
them, too: the parents, the champions' reports, the audit chain and the outbox. Triggers, keys and indexes stay on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text

from registry.audit import GENESIS, chain_hash
from registry.canonical import canonical_json, sha256_text
from registry.manifest import FileEntry, Manifest, Parent

__all__ = ["ALIAS", "REPORT", "VERSIONS_A_MODEL", "fill_mlflow", "fill_tunewright", "filler"]

VERSIONS_A_MODEL = 100
ALIAS = "champion"
CHAMPION = 50
AT_ONCE = 10_000
NOW = "2026-01-01T00:00:00.000000Z"
FILES = {"model.safetensors": FileEntry(size=8, sha256="0" * 64)}
REPORT = {
    "task": {"metric": "accuracy", "test_digest": "t", "n": 200, "base": 0.1, "tuned": 0.5, "delta": 0.4, "low": 0.3,
             "high": 0.5},
    "tax": [{"suite": "piqa", "n": 100, "delta": 0.0, "low": -0.01, "high": 0.01}],
}  # fmt: skip
# While the tables are filled: more of SQLite's pages in memory, and there what undoes one row with its triggers.
FOR_BULK = ("PRAGMA cache_size = -262144", "PRAGMA temp_store = MEMORY")


def filler(number: int) -> str:
    """Return the name of a model that fills the tables."""
    return f"filler-{number}"


def fill_tunewright(engine: Engine, versions: int, tell: Callable[[int], object]) -> None:
    """Write models of a base and its adapters, each with an alias.

    Args:
        engine: Of an empty registry.
        versions: How many; the last model may have fewer than the others.
        tell: Told how many are there.
    """
    from registry.schema import audit, outbox
    from registry.schema import versions as table

    last = (0, GENESIS)
    with _connected(engine) as connection:
        _prepare(connection)
        for done, rows in _in_bulk(versions):
            written: dict[Any, list[dict[str, Any]]] = {table: [], audit: [], outbox: []}
            for row in _version_rows(rows):
                last, audited, told = _registered(row, last)
                written[table].append(row)
                written[audit].append(audited)
                written[outbox].append(told)
            with connection.begin():
                for into, several in written.items():
                    _insert(connection, into, several)
            tell(done)
        with connection.begin():
            connection.execute(text(
                "INSERT INTO version_parents (child_id, parent_id, role) SELECT c.id, p.id, 'base' FROM versions c "
                "JOIN versions p ON p.name = c.name AND p.number = 1 WHERE c.number > 1"
            ))  # fmt: skip
            report = canonical_json(REPORT)
            connection.execute(
                text(
                    "INSERT INTO evaluations (version_id, digest, report, created_at) "
                    "SELECT id, :digest, :report, created_at FROM versions WHERE number = :champion ORDER BY id"
                ),
                {"digest": sha256_text(report), "report": report, "champion": CHAMPION},
            )
            connection.execute(
                text(
                    "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, created_at) "
                    "SELECT name, :alias, 1, id, 'promote', 'fill', created_at FROM versions WHERE number = :champion "
                    "ORDER BY id"
                ),
                {"alias": ALIAS, "champion": CHAMPION},
            )
        _analyze(engine, connection)


def _version_rows(rows: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield rows as registering would write them, of manifests of which only the first of each kind is a real one."""
    base: dict[str, Any] | None = None
    adapter: dict[str, Any] | None = None
    parent = fingerprint = ""
    for name, number in rows:
        if number == 1:
            fingerprint = hashlib.sha256(name.encode()).hexdigest()
            if base is None:
                base = _content(Manifest(kind="base", files=FILES, base_fingerprint=fingerprint))
            content = {**base, "base_fingerprint": fingerprint}
        else:
            if adapter is None:
                first = Manifest(
                    kind="adapter", files=FILES, base_fingerprint=fingerprint, parents=(Parent(parent, "base"),)
                )
                adapter = _content(first)
            parents = [{**adapter["parents"][0], "digest": parent}]
            content = {**adapter, "base_fingerprint": fingerprint, "parents": parents}
        manifest = canonical_json({**content, "metadata": {"name": name, "number": number}})
        digest = sha256_text(manifest)
        if number == 1:
            parent = digest
        yield {
            "name": name, "number": number, "digest": digest, "kind": content["kind"], "manifest": manifest,
            "base_fingerprint": fingerprint, "content_key": None, "created_at": NOW,
        }  # fmt: skip


def _content(manifest: Manifest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(manifest.canonical)
    return content


def _registered(row: dict[str, Any], last: tuple[int, str]) -> tuple[tuple[int, str], dict[str, Any], dict[str, Any]]:
    """Return the audit chain's new end, the audit row and the outbox row of a version."""
    sequence, previous = last[0] + 1, last[1]
    payload = canonical_json(
        {"name": row["name"], "version": row["number"], "digest": row["digest"], "kind": row["kind"]}
    )
    values = {
        "sequence": sequence, "created_at": NOW, "actor": "fill", "action": "register",
        "subject": f"{row['name']}:v{row['number']}", "payload": payload, "previous_hash": previous,
    }  # fmt: skip
    digest = chain_hash(sequence, NOW, "fill", "register", values["subject"], payload, previous)
    told = {"created_at": NOW, "topic": "version.registered", "payload": payload}
    return (sequence, digest), {**values, "hash": digest}, told


def fill_mlflow(engine: Engine, versions: int, tell: Callable[[int], object]) -> None:
    """Write the same models, versions and aliases into the tables of an empty store of MLflow's."""
    from mlflow.store.model_registry.dbmodels.models import (
        SqlModelVersion,
        SqlRegisteredModel,
        SqlRegisteredModelAlias,
    )

    common = {"workspace": "default"}
    times = {"creation_time": 1, "last_updated_time": 1}
    with engine.connect() as connection:
        _prepare(connection)
        for done, rows in _in_bulk(versions):
            written: dict[Any, list[dict[str, Any]]] = {
                SqlRegisteredModel.__table__: [
                    {**common, **times, "name": name} for name, number in rows if number == 1
                ],
                SqlModelVersion.__table__: [
                    {**common, **times, "name": name, "version": number, "current_stage": "None",
                     "source": "file:///x", "status": "READY"} for name, number in rows
                ],
                SqlRegisteredModelAlias.__table__: [
                    {**common, "name": name, "alias": ALIAS, "version": number}
                    for name, number in rows if number == CHAMPION
                ],
            }  # fmt: skip
            with connection.begin():
                for into, several in written.items():
                    _insert(connection, into, several)
            tell(done)
        _analyze(engine, connection)


def _prepare(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection  # past SQLAlchemy, which would begin a transaction
        for pragma in FOR_BULK:
            driver.execute(pragma)


def _insert(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(table.insert(), rows)
        return
    names = list(rows[0])
    with (
        connection.connection.cursor() as cursor,
        cursor.copy(  # fires triggers as INSERT does
            f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
        ) as copy,
    ):
        for row in rows:
            copy.write_row([row[name] for name in names])


def _connected(engine: Engine) -> Connection:
    connection = engine.connect()
    if engine.dialect.name == "postgresql":  # whose acts begin and commit themselves
        connection = connection.execution_options(isolation_level="READ COMMITTED")
    return connection


def _analyze(engine: Engine, connection: Connection) -> None:
    """Do at once what PostgreSQL's own housekeeping does after a minute."""
    if connection.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as alone:
            alone.exec_driver_sql("VACUUM ANALYZE")


def _in_bulk(versions: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Yield how many there will be, and names and numbers of the next ones, a model whole in one piece."""
    rows: list[tuple[str, int]] = []
    for place in range(versions):
        rows.append((filler(place // VERSIONS_A_MODEL), 1 + place % VERSIONS_A_MODEL))
        if len(rows) == AT_ONCE or place == versions - 1:
            yield place + 1, rows
            rows = []
