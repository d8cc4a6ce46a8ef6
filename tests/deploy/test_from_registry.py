"""From a REF to verified files: one version from beginning to end, and only what may be served."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError, VerdictError
from deploy.from_registry import version_files
from registry.entities import Version
from registry.errors import VersionRetired
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = "f" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as opened:
        yield opened


def register(registry: Registry, name: str, kind: str, content: str, *parents: Parent, **more: Any) -> Version:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    path = registry.folder.parent / f"{content}.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + content.encode())
    files = {"model.safetensors": path}
    manifest = Manifest(kind=kind, files=describe_files(files), base_fingerprint=FINGERPRINT, parents=parents, **more)
    return registry.register(name, manifest, files)


def measure(registry: Registry, version: Version) -> None:
    task = {"metric": "exact_match", "n": 200, "tuned": 0.5, "delta": 0.4, "low": 0.3, "high": 0.5}
    registry.record_evaluation(version.digest, {"task": task, "tax": [{"suite": "piqa", "low": -0.01}]})


@pytest.fixture
def base(registry: Registry) -> Version:
    return register(registry, "base", "base", "base")


@pytest.fixture
def adapter(registry: Registry, base: Version) -> Version:
    found = register(registry, "tiny", "adapter", "one", Parent(base.digest, "base"))
    measure(registry, found)
    return found


def test_version_that_was_found_proven_is_the_one_that_is_served(
    registry: Registry, base: Version, adapter: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = registry.standing

    def judge_then_register(ref: str) -> Any:
        standing = judged(ref)
        register(registry, "tiny", "adapter", "two", Parent(base.digest, "base"))  # another process, just now
        return standing

    monkeypatch.setattr(registry, "standing", judge_then_register)
    files = version_files(registry, "tiny", proven=True)
    assert (files.label, files.digest) == ("tiny:v1", adapter.digest)
    assert (files.base_folder, files.adapter_folder) == (
        registry.checkout(base.digest),
        registry.checkout(adapter.digest),
    )
    assert registry.resolve("tiny").label == "tiny:v2"


def test_unproven_version_is_refused_only_where_proof_is_asked_for(registry: Registry, base: Version) -> None:
    register(registry, "tiny", "adapter", "one", Parent(base.digest, "base"))
    with pytest.raises(VerdictError, match="tiny:v1 is not proven"):
        version_files(registry, "tiny", proven=True)
    assert version_files(registry, "tiny").label == "tiny:v1"


@pytest.mark.parametrize("kind", ["merged", "full", "quantized"])
def test_every_kind_of_whole_weights_can_be_served(registry: Registry, base: Version, kind: str) -> None:
    found = register(registry, "whole", kind, kind, Parent(base.digest, "source"), quantization={"method": "nf4"})
    files = version_files(registry, "whole")
    assert (files.base_folder, files.adapter_folder) == (registry.checkout(found.digest), None)
    assert files.quantization == "nf4"
    assert replace(files, manifest={"quantization": None}).quantization is None


def test_a_head_is_served_with_its_base(registry: Registry, base: Version) -> None:
    head = register(registry, "head", "head", "head", Parent(base.digest, "base"))
    files = version_files(registry, "head")
    assert (files.base_folder, files.adapter_folder) == (registry.checkout(base.digest), registry.checkout(head.digest))


def test_kind_without_weights_of_its_own_can_not_be_served(registry: Registry, base: Version) -> None:
    register(registry, "prompt", "prompt", "prompt", Parent(base.digest, "base"))
    with pytest.raises(InputError, match="'prompt' and can't be served"):
        version_files(registry, "prompt")


def test_deprecated_version_comes_with_a_warning_and_a_retired_one_not_at_all(
    registry: Registry, adapter: Version
) -> None:
    assert version_files(registry, "tiny").warning is None
    registry.deprecate("tiny", actor="ada", reason="older data")
    told = version_files(registry, "tiny").warning
    assert told is not None
    assert "tiny:v1 is deprecated" in told
    assert "by ada: older data" in told
    registry.retire("tiny", actor="ada", reason="nobody uses it")
    with pytest.raises(VersionRetired, match="can't be served"):
        version_files(registry, "tiny")
