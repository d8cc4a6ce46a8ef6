"""Small real files, manifests and registries. `registry` is parametrised: another backend is one more parameter."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = hashlib.sha256(b"base weights").hexdigest()
OTHER_FINGERPRINT = hashlib.sha256(b"other weights").hexdigest()


def safetensors(values: bytes) -> bytes:
    """A whole safetensors file with one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def report(delta: float = 0.2, *, low: float = 0.1, rows: int = 128, suite_low: float = -0.01) -> dict[str, Any]:
    """An evaluation report as the evaluation step writes it."""
    return {
        "task": {
            "metric": "execution_match",
            "n": rows,
            "base": 0.1,
            "tuned": 0.1 + delta,
            "delta": delta,
            "low": low,
            "high": delta + 0.1,
            "baseline": "few-shot",
        },
        "tax": [{"suite": "grammar", "digest": "0" * 64, "n": 50, "delta": 0.0, "low": suite_low, "high": 0.02}],
    }


@pytest.fixture
def make_report() -> Callable[..., dict[str, Any]]:
    return report


@pytest.fixture
def policy() -> Policy:
    """A policy that `make_report()` satisfies."""
    return Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)


@pytest.fixture
def fingerprints() -> tuple[str, str]:
    """Two bases' fingerprints: the one that `add_base` registers, and another."""
    return FINGERPRINT, OTHER_FINGERPRINT


@pytest.fixture
def passing(registry: Registry, add_adapter: Callable[..., Version]) -> Callable[[str], Version]:
    """Register an adapter whose evaluation satisfies `policy`."""

    def add(key: str) -> Version:
        version = add_adapter(key)
        registry.record_evaluation(version.digest, report())
        return version

    return add


@pytest.fixture(params=["sqlite"])
def open_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Registry]]:
    """Open the same registry again and again, as separate processes would."""
    opened: list[Registry] = []

    def open_one() -> Registry:
        opened.append(Registry.open(tmp_path / request.param / "registry"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def registry(open_registry: Callable[[], Registry]) -> Registry:
    return open_registry()


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Write a model folder; `content` makes its weights differ."""

    def write(content: str = "weights", **more: bytes) -> dict[str, Path]:
        folder = tmp_path / "sources" / hashlib.sha256(repr((content, more)).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        payload = {"model.safetensors": safetensors(content.encode()), "config.json": b'{"hidden_size": 64}', **more}
        for name, data in payload.items():
            (folder / name).write_bytes(data)
        return {name: folder / name for name in payload}

    return write


@pytest.fixture
def add_base(registry: Registry, write_files: Callable[..., dict[str, Path]]) -> Callable[..., Version]:
    def add(name: str = "tiny-base", fingerprint: str = FINGERPRINT, content: str = "base", **digests: str) -> Version:
        files = write_files(content)
        described = describe_files(files)
        manifest = Manifest(kind="base", files=described, base_fingerprint=fingerprint, licence="Apache-2.0", **digests)
        return registry.register(name, manifest, files)

    return add


@pytest.fixture
def add_adapter(
    registry: Registry, write_files: Callable[..., dict[str, Path]], add_base: Callable[..., Version]
) -> Callable[..., Version]:
    def add(key: str = "one", name: str = "text2sql", **changes: Any) -> Version:
        base = add_base()
        files = write_files(f"adapter {key}")
        values: dict[str, Any] = {
            "kind": "adapter",
            "files": describe_files(files),
            "base_fingerprint": FINGERPRINT,
            "parents": (Parent(base.digest, "base"),),
            "data_digests": {"train.jsonl": hashlib.sha256(b"rows").hexdigest()},
            "content_key": key,
            "seed": 7,
        }
        return registry.register(name, Manifest(**{**values, **changes}), files)

    return add
