"""What the disk doesn't give or take is told as the registry's own errors, and what was done before it is on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import BlobCorrupted, ExportRefused, RegistryPathError
from registry.export import CARD_FILE, peft_layout, unmerged_problem
from registry.manifest import Manifest, Parent, describe_files
from registry.oci import oci_layout
from registry.outbox import Places
from registry.private_file import read_private, write_private
from registry.store import Registry

Add = Callable[..., Version]


@pytest.fixture
def unreadable(registry: Registry, add_base: Add) -> Version:
    """A version one of whose blobs is there and can't be opened, not even by root."""
    version = add_base()
    blob = registry.blobs.local_path(version.manifest.files["config.json"].sha256)
    assert blob is not None
    blob.unlink()
    blob.mkdir()
    return version


def test_a_blob_that_can_not_be_read_is_damage_like_any_other(
    registry: Registry, unreadable: Version, tmp_path: Path
) -> None:
    assert [(one.subject, one.path) for one in registry.verify().problems] == [("tiny-base:v1", "config.json")]
    with pytest.raises(BlobCorrupted, match="can't be read"):
        registry.checkout("tiny-base", tmp_path / "out")


def test_what_a_collection_removed_before_it_failed_is_audited(
    registry: Registry, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        path = write_files(f"garbage {number}")["model.safetensors"]
        entry = describe_files({"model.safetensors": path})["model.safetensors"]
        with path.open("rb") as stream:
            registry.blobs.put(stream, entry.sha256, entry.size)
    stored = sorted(sha256 for sha256, _ in registry.blobs.stored())
    plain = registry.blobs._files.rm_file

    def remove(path: str) -> None:
        if path.endswith(stored[-1]):
            raise PermissionError(13, "Permission denied")
        plain(path)

    monkeypatch.setattr(registry.blobs._files, "rm_file", remove)
    with pytest.raises(RegistryPathError, match=f"blob {stored[-1]} can't be removed"):
        registry.collect(grace_seconds=0, actor="ada")
    assert sorted(sha256 for sha256, _ in registry.blobs.stored()) == stored[-1:]
    assert registry.audit()[-1].payload["blobs"] == stored[:-1]


def test_an_adapter_without_its_config_has_no_peft_form(registry: Registry, add_base: Add, write_files: Any) -> None:
    base = add_base()
    files = {"model.safetensors": write_files("bare")["model.safetensors"]}
    manifest = Manifest(
        "adapter", describe_files(files), base_fingerprint=base.base_fingerprint,
        parents=(Parent(base.digest, "base"),), peft_config={"peft_type": "LORA"},
    )  # fmt: skip
    version = registry.register("bare", manifest, files)
    with pytest.raises(ExportRefused, match=r"bare:v1 has no adapter_config\.json"):
        peft_layout(registry.blobs, version, "base", "card")
    with pytest.raises(ExportRefused, match=r"bare:v1 has no adapter_config\.json"):
        unmerged_problem(registry.blobs, version, base)


def test_a_versions_own_readme_is_in_the_layout_beside_the_card(
    registry: Registry, write_files: Any, tmp_path: Path
) -> None:
    files = write_files("with readme")
    for name in (CARD_FILE, "tunewright-card.md"):  # of an earlier export
        files[name] = tmp_path / name
        files[name].write_text(f"# Ours, {name}\n")
    manifest = Manifest("base", describe_files(files), base_fingerprint="d" * 64)
    version = registry.register("tiny", manifest, files)
    blobs = oci_layout(version, "the card").files
    assert {f"blobs/sha256/{entry.sha256}" for entry in manifest.files.values()} <= set(blobs)
    assert "the card" in blobs.values()


def test_a_private_file_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(RegistryPathError, match="can't be read as JSON"):
        read_private(path)


@pytest.mark.parametrize("document", [{"position": "far"}, {"position": 1, "dead": "no"}, {"unknown": 1}])
def test_a_place_that_says_nothing_of_a_reader_is_told(tmp_path: Path, document: dict[str, Any]) -> None:
    write_private(tmp_path / "reader.json", document)
    with pytest.raises(RegistryPathError, match="does not say how far its reader has been told"):
        Places(tmp_path).of("reader")
