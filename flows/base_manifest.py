"""The manifest of a base: the same whether a run registers the base that it trains on, or somebody imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.files import digest_of
from components.models.fingerprint import Fingerprint

if TYPE_CHECKING:
    from registry.manifest import FileEntry, Manifest

__all__ = ["base_manifest", "weights_key"]


def base_manifest(
    binding: Fingerprint, files: Mapping[str, FileEntry], licence: str | None, metadata: Mapping[str, Any]
) -> Manifest:
    """Return the manifest of a base.

    Args:
        binding: Its digests.
        files: Path inside the version -> size and sha256.
        licence: Licence of the weights.
        metadata: `origin`, and whatever else is known.
    """
    from registry.manifest import Manifest
    from registry.names import LICENCE_LENGTH, one_line

    return Manifest(
        kind="base",
        files=files,
        base_fingerprint=binding.base,
        tokenizer_digest=binding.tokenizer,
        template_digest=binding.template,
        content_key=weights_key(binding, files),
        licence=one_line(licence, LICENCE_LENGTH),
        metadata=metadata,
    )


def weights_key(binding: Fingerprint, files: Mapping[str, FileEntry]) -> str:
    """Return the content key of whole weights that nothing is known of but their files.

    With every file: a setting that no digest covers makes another version, not a conflict.
    """
    digests = {"base": binding.base, "tokenizer": binding.tokenizer, "template": binding.template}
    return digest_of({**digests, "files": {name: entry.sha256 for name, entry in files.items()}})
