"""A registered version as the base of another recipe: `base: version:NAME@alias`. Behind a recipe's door.

A version with whole weights is checked out. An adapter is merged into its base first, once, and the merged weights are
a version of their own, with both as parents: what is trained on them is bound to exactly these weights.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.models.sources import BaseSource

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.manifest import Parent
    from registry.store import Registry

__all__ = ["VersionBase", "check_version", "locate_version", "version_name"]

PREFIX = "version:"
# What merged weights and base with adapter have to say the same of.
PROBE = "How many singers are there? The quick brown fox jumps over the lazy dog, and counts them: 12."
# Roles in a manifest besides "base".
ADAPTER, DOMAIN, ORIGINAL_BASE = "adapter", "domain", "original_base"


@dataclass(frozen=True)
class VersionBase:
    """A version that is trained on.

    Attributes:
        source: Its whole weights on disk.
        digest: Digest of the version with these weights: the one that was named, or the one that it was merged into.
        parents: What a version that is trained on it has as parents: these weights as base, the version that was
            named, and the base where the chain began.
    """

    source: BaseSource
    digest: str
    parents: tuple[Parent, ...]


def version_name(base: str) -> str | None:
    """Return the registry name in a recipe's `version:NAME…`, or None where it names another base."""
    if not base.startswith(PREFIX):
        return None
    return base.removeprefix(PREFIX).partition("@")[0].partition(":")[0] or None


def check_version(home: Path, base: str, role: str = "base") -> None:
    """Refuse a version that can't be a base, before anything is checked out or merged.

    Args:
        home: State folder.
        base: `version:REF`.
        role: What its weights are for, in errors: "base" or "teacher".

    Raises:
        InputError: A kind of version, or a kind of adapter, that has no whole weights and can't be merged.
        Registry errors: An unknown or ambiguous REF.
    """
    with _open(home, base, role) as registry:
        _check_kind(registry.resolve(base.removeprefix(PREFIX)), role)


def locate_version(home: Path, base: str) -> VersionBase:
    """Check a version's whole weights out, after merging where it is an adapter.

    Args:
        home: State folder.
        base: The recipe's `version:REF`.

    Returns:
        The version as a base.

    Raises:
        InputError: As `check_version`, or weights that lack tokenizer or template.
        Registry errors: An unknown or ambiguous REF, or a damaged file.
    """
    from components.models.safety import check_base
    from registry.manifest import Parent

    with _open(home, base) as registry:
        named = registry.resolve(base.removeprefix(PREFIX))
        _check_kind(named)
        whole = _merged(registry, home, named) if named.kind == "adapter" else named
        first = _original(registry, named)
        folder = registry.checkout(whole.digest)
    check_base(folder)
    roles = {whole.digest: "base", named.digest: DOMAIN, first.digest: ORIGINAL_BASE}
    if whole.digest == named.digest:
        roles[whole.digest] = "base"
    source = BaseSource(base, folder, whole.manifest.licence or "unknown", f"registry {named.label}, {named.digest}")
    return VersionBase(source, whole.digest, tuple(Parent(digest, role) for digest, role in roles.items()))


def _open(home: Path, base: str, role: str = "base") -> Registry:
    from registry.store import Registry

    if not (home / "registry").exists():
        raise InputError(
            f"{role} {base}: there is no registry in {home}",
            allowed="a version that a run in this state folder left",
            next_step="run the recipe that makes it first, or name its state folder with --home",
        )
    return Registry.open(home / "registry")


def _check_kind(version: Version, role: str = "base") -> None:
    from components.models.adapters import MERGED_TYPES
    from registry.manifest import WHOLE_KINDS

    config = version.manifest.peft_config or {}
    whole = version.kind in WHOLE_KINDS and not version.manifest.quantization
    if whole or (version.kind == "adapter" and config.get("peft_type") in MERGED_TYPES):
        return
    kind = f"{config['peft_type']} adapter" if "peft_type" in config else version.kind
    raise InputError(
        f"{version.label} can't be a {role}: it is of kind {kind}",
        allowed=f"whole weights that aren't quantized, or an adapter that merges ({', '.join(MERGED_TYPES)})",
        next_step="train it with finetune.method full, lora or qlora",
    )


def _original(registry: Registry, version: Version) -> Version:
    """Follow the parents with role base, or what was merged, to where the chain began."""
    while True:
        parents = {parent.role: parent.digest for parent in version.manifest.parents}
        before = parents.get(ORIGINAL_BASE) or parents.get("base")
        if before is None:
            return version
        version = registry.resolve(before)


def _merged(registry: Registry, home: Path, adapter: Version) -> Version:
    """Return the version that an adapter was merged into, merging it where there is none yet."""
    from filelock import FileLock

    from components.files import digest_of
    from flows.step_store import library_versions, source_digest
    from registry.status import RETIRED

    libraries = {name: library_versions()[name] for name in ("torch", "transformers", "peft")}
    key = digest_of({"merged": adapter.digest, "libraries": libraries, "code": source_digest(("components/models",))})
    base = next(parent.digest for parent in adapter.manifest.parents if parent.role == "base")
    folder = home / "merging" / adapter.digest[:24]
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        for version in registry.versions(_merged_name(adapter)):
            if version.manifest.content_key == key and registry.status(version.digest).state != RETIRED:
                return version
        # what a killed merge left
        shutil.rmtree(folder, ignore_errors=True)
        merge(registry.checkout(base), registry.checkout(adapter.digest), folder)
        version = _register(registry, adapter, base, folder, key)
        shutil.rmtree(folder)
        return version


def _merged_name(adapter: Version) -> str:
    # a name of its own: a bare NAME goes on meaning the newest version that was trained
    return f"{adapter.name}-merged"


def merge(base_folder: Path, adapter_folder: Path, folder: Path) -> None:
    """Write an adapter's base with the adapter folded in, in float32, and what the base has beside its weights.

    A QLoRA adapter goes into the weights before they were made 4 bits.

    Raises:
        TunewrightError: What was written doesn't load with the logits of base and adapter.
    """
    import torch

    from components.errors import TunewrightError
    from components.finetuning.saving import LOGIT_TOLERANCE
    from components.models.fingerprint import base_files
    from components.models.load import load_model, load_tokenizer
    from components.models.quiet import quiet

    folder.mkdir(parents=True)
    for name, path in base_files(base_folder).items():
        if not name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(path, folder / name)
    # text, since tokens that never follow each other make activations so large that rounding shows in the logits: the
    # first sixteen of SmolLM2's vocabulary differed by 0.006 where a sentence does by 0.0001
    ids = torch.tensor([load_tokenizer(base_folder)(PROBE, add_special_tokens=False)["input_ids"]])

    def said(model: Any) -> Any:
        with torch.no_grad():
            return model(input_ids=ids.to(model.device)).logits.float().cpu()

    apart = said(load_model(base_folder, adapter=adapter_folder))
    model = load_model(base_folder, adapter=adapter_folder, merge=True)
    with quiet():
        model.save_pretrained(folder, safe_serialization=True)
    del model
    difference = float((said(load_model(folder)) - apart).abs().max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(apart.abs().max())):
        raise TunewrightError(
            f"the merged weights give other logits than base and adapter: largest difference {difference:.3g}",
            next_step="train the domain with finetune.method full",
        )


def _register(registry: Registry, adapter: Version, base: str, folder: Path, key: str) -> Version:
    from components.models.fingerprint import base_files, fingerprint
    from flows.step_store import library_versions, source_digest
    from registry.manifest import Manifest, Parent, describe_files
    from registry.names import LICENCE_LENGTH, one_line

    files, binding, made = base_files(folder), fingerprint(folder), adapter.manifest
    manifest = Manifest(
        kind="merged",
        files=describe_files(files),
        base_fingerprint=binding.base,
        tokenizer_digest=binding.tokenizer,
        template_digest=binding.template,
        data_digests=made.data_digests,
        parents=(Parent(base, "base"), Parent(adapter.digest, ADAPTER)),
        seed=made.seed,
        library_versions=library_versions(),
        code_revision=source_digest(("components", "flows")),
        content_key=key,
        licence=one_line(made.licence, LICENCE_LENGTH),
        metadata={"merged": adapter.label, "dtype": "float32"},
    )
    return registry.register(_merged_name(adapter), manifest, files)
