"""Results of costly steps, kept by what they read. The same key gives the same document, whether or not Prefect runs.

Prefect's own caching keys a task by its source and inputs, which misses a changed component or a changed file. Here a
key is the digest of everything that a step reads: data, its part of the recipe, the base's fingerprint, and the source
of the packages that it calls.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.files import digest_of, sha256_file, write_json
from components.runtime import release_memory

__all__ = ["Step", "StepStore", "library_versions", "released", "source_digest", "torchao_version"]

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "evaluate", "prefect", "dvc", "bentoml")


@dataclass(frozen=True)
class Step:
    """A step's result and how it was come by.

    Attributes:
        name: Name of the step.
        key: Digest of everything that it reads.
        document: What it found, plain JSON.
        cached: It was there already.
        seconds: Time that it took now.
    """

    name: str
    key: str
    document: dict[str, Any]
    cached: bool
    seconds: float


class StepStore:
    """Documents by step name and key, in a folder.

    Args:
        folder: Where they are; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self,
        name: str,
        reads: Mapping[str, Any],
        make: Callable[[str], dict[str, Any]],
        still_good: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> Step:
        """Return the document that is there for these inputs, or make and keep it.

        Args:
            name: Name of the step.
            reads: Everything that the result depends on, plain JSON.
            make: Called with the key when there is nothing to return.
            still_good: Says whether a kept document can still be used, such as whether files that it names exist.

        Returns:
            The step.
        """
        started = time.monotonic()
        kept = self.find(name, reads, still_good)
        if kept is not None:
            return kept
        key, path = self._place(name, reads)
        document = make(key)
        write_json(path, {"step": name, "key": key, "reads": dict(reads), "document": document})
        return Step(name, key, document, False, time.monotonic() - started)

    def find(
        self, name: str, reads: Mapping[str, Any], still_good: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> Step | None:
        """Return the document that is there for these inputs, or None; arguments as for `run`."""
        started = time.monotonic()
        key, path = self._place(name, reads)
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        if kept["key"] != key or not still_good(kept["document"]):
            return None
        return Step(name, key, kept["document"], True, time.monotonic() - started)

    def key(self, name: str, reads: Mapping[str, Any]) -> str:
        """Return the key of a step; arguments as for `run`."""
        return digest_of({"step": name, "reads": reads})

    def _place(self, name: str, reads: Mapping[str, Any]) -> tuple[str, Path]:
        key = self.key(name, reads)
        return key, self.folder / f"{name}-{key[:24]}.json"


@lru_cache
def source_digest(packages: Sequence[str]) -> str:
    """Return the hex sha256 over the source of some of our packages, such as `components/finetuning`."""
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return digest_of({str(path.relative_to(ROOT)): sha256_file(path) for path in files})


@lru_cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a run's numbers."""
    quantizing = torchao_version()
    known = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return known | ({} if quantizing is None else {"torchao": quantizing})


def torchao_version() -> str | None:
    """Return the version of torchao, which only quantized weights need; None where it isn't installed."""
    try:
        return importlib.metadata.version("torchao")
    except importlib.metadata.PackageNotFoundError:
        return None


def released(step: Step) -> Step:
    """Return a step, with its model's memory given back before the next one loads its own."""
    release_memory()
    return step
