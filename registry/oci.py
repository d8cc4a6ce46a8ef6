"""A version as an OCI image layout, which `oras`, `skopeo` and other tools push to any registry of container images.

Layout and manifest: OCI image-spec 1.1 (image-layout.md, manifest.md, descriptor.md). Media types and config: CNCF
ModelPack model-spec (docs/config.md). Every file is a layer as it is, with its name as title; the version's own
manifest is one more layer, so that nothing the registry knows of its bytes is lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from registry.entities import Version
from registry.errors import ExportRefused
from registry.export import Layout, Source, card_path
from registry.manifest import FileEntry

__all__ = ["MANIFEST_FILE", "oci_layout"]

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
WEIGHTS, SETTINGS, DOCUMENT = (
    f"application/vnd.cncf.model.{what}.v1.raw" for what in ("weight", "weight.config", "doc")
)
TITLE, PATH, REF_NAME = "org.opencontainers.image.title", "org.cncf.model.filepath", "org.opencontainers.image.ref.name"
# The version's manifest: its canonical text, whose sha256 is the version's digest.
MANIFEST_FILE = "tunewright-manifest.json"
DOCUMENT_SUFFIXES = (".md", ".txt")


def oci_layout(version: Version, card: str) -> Layout:
    """Return the layout of a version as an OCI image layout with one artifact, tagged `vN`.

    Args:
        version: Of any kind. An adapter's base is not in it; the manifest names its digest.
        card: Its model card.

    Raises:
        ExportRefused: A file of the version has the name that the manifest has in the layout.
    """
    if MANIFEST_FILE in version.manifest.files:
        raise ExportRefused(
            f"{version.label} has a file of its own by the name of {MANIFEST_FILE}, where the layout has its manifest",
            allowed="versions without one",
            next_step="register it without that file, which an earlier export has left",
        )
    files: dict[str, Source] = {
        **version.manifest.files,
        MANIFEST_FILE: version.manifest_json,
        card_path(version): card,
    }
    blobs: dict[str, Source] = {}
    layers = []
    for path, source in sorted(files.items()):
        size, digest = _measure(source)
        blobs[f"blobs/sha256/{digest}"] = source
        kept = {TITLE: path, PATH: path}
        layers.append({**_descriptor(_media_type(path), size, digest), "annotations": kept})
    config = _put(blobs, CONFIG_TYPE, _config(version, layers))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
        "annotations": _annotations(version),
    }
    tag = f"v{version.version}"
    entry = {**_put(blobs, MANIFEST_TYPE, manifest), "artifactType": ARTIFACT_TYPE, "annotations": {REF_NAME: tag}}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}
    whole: dict[str, Source] = {
        "oci-layout": _text({"imageLayoutVersion": "1.0.0"}),
        "index.json": _text(index),
        **blobs,
    }
    return Layout(whole, f"oras cp --from-oci-layout .:{tag} REGISTRY/{version.name.lower()}:{tag}", _notes(version))


def _notes(version: Version) -> tuple[str, ...]:
    base = next((parent.digest for parent in version.manifest.parents if parent.role == "base"), None)
    if version.kind not in ("adapter", "head") or base is None:
        return ()
    return (f"its base is not in it: export version {base[:12]} beside it",)


def _media_type(path: str) -> str:
    if path.endswith(".safetensors"):
        return WEIGHTS
    is_document = path == MANIFEST_FILE or path.endswith(DOCUMENT_SUFFIXES) or "." not in path
    return DOCUMENT if is_document and path not in ("merges.txt", "vocab.txt") else SETTINGS


def _config(version: Version, layers: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = version.manifest
    descriptor: dict[str, Any] = {
        "createdAt": version.created_at,
        "name": version.name,
        "version": f"v{version.version}",
        "revision": version.digest,
        "title": version.label,
    }
    if manifest.licence:
        descriptor["licenses"] = [manifest.licence]
    about: dict[str, Any] = {"format": "safetensors"}
    if manifest.quantization:
        about["quantization"] = str(manifest.quantization.get("method"))
    return {
        "descriptor": descriptor,
        "config": about,
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }


def _annotations(version: Version) -> dict[str, str]:
    manifest = version.manifest
    found = {
        "org.opencontainers.image.title": version.label,
        "org.opencontainers.image.version": f"v{version.version}",
        "org.opencontainers.image.created": version.created_at,
        "org.opencontainers.image.licenses": manifest.licence,
        "org.opencontainers.image.revision": version.digest,
        "dev.tunewright.kind": version.kind,
        "dev.tunewright.base-fingerprint": version.base_fingerprint,
    }
    return {key: value for key, value in found.items() if value is not None}


def _put(blobs: dict[str, Source], media_type: str, document: Mapping[str, Any]) -> dict[str, Any]:
    text = _text(document)
    size, digest = _measure(text)
    blobs[f"blobs/sha256/{digest}"] = text
    return _descriptor(media_type, size, digest)


def _descriptor(media_type: str, size: int, digest: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _measure(source: Source) -> tuple[int, str]:
    if isinstance(source, FileEntry):
        return source.size, source.sha256
    content = source.encode() if isinstance(source, str) else source.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
