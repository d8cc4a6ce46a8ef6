"""What a registered version consists of on disk, checked out and verified, and whether it may be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError, VerdictError
from deploy.signature import check_asked_keys, longest_answer

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.store import Registry

__all__ = ["VersionFiles", "version_files"]


@dataclass(frozen=True)
class VersionFiles:
    """A version as it is staged: who it is, and where its files lie.

    Attributes:
        name: The model's name.
        version: Its version number.
        digest: The version's digest.
        base_folder: Verified files of the base, or of the whole model when there is nothing beside it.
        adapter_folder: Verified files of the adapter or head.
        manifest: The version's manifest as plain JSON; its fingerprints and file digests are enforced.
        signatures: What proves that somebody signed it; None where nobody did.
        warning: What whoever serves it is told: that it is deprecated, by whom and why.
    """

    name: str
    version: int
    digest: str
    base_folder: Path
    adapter_folder: Path | None
    manifest: Mapping[str, Any]
    signatures: Mapping[str, Any] | None = None
    warning: str | None = None

    @property
    def label(self) -> str:
        """The version as people write it, `name:vN`."""
        return f"{self.name}:v{self.version}"

    @property
    def quantization(self) -> str | None:
        """How the weights are quantized where it is served, as it was trained and measured; None for plain weights."""
        recipe = self.manifest.get("quantization")
        return str(recipe.get("method")) if recipe else None

    @property
    def max_new_tokens(self) -> int | None:
        """The longest answer that its evaluation allowed, or None where its manifest doesn't say."""
        return longest_answer(self.manifest)


def version_files(
    registry: Registry, ref: str, *, proven: bool = False, public_key: Path | None = None, served: bool = False
) -> VersionFiles:
    """Resolve a REF once and check its files out, with those of its base where it is an adapter or a head.

    Args:
        registry: An open registry.
        ref: `name`, `name:vN`, `name@alias` or a digest prefix.
        proven: Refuse a version that is not proven, before any of its files are read.
        public_key: Refuse a version that the key in this file has not signed.
        served: Refuse a version whose policies ask for the signature of another key, before any of its files are read;
            whoever loads what is staged looks again.

    Returns:
        What `stage_model` lays out.

    Raises:
        InputError: A kind of version that can't be served.
        VerdictError: No alias points at it, and its newest report doesn't satisfy its policy, or there is none; or its
            policy asks for a signature.
        Registry errors: Unknown or ambiguous REF, VersionRetired, a policy that can't be used, a damaged file;
            SignatureRefused.
    """
    from registry.manifest import BOUND_KINDS, WHOLE_KINDS
    from registry.signatures import carried_signatures, require_signature, required_keys

    found = registry.resolve(ref)
    manifest = found.manifest
    status = registry.require_usable(found, "served")
    if proven:
        _require_proven(registry, found)
    if served:
        check_asked_keys(found.label, required_keys(registry, found), public_key)
    if public_key is not None:
        require_signature(registry, found, public_key)
    if found.kind in BOUND_KINDS:
        base = next(parent.digest for parent in manifest.parents if parent.role == "base")
        base_folder, adapter_folder = registry.checkout(base), registry.checkout(found.digest)
    elif found.kind in WHOLE_KINDS:
        base_folder, adapter_folder = registry.checkout(found.digest), None
    else:
        raise InputError(
            f"{found.label} is of kind {found.kind!r} and can't be served",
            allowed=", ".join((*BOUND_KINDS, *WHOLE_KINDS)),
            next_step="tunewright registry ls shows the versions and their kinds",
        )
    return VersionFiles(
        name=found.name,
        version=found.version,
        digest=found.digest,
        base_folder=base_folder,
        adapter_folder=adapter_folder,
        manifest=manifest.to_dict(),
        signatures=carried_signatures(registry, found),
        warning=status.warning(found.label),
    )


def _require_proven(registry: Registry, version: Version) -> None:
    # by its digest: the REF may name a newer version by now
    standing = registry.standing(version.digest)
    if not standing.proven:
        raise VerdictError(
            f"{version.label} is not proven: " + "; ".join(standing.reasons),
            allowed="a version that an alias points at, or whose newest evaluation satisfies its policy",
            next_step=f"tunewright registry show {version.label} shows what was measured; "
            "--unproven serves it all the same",
        )
