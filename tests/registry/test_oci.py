"""An exported layout is what the OCI image-spec and the ModelPack model-spec ask for, byte by byte."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from registry.entities import Version
from registry.export import write_folder
from registry.oci import ARTIFACT_TYPE, CONFIG_TYPE, INDEX_TYPE, MANIFEST_FILE, MANIFEST_TYPE, oci_layout
from registry.store import Registry

Add = Callable[..., Version]

# The rules of image-spec 1.1 (descriptor.md, manifest.md, image-index.md, image-layout.md) for what is written here.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE = {"type": "string", "pattern": f"^{_NAME}/{_NAME}$"}
ANNOTATIONS = {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"minLength": 1}}
DESCRIPTOR = {
    "type": "object",
    "required": ["mediaType", "digest", "size"],
    "properties": {
        "mediaType": MEDIA_TYPE,
        "digest": {"type": "string", "pattern": "^sha256:[a-f0-9]{64}$"},
        "size": {"type": "integer", "minimum": 0},
        "artifactType": MEDIA_TYPE,
        "annotations": ANNOTATIONS,
    },
    "additionalProperties": False,
}
MANIFEST = {
    "type": "object",
    "required": ["schemaVersion", "mediaType", "artifactType", "config", "layers"],
    "properties": {
        "schemaVersion": {"const": 2},
        "mediaType": {"const": MANIFEST_TYPE},
        "artifactType": MEDIA_TYPE,
        "config": DESCRIPTOR,
        "layers": {"type": "array", "minItems": 1, "items": DESCRIPTOR},
        "annotations": ANNOTATIONS,
    },
    "additionalProperties": False,
}
INDEX = {
    "type": "object",
    "required": ["schemaVersion", "mediaType", "manifests"],
    "properties": {
        "schemaVersion": {"const": 2},
        "mediaType": {"const": INDEX_TYPE},
        "manifests": {"type": "array", "minItems": 1, "items": DESCRIPTOR},
    },
    "additionalProperties": False,
}
LAYOUT = {
    "type": "object",
    "required": ["imageLayoutVersion"],
    "properties": {"imageLayoutVersion": {"const": "1.0.0"}},
}
# The rules of the ModelPack config (docs/config.md).
RFC_3339 = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
TEXT = {"type": "string"}
CONFIG = {
    "type": "object",
    "required": ["descriptor", "config", "modelfs"],
    "properties": {
        "descriptor": {
            "type": "object",
            "properties": {
                "createdAt": {
                    "type": "string",
                    "pattern": RFC_3339,
                },
                "name": {"type": "string", "minLength": 1},
                "licenses": {"type": "array", "items": TEXT},
                **dict.fromkeys(("version", "revision", "title", "description", "family", "vendor"), TEXT),
            },
            "additionalProperties": False,
        },
        "config": {
            "type": "object",
            "properties": dict.fromkeys(("architecture", "format", "paramSize", "precision", "quantization"), TEXT),
            "additionalProperties": False,
        },
        "modelfs": {
            "type": "object",
            "required": ["type", "diffIds"],
            "properties": {
                "type": {"const": "layers"},
                "diffIds": {"type": "array", "minItems": 1, "items": DESCRIPTOR["properties"]["digest"]},  # type: ignore[index]
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


def read_layout(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Read index, manifest and config as a tool that pushes does, holding every byte against its descriptor."""

    def blob(descriptor: dict[str, Any]) -> bytes:
        algorithm, _, digest = descriptor["digest"].partition(":")
        content = (folder / "blobs" / algorithm / digest).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (descriptor["size"], digest)
        return content

    jsonschema.validate(json.loads((folder / "oci-layout").read_text()), LAYOUT)
    index = json.loads((folder / "index.json").read_text())
    jsonschema.validate(index, INDEX)
    (entry,) = index["manifests"]
    manifest = json.loads(blob(entry))
    jsonschema.validate(manifest, MANIFEST)
    config = json.loads(blob(manifest["config"]))
    jsonschema.validate(config, CONFIG)
    reached = {entry["digest"], manifest["config"]["digest"]}
    for layer in manifest["layers"]:
        blob(layer)
        reached.add(layer["digest"])
    # nothing lies there that the index doesn't lead to
    assert {f"sha256:{path.name}" for path in (folder / "blobs" / "sha256").iterdir()} == reached
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "index.json", "oci-layout"]
    return index, manifest, config


def export(registry: Registry, version: Version, folder: Path, card: str = "# card\n") -> Path:
    write_folder(registry.blobs, oci_layout(version, card).files, folder)
    return folder


def test_a_layout_follows_the_specifications(registry: Registry, add_adapter: Add, tmp_path: Path) -> None:
    version = add_adapter(licence="Apache-2.0")
    index, manifest, config = read_layout(export(registry, version, tmp_path / "out"))
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "v1"
    assert index["manifests"][0]["artifactType"] == manifest["artifactType"] == ARTIFACT_TYPE
    assert manifest["config"]["mediaType"] == CONFIG_TYPE
    assert config["descriptor"]["revision"] == version.digest
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]


def test_every_file_is_a_layer_with_its_name_as_it_is(registry: Registry, add_adapter: Add, tmp_path: Path) -> None:
    version = add_adapter()
    _, manifest, _ = read_layout(export(registry, version, tmp_path / "out"))
    layers = {layer["annotations"]["org.opencontainers.image.title"]: layer for layer in manifest["layers"]}
    assert set(layers) == {*version.manifest.files, MANIFEST_FILE, "README.md"}
    for path, entry in version.manifest.files.items():
        assert layers[path]["digest"] == f"sha256:{entry.sha256}"
    # the registry's own manifest comes along, and its digest is the version's
    assert layers[MANIFEST_FILE]["digest"] == f"sha256:{version.digest}"
    kinds = {path: layer["mediaType"] for path, layer in layers.items()}
    assert kinds["model.safetensors"] == "application/vnd.cncf.model.weight.v1.raw"
    assert kinds["config.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert kinds["README.md"] == kinds[MANIFEST_FILE] == "application/vnd.cncf.model.doc.v1.raw"


def test_an_adapter_says_which_base_is_missing_and_a_base_says_nothing(
    registry: Registry, add_adapter: Add, add_base: Add
) -> None:
    (note,) = oci_layout(add_adapter(), "card").notes
    assert add_base().digest[:12] in note
    assert oci_layout(add_base(), "card").notes == ()


def test_the_command_names_a_repository_that_registries_take(registry: Registry, add_base: Add) -> None:
    command = oci_layout(add_base("Org/Tiny"), "card").command
    assert re.fullmatch(r"oras cp --from-oci-layout \.:v1 REGISTRY/org/tiny:v1", command)


@pytest.mark.parametrize("broken", ["digest", "size", "title"])
def test_the_rules_here_can_fail(registry: Registry, add_base: Add, tmp_path: Path, broken: str) -> None:
    folder = export(registry, add_base(), tmp_path / "out")
    index = json.loads((folder / "index.json").read_text())
    entry = index["manifests"][0]
    entry[broken] = {"digest": "sha256:" + "0" * 64, "size": entry["size"] + 1, "title": "x"}[broken]
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises((AssertionError, FileNotFoundError, jsonschema.ValidationError)):
        read_layout(folder)


@pytest.fixture
def image_registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry of container images (the one of CNCF's distribution), where it is installed."""
    missing = [program for program in ("skopeo", "docker-registry") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} isn't installed here")
    settings, log = tmp_path / "registry.yml", tmp_path / "log"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "store")}}
    settings.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": "127.0.0.1:0"}}))
    with log.open("wb") as told:
        process = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=told, stderr=told)
    try:
        for _ in range(200):
            if listening := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        assert listening is not None, log.read_text()
        yield listening[1]
    finally:
        process.terminate()
        process.wait()


@pytest.mark.integration
def test_other_tools_push_it_to_a_registry_of_images_and_have_it_back_byte_by_byte(
    registry: Registry, add_adapter: Add, image_registry: str, tmp_path: Path
) -> None:
    export(registry, add_adapter(), tmp_path / "out")
    there = f"docker://{image_registry}/text2sql:v1"
    for copy in (
        ("--dest-tls-verify=false", f"oci:{tmp_path / 'out'}:v1", there),
        ("--src-tls-verify=false", there, f"oci:{tmp_path / 'back'}:v1"),
    ):
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", *copy], check=True)

    def blobs(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()}

    assert blobs(tmp_path / "back") == blobs(tmp_path / "out")
    pushed = json.loads((tmp_path / "back" / "index.json").read_text())["manifests"][0]["digest"]
    assert pushed == json.loads((tmp_path / "out" / "index.json").read_text())["manifests"][0]["digest"]
