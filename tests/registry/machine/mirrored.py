"""A mirror's other side without MLflow: it keeps what it was told in a file, over deaths, and fails when asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from registry.entities import AliasState, Evaluation, Version
from registry.mlflow_target import MlflowTarget
from registry.status import Status
from registry.store import Registry


class RecordingTarget(MlflowTarget):
    """Takes the place of MLflow.

    Args:
        path: Where it keeps what it was told; in the registry's folder, so that a process dies before and after, too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("recorded://mirror")
        self.path = path
        # of the next calls: "before" (not done), "after" (done, and told as a failure), or anything else
        self.failures: list[str] = []

    def put_version(self, registry: Registry, version: Version, evaluation: Evaluation | None, status: Status) -> None:
        newest = None if evaluation is None else evaluation.digest
        self._tell([version.name, version.version, [version.digest, newest, status.state]])

    def put_alias(self, state: AliasState, reason: str | None) -> None:
        self._tell([state.name, state.alias, state.version])

    def drop_alias(self, name: str, alias: str) -> None:
        self._tell([name, alias, None])

    def _tell(self, words: list[Any]) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise ConnectionError("it is down")
        with self.path.open("a") as stream:
            stream.write(json.dumps(words) + "\n")
        if failure == "after":
            raise TimeoutError("no answer came")

    @property
    def holds(self) -> dict[tuple[str, Any], Any]:
        """What it was told last of each version and alias."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = {(name, what): value for name, what, value in map(json.loads, lines)}
        return {key: value for key, value in found.items() if value is not None}
