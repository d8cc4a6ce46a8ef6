"""The registries of the contest: ours and MLflow's store, filled alike and asked for the same.

Both are called in process, below any server. Rows that only make the tables long are written in bulk, past the stores:
what is timed goes through them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from registry.gate import Policy
from registry.manifest import FileEntry, Manifest, Parent, describe_files
from registry.store import Registry

__all__ = ["ALIAS", "MODEL", "POLICY", "VERSIONS_A_MODEL", "Contestant", "MLflow", "Tunewright", "weights_file"]

VERSIONS_A_MODEL = 100
MODEL = "model"
ALIAS = "champion"
AT_ONCE = 10_000
POLICY = Policy(min_rows=100)
NOW = "2026-01-01T00:00:00.000000Z"
FINGERPRINT = hashlib.sha256(b"base").hexdigest()
FILLER = {"model.safetensors": FileEntry(size=8, sha256="0" * 64)}
REPORT = {
    "task": {"metric": "accuracy", "test_digest": "t", "n": 200, "base": 0.1, "tuned": 0.5, "delta": 0.4, "low": 0.3,
             "high": 0.5},
    "tax": [{"suite": "piqa", "n": 100, "delta": 0.0, "low": -0.01, "high": 0.01}],
}  # fmt: skip


class Contestant(Protocol):
    """What both are asked for, lineage apart. A model of ten versions is there beside those that fill the tables."""

    name: str

    def resolve(self) -> object:
        """Find the version that an alias points at."""

    def create(self) -> object:
        """Add a version."""

    def promote(self) -> object:
        """Move the alias between two versions."""

    def list(self) -> object:
        """Read all versions of a model of `VERSIONS_A_MODEL`."""


def weights_file(path: Path, values: bytes) -> Path:
    """Write a safetensors file of one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    return path


class Tunewright:
    """Ours: every promotion goes through the gate, with the champion of that moment, and into the audit chain."""

    name = "Tunewright"

    def __init__(self, folder: Path, database: str | None, versions: int) -> None:
        self._source = weights_file(folder / "model.safetensors", b"weights")
        self._registry = Registry.open(folder / "registry", database=database)
        self._made = self._turn = 0
        self._fill(versions)
        files = describe_files({"model.safetensors": self._source})
        base = Manifest(kind="base", files=files, base_fingerprint=FINGERPRINT)
        self._base = self._registry.register("base", base, {"model.safetensors": self._source})
        for _ in range(10):
            digest = self.create().digest
            self._registry.record_evaluation(digest, REPORT)
        self.promote()

    def _fill(self, versions: int) -> None:
        from registry.schema import versions as table

        with self._registry._engine.begin() as connection:
            for rows in _in_bulk(versions):
                written = []
                for name, number in rows:
                    row = {"name": name, "number": number}
                    manifest = Manifest(kind="base", files=FILLER, base_fingerprint=FINGERPRINT, metadata=row)
                    written.append({**row, "digest": manifest.digest, "kind": "base",
                                    "base_fingerprint": FINGERPRINT, "content_key": None,
                                    "manifest": manifest.canonical, "created_at": NOW})  # fmt: skip
                connection.execute(table.insert(), written)

    def resolve(self) -> Any:
        """Find the version that an alias points at."""
        return self._registry.resolve(f"{MODEL}@{ALIAS}")

    def create(self) -> Any:
        """Register an adapter with its parent; its bytes are hashed, scanned, and found stored already."""
        self._made += 1
        manifest = Manifest(
            kind="adapter",
            files=describe_files({"model.safetensors": self._source}),
            base_fingerprint=FINGERPRINT,
            parents=(Parent(self._base.digest, "base"),),
            metadata={"made": self._made},
        )
        return self._registry.register(MODEL, manifest, {"model.safetensors": self._source})

    def promote(self) -> Any:
        """Move the alias to the other of two versions, each with a report that passes."""
        self._turn += 1
        return self._registry.promote(f"{MODEL}:v{1 + self._turn % 2}", ALIAS, policy=POLICY, actor="benchmark")

    def list(self) -> Any:
        """Read all versions of a model."""
        return self._registry.versions("filler-0")

    def lineage(self) -> Any:
        """Follow a version up to its base, and down."""
        return self._registry.lineage(f"{MODEL}:v5")


class MLflow:
    """MLflow's SQLAlchemy store: no digests, no gate, no history of aliases, no lineage between versions."""

    name = "MLflow"

    def __init__(self, folder: Path, database: str | None, versions: int) -> None:
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

        self._store = SqlAlchemyStore(database or f"sqlite:///{folder}/mlflow.db")
        self._turn = 0
        self._fill(versions)
        self._store.create_registered_model(MODEL)
        for _ in range(10):
            self.create()
        self.promote()

    def _fill(self, versions: int) -> None:
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel

        with self._store.ManagedSessionMaker() as session:
            for rows in _in_bulk(versions):
                names = sorted({name for name, number in rows if number == 1})
                workspace = {"workspace": "default"}
                session.execute(
                    SqlRegisteredModel.__table__.insert(),
                    [{**workspace, "name": name, "creation_time": 1, "last_updated_time": 1} for name in names],
                )
                session.execute(
                    SqlModelVersion.__table__.insert(),
                    [{**workspace, "name": name, "version": number, "creation_time": 1, "last_updated_time": 1,
                      "current_stage": "None", "source": "file:///x", "status": "READY"} for name, number in rows],
                )  # fmt: skip

    def resolve(self) -> Any:
        """Find the version that an alias points at."""
        return self._store.get_model_version_by_alias(MODEL, ALIAS)

    def create(self) -> Any:
        """Add a row with a source that nothing is known of."""
        return self._store.create_model_version(MODEL, "file:///x", None)

    def promote(self) -> Any:
        """Overwrite the alias."""
        self._turn += 1
        return self._store.set_registered_model_alias(MODEL, ALIAS, str(1 + self._turn % 2))

    def list(self) -> Any:
        """Search for the versions of a model."""
        return self._store.search_model_versions("name='filler-0'", max_results=VERSIONS_A_MODEL)


def _in_bulk(versions: int) -> Iterator[list[tuple[str, int]]]:
    """Yield names and numbers of the versions that fill the tables, a model whole in one piece."""
    rows: list[tuple[str, int]] = []
    for place in range(versions):
        rows.append((f"filler-{place // VERSIONS_A_MODEL}", 1 + place % VERSIONS_A_MODEL))
        if len(rows) == AT_ONCE or place == versions - 1:
            yield rows
            rows = []
