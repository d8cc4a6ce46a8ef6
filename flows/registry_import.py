"""A folder in Hugging Face's form becomes a registered version: judged whole, measured, bound to its base, stored.

Everything is refused before anything is stored. What comes in this way is not proven by it: whole weights of kind
"base" are a point of reference like any base, and everything else waits for an evaluation (docs/decisions/0025).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, InputError
from components.files import digest_of
from components.models.adapter_shapes import check_fits
from components.models.adapters import KNOWN_TYPES
from components.models.bottleneck_layers import CONFIG_FILE, WEIGHTS_FILE
from components.models.fingerprint import (
    BINDING_FILE,
    Fingerprint,
    base_files,
    file_digest,
    fingerprint,
    read_binding,
    read_rope_scaling,
    write_binding,
)
from components.models.safety import check_base
from components.models.sources import HUB_ID
from flows.base_manifest import base_manifest, weights_key

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.folder_scan import ScannedFolder
    from registry.manifest import Manifest
    from registry.store import Registry

__all__ = ["IMPORT_KINDS", "import_folder"]

IMPORT_KINDS = ("base", "full", "adapter", "merged")
ORIGIN = "imported folder"
MAX_LICENCE = 200  # characters of a licence's name


@dataclass(frozen=True)
class _Prepared:
    """What is to be registered: a manifest, and where each of its files lies."""

    manifest: Manifest
    files: Mapping[str, Path]


def import_folder(
    registry: Registry,
    folder: Path,
    *,
    name: str,
    kind: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    actor: str | None = None,
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

    Returns:
        `version`, `digest`, `kind`, `base`, `licence`, `files`, `bytes`, `parameters`, `templates`, `left_out`, and
        `standing` with what may be done with it.

    Raises:
        InputError: A folder that is neither, a kind that doesn't fit, an adapter that doesn't fit its base, weights
            that are quantized.
        ConflictError: A file changed while it was imported.
        Registry errors: FileRefused for what may not enter; unknown or ambiguous REF; as `Registry.register`.
    """
    from registry.folder_scan import scan_folder

    if kind is not None and kind not in IMPORT_KINDS:
        raise InputError(f"unknown kind {kind!r}", allowed=", ".join(IMPORT_KINDS))
    named = None if base is None else registry.resolve(base)
    scanned = scan_folder(folder)
    is_adapter = _is_adapter(folder, kind)
    licence = licence or _stated_licence(folder) or "unknown"
    with tempfile.TemporaryDirectory(prefix="tunewright-import-") as temporary:
        if is_adapter:
            prepared = _adapter(registry, folder, scanned, named, licence, Path(temporary))
        else:
            prepared = _weights(folder, scanned, kind or ("base" if named is None else "full"), named, licence)
        version = registry.register(name, prepared.manifest, prepared.files, actor=actor)
    standing = registry.standing(version.digest)
    stored = version.manifest.files
    return {
        "version": version.label,
        "digest": version.digest,
        "kind": version.kind,
        "base": version.base_fingerprint,
        "licence": version.manifest.licence,
        "files": len(stored),
        "bytes": sum(entry.size for entry in stored.values()),
        "parameters": scanned.parameters,
        "templates": list(scanned.templates),
        "left_out": sorted(set(scanned.files) - set(stored)),
        "standing": standing.to_dict(),
    }


def _is_adapter(folder: Path, kind: str | None) -> bool:
    """Tell an adapter's folder from one of whole weights.

    Raises:
        InputError: It is neither, both, or not what `kind` says.
    """
    adapter, whole = ((folder / name).is_file() for name in (CONFIG_FILE, "config.json"))
    weights = [path.name for path in folder.glob("*.safetensors") if path.name != WEIGHTS_FILE]
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


def _weights(folder: Path, scanned: ScannedFolder, kind: str, base: Version | None, licence: str) -> _Prepared:
    from registry.manifest import Manifest, Parent

    if (kind == "base") != (base is None):
        raise InputError(
            f"--kind {kind} " + ("with --base" if base is not None else "without --base"),
            allowed="--kind base by itself; --kind full or merged with the --base that they were made from",
            next_step="give --base REF, or leave --kind out" if base is None else "leave one of the two out",
        )
    binding = _fingerprint(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if recipe := config.get("quantization_config"):
        method = recipe.get("quant_method") if isinstance(recipe, dict) else recipe
        raise InputError(
            f"the weights in {folder} are quantized ({method})",
            allowed="weights in float32, bfloat16 or float16",
            next_step="import the weights that they were made from, and quantize those: tunewright quantize",
        )
    files = base_files(folder)
    entries = {name: scanned.files[name] for name in files}
    _check_unchanged(files, scanned)
    metadata = {
        "origin": ORIGIN,
        "architectures": config.get("architectures"),
        "parameters": scanned.parameters,
        "dtypes": _dtypes(scanned),
    }
    if base is None:
        return _Prepared(base_manifest(binding, entries, licence, metadata), files)
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
    return _Prepared(manifest, files)


def _fingerprint(folder: Path) -> Fingerprint:
    """Check that a folder is a whole base, and compute its digests.

    Raises:
        InputError: It is none, or its settings have a form that nothing can be made of.
    """
    try:
        check_base(folder)
        return fingerprint(folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the settings in {folder} can't be understood: {type(error).__name__}: {error}",
            allowed="config.json, generation_config.json and tokenizer_config.json as transformers writes them",
            next_step="fetch the model again",
        ) from error


def _adapter(
    registry: Registry, folder: Path, scanned: ScannedFolder, named: Version | None, licence: str, staged: Path
) -> _Prepared:
    """Bind an adapter to its base; its config loses the path of its base, which is no name for one."""
    from registry.manifest import Manifest, Parent, describe_files

    if WEIGHTS_FILE not in scanned.files:
        raise InputError(
            f"{folder} has no {WEIGHTS_FILE}",
            allowed=f"{CONFIG_FILE} with {WEIGHTS_FILE}",
            next_step="save the adapter again with save_pretrained",
        )
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if config.get("peft_type") not in KNOWN_TYPES:
        raise InputError(
            f"the adapter in {folder} has the peft_type {config.get('peft_type')!r}", allowed=", ".join(KNOWN_TYPES)
        )
    recorded = read_binding(folder) if (folder / BINDING_FILE).is_file() else None
    base = _base_of(registry, folder, recorded, named)
    made = base.manifest
    binding = Fingerprint(str(base.base_fingerprint), str(made.tokenizer_digest), str(made.template_digest))
    held = check_fits(
        {name: tensor.shape for name, tensor in scanned.tensors[WEIGHTS_FILE].items()}, _shapes(registry, base)
    )
    scaling = read_rope_scaling(folder) if recorded else None
    trained_on, config["base_model_name_or_path"] = config.get("base_model_name_or_path"), None
    write_binding(staged, binding, scaling)
    (staged / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _check_unchanged({CONFIG_FILE: folder / CONFIG_FILE}, scanned)
    written = {name: staged / name for name in (CONFIG_FILE, BINDING_FILE)}
    # the weights are stored from where they lie, and held against the digest of what was judged
    files = {**written, WEIGHTS_FILE: folder / WEIGHTS_FILE}
    entries = {**describe_files(written), WEIGHTS_FILE: scanned.files[WEIGHTS_FILE]}
    manifest = Manifest(
        kind="adapter",
        files=entries,
        base_fingerprint=binding.base,
        tokenizer_digest=binding.tokenizer,
        template_digest=binding.template,
        peft_config=config,
        parents=(Parent(base.digest, "base"),),
        content_key=digest_of({"base": base.digest, "files": {name: entry.sha256 for name, entry in entries.items()}}),
        licence=licence,
        metadata={
            "origin": ORIGIN,
            "bound_by": "its own record" if recorded else "whoever imported it",
            # a path of somebody's machine says nothing here
            "trained_on_name": trained_on if HUB_ID.fullmatch(str(trained_on)) else None,
            "layers_held_against_base": held,
            "parameters": scanned.parameters,
            "dtypes": _dtypes(scanned),
            "rope_scaling": scaling.to_record() if scaling is not None else None,
        },
    )
    return _Prepared(manifest, files)


def _base_of(registry: Registry, folder: Path, recorded: Fingerprint | None, named: Version | None) -> Version:
    """Return the registered base of an adapter, as it records it or as it was named.

    Raises:
        InputError: Neither, or the two differ, or what was named has no weights to bind to.
    """
    from registry.manifest import WHOLE_KINDS
    from registry.status import RETIRED

    if named is not None and (named.kind not in WHOLE_KINDS or named.kind == "quantized"):
        raise InputError(
            f"{named.label} is of kind {named.kind!r} and can't be an adapter's base",
            allowed="versions with whole weights in floating point",
            next_step="tunewright registry ls shows the versions and their kinds",
        )
    if named is not None:
        made = named.manifest
        present = (named.base_fingerprint, made.tokenizer_digest, made.template_digest)
        if None in present:
            raise InputError(
                f"{named.label} doesn't say which tokenizer and chat template it has",
                allowed="a base that a run or an import registered",
                next_step="import the base again",
            )
        if recorded is not None and present != (recorded.base, recorded.tokenizer, recorded.template):
            raise InputError(
                f"the adapter in {folder} was trained on another base than {named.label}: it records "
                f"{recorded.base[:12]}, that is {str(named.base_fingerprint)[:12]}",
                allowed="exactly the base, tokenizer and chat template that the adapter was trained with",
                next_step="leave --base out, or name the base that it was trained on",
            )
        return named
    if recorded is None:
        raise InputError(
            f"the adapter in {folder} doesn't record which base it was trained on",
            allowed="--base REF, a registered version with whole weights",
            next_step="tunewright registry import FOLDER-OF-THE-BASE --name NAME, then this again with --base NAME",
        )
    statuses = registry.statuses()
    for version in reversed(registry.versions()):
        if statuses[version.digest].state == RETIRED:
            continue
        made = version.manifest
        found = (version.base_fingerprint, made.tokenizer_digest, made.template_digest)
        if version.kind in WHOLE_KINDS and found == (recorded.base, recorded.tokenizer, recorded.template):
            return version
    raise InputError(
        f"the adapter in {folder} was trained on base {recorded.base[:12]}, and no registered version is that",
        allowed="an adapter whose base is registered",
        next_step="tunewright registry import FOLDER-OF-THE-BASE --name NAME, then this again",
    )


def _shapes(registry: Registry, base: Version) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a base's tensors from the headers of its stored files."""
    from registry.tensors import read_header

    found: dict[str, tuple[int, ...]] = {}
    for name, entry in base.manifest.files.items():
        if name.endswith(".safetensors"):
            with registry.blobs.open(entry.sha256) as stream:
                found |= {tensor: held.shape for tensor, held in read_header(name, stream, entry.size).items()}
    return found


def _check_unchanged(files: Mapping[str, Path], scanned: ScannedFolder) -> None:
    """Refuse files that are no longer those that were judged; what is stored is held against the manifest later."""
    for name, path in files.items():
        if file_digest(path) != scanned.files[name].sha256:
            raise ConflictError(
                f"file {name} changed while it was imported", next_step="import a folder that nothing writes to"
            )


def _dtypes(scanned: ScannedFolder) -> list[str]:
    return sorted({tensor.dtype for tensors in scanned.tensors.values() for tensor in tensors.values()})


def _stated_licence(folder: Path) -> str | None:
    """Return the licence in the front matter of a folder's README.md, where it states one."""
    import yaml

    path = folder / "README.md"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    try:
        front = yaml.safe_load(text[4 : text.index("\n---", 4)])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # a card is for people; what can't be read states nothing
    if not isinstance(front, dict):
        return None
    stated = front.get("license_name") if front.get("license") == "other" else front.get("license")
    if not isinstance(stated, str) or not stated.isprintable() or not 0 < len(stated.strip()) <= MAX_LICENCE:
        return None
    return stated.strip()
