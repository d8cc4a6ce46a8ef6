"""An adapter of others becomes what is to be registered: bound to a registered base, and held against its shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.files import digest_of
from components.models.adapter_shapes import check_fits
from components.models.adapters import KNOWN_TYPES
from components.models.bottleneck_layers import CONFIG_FILE, WEIGHTS_FILE
from components.models.fingerprint import BINDING_FILE, Fingerprint, parse_binding, write_binding
from components.models.sources import HUB_ID

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.folder_scan import ScannedFolder
    from registry.manifest import Manifest
    from registry.store import Registry

__all__ = ["prepare_adapter"]


def prepare_adapter(
    registry: Registry,
    folder: Path,
    scanned: ScannedFolder,
    named: Version | None,
    *,
    licence: str,
    origin: str,
    staged: Path,
) -> tuple[Manifest, dict[str, Path], list[str]]:
    """Bind an adapter to its base; its config loses paths, which are no names for a base or a tokenizer.

    Args:
        registry: An open registry.
        folder: The adapter's folder.
        scanned: What was found in it; config and record of the base are read from there.
        named: The version that was named as its base, if any.
        licence: Licence of the weights.
        origin: For the manifest.
        staged: An empty folder for the files that are written anew.

    Returns:
        The manifest, where each of its files lies, and which other versions are the same base, where none was named.

    Raises:
        InputError: Not an adapter that is known, no base, or one that it doesn't fit.
    """
    from registry.manifest import Manifest, Parent, describe_files

    if WEIGHTS_FILE not in scanned.files:
        raise InputError(
            f"{folder} has no {WEIGHTS_FILE}",
            allowed=f"{CONFIG_FILE} with {WEIGHTS_FILE}",
            next_step="save the adapter again with save_pretrained",
        )
    config: dict[str, Any] = json.loads(scanned.kept[CONFIG_FILE])
    if config.get("peft_type") not in KNOWN_TYPES:
        raise InputError(
            f"the adapter in {folder} has the peft_type {config.get('peft_type')!r}", allowed=", ".join(KNOWN_TYPES)
        )
    record = scanned.kept.get(BINDING_FILE)
    recorded, scaling = (None, None) if record is None else parse_binding(record, folder)
    base, others = _base_of(registry, folder, recorded, named, str(config.get("base_model_name_or_path")))
    made = base.manifest
    binding = Fingerprint(str(base.base_fingerprint), str(made.tokenizer_digest), str(made.template_digest))
    held = check_fits(
        {name: tensor.shape for name, tensor in scanned.tensors[WEIGHTS_FILE].items()}, _shapes(registry, base)
    )
    trained_on, config["base_model_name_or_path"] = config.get("base_model_name_or_path"), None
    _clear_tokenizer(config, base)
    write_binding(staged, binding, scaling)
    (staged / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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
            "origin": origin,
            "bound_by": "its own record" if recorded else "whoever imported it",
            # a path of somebody's machine says nothing here
            "trained_on_name": trained_on if HUB_ID.fullmatch(str(trained_on)) else None,
            "layers_held_against_base": held,
            "parameters": scanned.parameters,
            "dtypes": scanned.dtypes,
            "rope_scaling": scaling.to_record() if scaling is not None else None,
        },
    )
    return manifest, files, others


def _clear_tokenizer(config: dict[str, Any], base: Version) -> None:
    """Take a path of somebody's machine out of a config; peft itself asks for a name where the prompt began as text."""
    named = config.get("tokenizer_name_or_path")
    if named is not None and not HUB_ID.fullmatch(str(named)):
        config["tokenizer_name_or_path"] = base.name if config.get("prompt_tuning_init") == "TEXT" else None


def _base_of(
    registry: Registry, folder: Path, recorded: Fingerprint | None, named: Version | None, called: str
) -> tuple[Version, list[str]]:
    """Return the registered base of an adapter, as it records it or as it was named, and what else is that base.

    Of several versions with the recorded fingerprints it is the newest of the model that the adapter's config calls its
    base, else the one that was registered last.

    Raises:
        InputError: Neither, or the two differ, or what was named has no weights to bind to.
    """
    from registry.card import hub_id
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
        return named, []
    if recorded is None:
        raise InputError(
            f"the adapter in {folder} doesn't record which base it was trained on",
            allowed="--base REF, a registered version with whole weights",
            next_step="tunewright registry import FOLDER-OF-THE-BASE --name NAME, then this again with --base NAME",
        )
    statuses = registry.statuses()
    found = []
    for version in registry.versions():
        if statuses[version.digest].state == RETIRED:
            continue
        made = version.manifest
        prints = (version.base_fingerprint, made.tokenizer_digest, made.template_digest)
        if version.kind in WHOLE_KINDS and prints == (recorded.base, recorded.tokenizer, recorded.template):
            found.append(version)
    if found:
        chosen = max(found, key=lambda one: (called in (one.name, hub_id(one)), one.id))
        return chosen, [one.label for one in found if one.digest != chosen.digest]
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
