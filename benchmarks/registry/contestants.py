"""The registries of the contest: ours and MLflow's store, filled alike and asked for the same.

Both are called in process, below any server. What is timed goes through the stores.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.registry.fill import (
    ALIAS,
    REPORT,
    VERSIONS_A_MODEL,
    fill_mlflow,
    fill_tunewright,
    filler,
)
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

__all__ = ["CONTESTANTS", "PROMOTED", "Contestant", "MLflow", "Tunewright", "weights_file"]

MODEL = "model"
# How many of the model's versions may become its champion.
PROMOTED = 10
POLICY = Policy(min_rows=100)
FINGERPRINT = hashlib.sha256(b"base").hexdigest()


class Contestant(Protocol):
    """What both are asked for, lineage apart. A model of ten versions is there beside those that fill the tables.

    Args:
        folder: Its own.
        database: A PostgreSQL database's address; None keeps everything in SQLite in the folder.
        versions: How many fill the tables, or will.
    """

    name: str

    def __init__(self, folder: Path, database: str | None, versions: int) -> None: ...

    def fill(self, tell: Callable[[int], object]) -> None:
        """Make the tables long, and the model that is promoted; `tell` is told how many versions are there."""

    def resolve(self) -> object:
        """Find the version that an alias points at, each time of another model."""

    def create(self) -> object:
        """Add a version."""

    def promote(self) -> object:
        """Move the alias between two versions."""

    def promote_to(self, number: int, actor: str) -> tuple[int, bool] | None:
        """Move the alias to one of the promoted; return its revision and whether it moved, if that is told."""

    def list(self) -> object:
        """Read all versions of a model, each time of another."""

    def close(self) -> None:
        """Close what is open."""


def weights_file(path: Path, values: bytes) -> Path:
    """Write a safetensors file of one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    return path


class _Chosen:
    """Which of the models that fill the tables is asked for next: the same ones for both contestants."""

    def __init__(self, versions: int) -> None:
        self._random = random.Random(0)
        self._versions = versions
        self._turn = 0

    def _any_model(self) -> str:
        return filler(self._random.randrange(max(1, self._versions // VERSIONS_A_MODEL)))

    def _other_number(self) -> int:
        self._turn += 1
        return 1 + self._turn % 2


class Tunewright(_Chosen):
    """Ours: every promotion goes through the gate, with the champion of that moment, and into the audit chain."""

    name = "Tunewright"

    def __init__(self, folder: Path, database: str | None, versions: int) -> None:
        super().__init__(versions)
        self._folder, self._database = folder, database
        self._made = 0
        self._registry = self._open()

    def _open(self) -> Registry:
        return Registry.open(self._folder / "registry", database=self._database)

    def fill(self, tell: Callable[[int], object]) -> None:
        """Make the tables long, and the model that is promoted."""
        fill_tunewright(self._registry._engine, self._versions, tell)
        self.close()  # a connection that filled tables is set up for that
        self._registry = self._open()
        self._source = weights_file(self._folder / "model.safetensors", b"weights")
        files = describe_files({"model.safetensors": self._source})
        base = Manifest(kind="base", files=files, base_fingerprint=FINGERPRINT)
        self._base = self._registry.register("base", base, {"model.safetensors": self._source})
        for _ in range(PROMOTED):
            self._registry.record_evaluation(self.create().digest, REPORT)
        self.promote()

    def resolve(self) -> Any:
        """Find the version that an alias points at."""
        return self._registry.resolve(f"{self._any_model()}@{ALIAS}")

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
        return self.promote_to(self._other_number(), "benchmark")

    def promote_to(self, number: int, actor: str) -> tuple[int, bool]:
        """Move the alias to one of the versions that have a report."""
        change = self._registry.promote(f"{MODEL}:v{number}", ALIAS, policy=POLICY, actor=actor)
        return change.revision, change.changed

    def list(self) -> Any:
        """Read all versions of a model."""
        return self._registry.versions(self._any_model())

    def lineage(self) -> Any:
        """Follow a version up to its base, and down."""
        return self._registry.lineage(f"{self._any_model()}:v{self._random.randint(2, VERSIONS_A_MODEL)}")

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()


class MLflow(_Chosen):
    """MLflow's SQLAlchemy store: no digests, no gate, no history of aliases, no lineage between versions."""

    name = "MLflow"

    def __init__(self, folder: Path, database: str | None, versions: int) -> None:
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

        super().__init__(versions)
        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        # each client names the driver in its own way
        address = None if database is None else database.replace("postgresql:", "postgresql+psycopg:", 1)
        self._store = SqlAlchemyStore(address or f"sqlite:///{folder}/mlflow.db")

    def fill(self, tell: Callable[[int], object]) -> None:
        """Make the tables long, and the model that is promoted."""
        fill_mlflow(self._store.engine, self._versions, tell)
        self._store.engine.dispose()  # a connection that filled tables is set up for that
        self._store.create_registered_model(MODEL)
        for _ in range(PROMOTED):
            self.create()
        self.promote()

    def resolve(self) -> Any:
        """Find the version that an alias points at."""
        return self._store.get_model_version_by_alias(self._any_model(), ALIAS)

    def create(self) -> Any:
        """Add a row with a source that nothing is known of."""
        return self._store.create_model_version(MODEL, "file:///x", None)

    def promote(self) -> Any:
        """Overwrite the alias."""
        return self.promote_to(self._other_number(), "benchmark")

    def promote_to(self, number: int, actor: str) -> None:
        """Overwrite the alias; there is no revision, and nobody is noted."""
        self._store.set_registered_model_alias(MODEL, ALIAS, str(number))

    def list(self) -> Any:
        """Search for the versions of a model."""
        return self._store.search_model_versions(f"name='{self._any_model()}'", max_results=VERSIONS_A_MODEL)

    def close(self) -> None:
        """Close the connections."""
        self._store.engine.dispose()


CONTESTANTS: dict[str, type[Contestant]] = {"Tunewright": Tunewright, "MLflow": MLflow}
