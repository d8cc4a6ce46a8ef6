"""A folder in Hugging Face's form becomes a registered version: judged whole, measured, bound to its base, stored.

Everything is refused before anything is stored. What comes in this way is not proven by it: whole weights of kind
"base" are a point of reference like any base, and everything else waits for an evaluation (docs/decisions/0025).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, InputError
from components.files import digest_of
from components.models.bottleneck_layers import CONFIG_FILE, WEIGHTS_FILE
from components.models.fingerprint import (
    BINDING_FILE,
    Fingerprint,
    base_files,
    belongs_to_base,
    file_digest,
    fingerprint,
)
from components.models.safety import check_base
from flows.adapter_import import prepare_adapter
from flows.base_manifest import base_manifest, weights_key
from flows.origin_mark import stated_origin

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.folder_scan import ScannedFolder
    from registry.manifest import Manifest
    from registry.store import Registry

__all__ = ["IMPORT_KINDS", "import_folder"]

IMPORT_KINDS = ("base", "full", "adapter", "merged")
ORIGIN = "imported folder"
MAX_LICENCE = 200  # characters of a licence's name
MAX_FRONT_MATTER = 64 * 1024  # bytes of a card's; what is longer states nothing
CARD_FILE, MODEL_FILE = "README.md", "config.json"
# Kinds of whole weights into which something was trained: none of them is a point of reference.
MADE_KINDS = ("full", "merged", "quantized")


def import_folder(
    registry: Registry,
    folder: Path,
    *,
    name: str,
    kind: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    actor: str | None = None,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Judge, measure and register a folder of whole weights or of an adapter.

    Args:
        registry: An open registry.
        folder: config.json with safetensors, tokenizer and chat template; or adapter_config.json with
            adapter_model.safetensors.
        name: Name of the model.
        kind: One of `IMPORT_KINDS`. None takes what the folder is: an adapter; weights made from another version
            ("full") where `base` names it; else a base.
        base: REF of the registered base that an adapter belongs to, or that whole weights were made from. An adapter
            whose folder records its base's fingerprints finds it by itself.
        licence: Licence of the weights; None takes the one that the folder's README.md states.
        actor: Who imports, for the audit trail.
        progress: Told the bytes that are stored, and how many there are.

    Returns:
        `version`, `digest`, `kind`, `base` (its fingerprint), `base_version` (the registered base of an adapter),
        `same_bases` (other versions that are that base, where none was named), `licence`, `files`, `bytes`,
        `parameters`, `templates`, `left_out`, and `standing` with what may be done with it.

    Raises:
        InputError: A folder that is neither, a kind that doesn't fit, an adapter that doesn't fit its base, weights
            that are quantized, or weights as a base that were made from one.
        ConflictError: A file changed while it was imported; the same bytes are there with another licence than
            `licence`.
        Registry errors: FileRefused for what may not enter; unknown or ambiguous REF; as `Registry.register`.
    """
    from registry.folder_scan import scan_folder
    from registry.names import LICENCE_LENGTH, check_text

    if kind is not None and kind not in IMPORT_KINDS:
        raise InputError(f"unknown kind {kind!r}", allowed=", ".join(IMPORT_KINDS))
    check_text("licence", licence, LICENCE_LENGTH)
    named = None if base is None else registry.resolve(base)
    scanned = scan_folder(folder, keep=(MODEL_FILE, CONFIG_FILE, BINDING_FILE, CARD_FILE))
    is_adapter = _is_adapter(folder, scanned, kind)
    card = _front_matter(scanned.kept.get(CARD_FILE, b""))
    chosen = licence or _stated_licence(card) or "unknown"
    with tempfile.TemporaryDirectory(prefix="tunewright-import-") as temporary:
        if is_adapter:
            manifest, files, same_bases = prepare_adapter(
                registry, folder, scanned, named, licence=chosen, origin=ORIGIN, staged=Path(temporary)
            )
        else:
            kind = kind or ("base" if named is None else "full")
            same_bases = []
            manifest, files = _weights(folder, scanned, kind, named, chosen)
            if kind == "base":
                _check_nothing_made(registry, folder, manifest, card, _origin_of(scanned))
        version = registry.register(name, manifest, files, actor=actor, progress=progress)
    _check_licence(version, licence)
    standing = registry.standing(version.digest)
    stored = version.manifest.files
    return {
        "version": version.label,
        "digest": version.digest,
        "kind": version.kind,
        "base": version.base_fingerprint,
        "base_version": _base_label(registry, version),
        "same_bases": same_bases,
        "licence": version.manifest.licence,
        "files": len(stored),
        "bytes": sum(entry.size for entry in stored.values()),
        "parameters": scanned.parameters,
        "templates": list(scanned.templates),
        "left_out": sorted(set(scanned.files) - set(stored)),
        "standing": standing.to_dict(),
    }


def _base_label(registry: Registry, version: Version) -> str | None:
    base = next((parent for parent in version.manifest.parents if parent.role == "base"), None)
    return None if base is None else registry.resolve(base.digest).label


def _is_adapter(folder: Path, scanned: ScannedFolder, kind: str | None) -> bool:
    """Tell an adapter's folder from one of whole weights.

    Raises:
        InputError: It is neither, both, or not what `kind` says.
    """
    adapter, whole = (name in scanned.files for name in (CONFIG_FILE, MODEL_FILE))
    weights = [name for name in scanned.tensors if "/" not in name and name != WEIGHTS_FILE]
    if adapter and weights:
        raise InputError(
            f"{folder} holds an adapter and {weights[0]}: it could be either",
            allowed=f"{CONFIG_FILE} with {WEIGHTS_FILE}, or config.json with whole weights",
            next_step="put the adapter in a folder of its own",
        )
    if not adapter and not whole:
        raise InputError(
            f"{folder} is neither a model nor an adapter: it has no config.json and no {CONFIG_FILE}",
            allowed="a folder as save_pretrained writes it, with safetensors",
            next_step="name the folder in which the files lie",
        )
    if kind is not None and (kind == "adapter") != adapter:
        what = "an adapter" if adapter else "whole weights"
        raise InputError(
            f"{folder} holds {what}, and --kind {kind} was asked for",
            allowed="adapter" if adapter else ", ".join(k for k in IMPORT_KINDS if k != "adapter"),
            next_step="leave --kind out",
        )
    return adapter


def _weights(
    folder: Path, scanned: ScannedFolder, kind: str, base: Version | None, licence: str
) -> tuple[Manifest, dict[str, Path]]:
    from registry.manifest import Manifest, Parent

    if (kind == "base") != (base is None):
        raise InputError(
            f"--kind {kind} " + ("with --base" if base is not None else "without --base"),
            allowed="--kind base by itself; --kind full or merged with the --base that they were made from",
            next_step="give --base REF, or leave --kind out" if base is None else "leave one of the two out",
        )
    binding = _fingerprint(folder)
    config = json.loads(scanned.kept[MODEL_FILE])
    if recipe := config.get("quantization_config"):
        method = recipe.get("quant_method") if isinstance(recipe, dict) else recipe
        raise InputError(
            f"the weights in {folder} are quantized ({method})",
            allowed="weights in float32, bfloat16 or float16",
            next_step="import the weights that they were made from, and quantize those: tunewright quantize",
        )
    files = {name: folder / name for name in sorted(scanned.files) if "/" not in name and belongs_to_base(name)}
    entries = {name: scanned.files[name] for name in files}
    _check_unchanged(folder, files, scanned)
    metadata = {
        "origin": ORIGIN,
        "architectures": config.get("architectures"),
        "parameters": scanned.parameters,
        "dtypes": scanned.dtypes,
    }
    if base is None:
        return base_manifest(binding, entries, licence, metadata), files
    manifest = Manifest(
        kind=kind,
        files=entries,
        base_fingerprint=binding.base,
        tokenizer_digest=binding.tokenizer,
        template_digest=binding.template,
        parents=(Parent(base.digest, "base"),),
        content_key=digest_of({"weights": weights_key(binding, entries), "base": base.digest, "kind": kind}),
        licence=licence,
        metadata=metadata,
    )
    return manifest, files


def _fingerprint(folder: Path) -> Fingerprint:
    """Check that a folder is a whole base, and compute its digests.

    Raises:
        InputError: It is none, or its settings have a form that nothing can be made of.
    """
    try:
        check_base(folder)
        return fingerprint(folder)
    except FileNotFoundError as error:
        raise _changed(str(error.filename)) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the settings in {folder} can't be understood: {type(error).__name__}: {error}",
            allowed="config.json, generation_config.json and tokenizer_config.json as transformers writes them",
            next_step="fetch the model again",
        ) from error


def _origin_of(scanned: ScannedFolder) -> str | None:
    return stated_origin(json.loads(scanned.kept[MODEL_FILE]), scanned.metadata)


def _check_nothing_made(
    registry: Registry, folder: Path, manifest: Manifest, card: Mapping[str, Any], origin: str | None
) -> None:
    """Refuse weights as a base that somebody made from one: a base may be served without an evaluation.

    Raises:
        InputError: A registered version of another kind has this fingerprint or exactly these weights, the weights
            say that they were merged for an export, or the folder's card, which every export has, says what it was.
    """
    weights = _weights_of(manifest)
    for version in registry.versions():
        same = version.base_fingerprint == manifest.base_fingerprint or _weights_of(version.manifest) == weights
        if version.kind in MADE_KINDS and same:
            raise InputError(
                f"{folder} holds the weights of {version.label}, which is of kind {version.kind} and no base",
                allowed="as a base, weights that nothing is known to have been trained into",
                next_step="tunewright registry import FOLDER --name NAME --base REF, REF being what they were made "
                f"from; tunewright registry lineage {version.label} shows it",
            )
    found = card.get("tags")
    tags = found if isinstance(found, list) and "tunewright" in found else []
    stated = [kind for kind in ("adapter", *MADE_KINDS) if kind in tags]
    if stated:
        raise InputError(
            f"{folder} was exported from a version of kind {stated[0]}, as its {CARD_FILE} says: it is no base",
            allowed="as a base, weights that nothing is known to have been trained into",
            next_step="tunewright registry import FOLDER --name NAME --base REF, REF being what they were made from",
        )
    if origin is not None:
        raise InputError(
            f"the weights in {folder} say that they were made from {origin!r}: they are no base",
            allowed="as a base, weights that nothing is known to have been trained into",
            next_step="tunewright registry import FOLDER --name NAME --base REF, REF being what that was made from",
        )


def _weights_of(manifest: Manifest) -> list[str]:
    return sorted(entry.sha256 for name, entry in manifest.files.items() if name.endswith(".safetensors"))


def _check_licence(version: Version, licence: str | None) -> None:
    """Refuse to drop a licence that was given, where these bytes are there with another one."""
    stored = version.manifest.licence
    if licence is not None and licence.casefold() != str(stored).casefold():
        raise ConflictError(
            f"these bytes are {version.label} already, with the licence {stored!r}, and {licence!r} was given",
            allowed="the licence that is stored; what a version is can't be changed",
            next_step="leave --licence out",
        )


def _check_unchanged(folder: Path, files: Mapping[str, Path], scanned: ScannedFolder) -> None:
    """Refuse files that are no longer those that were judged; what is stored is held against the manifest later."""
    if odd := sorted(base_files(folder).keys() ^ files.keys()):
        raise _changed(odd[0])
    for name, path in files.items():
        try:
            digest = file_digest(path)
        except FileNotFoundError as error:
            raise _changed(name) from error
        if digest != scanned.files[name].sha256:
            raise _changed(name)


def _changed(name: str) -> ConflictError:
    return ConflictError(
        f"file {name} changed while it was imported", next_step="import a folder that nothing writes to"
    )


def _front_matter(card: bytes) -> dict[str, Any]:
    """Return the front matter of a folder's README.md; a card is for people, and what can't be read states nothing."""
    import yaml

    text = card[:MAX_FRONT_MATTER].decode(errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    front = text[4 : text.index("\n---", 4)]
    try:
        # an alias stands for what may be far larger than the text
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, Loader=yaml.SafeLoader)):
            return {}
        found = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _stated_licence(front: Mapping[str, Any]) -> str | None:
    """Return the licence that a card's front matter states."""
    stated = front.get("license_name") if front.get("license") == "other" else front.get("license")
    if not isinstance(stated, str) or not stated.isprintable() or not 0 < len(stated.strip()) <= MAX_LICENCE:
        return None
    return stated.strip()
