"""Manifests: one text for one content, and every contradiction refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import FileRefused, ManifestInvalid, RegistryInputError
from registry.manifest import FileEntry, Manifest, Parent

D = "d" * 64
FILES = {"model.safetensors": FileEntry(1, D)}


def _manifest(**changes: Any) -> Manifest:
    return Manifest(**{"kind": "base", "files": FILES, "base_fingerprint": D, **changes})


def test_digest_is_over_content_not_over_order() -> None:
    one = _manifest(metadata={"a": 1, "b": [2]}, library_versions={"x": "1", "y": "2"})
    two = _manifest(metadata={"b": [2], "a": 1}, library_versions={"y": "2", "x": "1"})
    assert one.digest == two.digest
    assert one.digest != _manifest(metadata={"a": 1}).digest


def test_manifest_comes_back_from_its_text() -> None:
    one = _manifest(kind="merged", parents=(Parent(D, "source", 0.5),), seed=3, quantization={"bits": 4}, licence="MIT")
    assert Manifest.from_json(one.canonical) == one
    assert Manifest.from_json(one.canonical).canonical == one.canonical


def test_mapping_changed_later_does_not_change_the_manifest() -> None:
    metadata: dict[str, Any] = {"a": {"b": 1}}
    files = dict(FILES)
    one = _manifest(metadata=metadata, files=files)
    digest = one.digest
    metadata["a"]["b"] = 2
    files["x.json"] = FileEntry(1, D)
    assert one.to_dict()["metadata"] == {"a": {"b": 1}}
    assert list(one.files) == ["model.safetensors"]
    assert Manifest.from_json(one.canonical).digest == digest


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../x.json", "a/../b.json", "/etc/passwd", "a\\b.json", "C:/x.json", ".hidden", "a//b", "a/",
     "x\n.json", "x\0.json", "a b.json", "/".join("a" * 9), "x" * 201, "é.json", "~/x"],
)  # fmt: skip
def test_hostile_path_is_refused(path: str) -> None:
    with pytest.raises(FileRefused):
        _manifest(files={path: FileEntry(1, D)})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "model"},
        {"files": {}},
        {"files": {"a.json": FileEntry(-1, D)}},
        {"files": {"a.json": FileEntry(True, D)}},
        {"files": {"a.json": FileEntry(1, "D" * 64)}},
        {"files": {"a.json": FileEntry(1, D), "A.json": FileEntry(1, D)}},
        {"files": {"a": FileEntry(1, D), "a/b.json": FileEntry(1, D)}},
        {"base_fingerprint": None},
        {"base_fingerprint": "short"},
        {"seed": 1.0},
        {"seed": True},
        {"content_key": ""},
        {"data_digests": {"a": "b"}},
        {"library_versions": {"a": 1}},
        {"metadata": None},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": object()}},
        {"parents": (Parent("x", "base"),)},
        {"parents": (Parent(D, ""),)},
        {"parents": (Parent(D, "a", float("inf")),)},
        {"parents": (Parent(D, "a"), Parent(D, "a"))},
        {"kind": "adapter"},
        {"kind": "adapter", "parents": (Parent(D, "base"), Parent("e" * 64, "base"))},
        {"kind": "merged"},
        {"kind": "quantized"},
    ],
)
def test_contradictory_manifest_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        _manifest(**changes)


_KEYS = st.sampled_from(["format", "kind", "files", "parents", "other"])
_VALUES = st.recursive(st.none() | st.integers(), lambda inner: st.dictionaries(_KEYS, inner, max_size=4), max_leaves=8)


@given(st.text(alphabet='{}[]":,fk1', max_size=20) | _VALUES.map(json.dumps))
def test_any_text_is_a_manifest_or_a_clear_refusal(text: str) -> None:
    with pytest.raises(RegistryInputError):
        Manifest.from_json(text)
