"""Where signatures of versions are kept, and what one has to be for a version to count as signed.

<registry>/signatures/<version digest>/<key id>.json, one a key: written aside, then linked into place. One that is
there is replaced only where it proves nothing. Beside the database, not in it: a signature proves itself, so nothing
has to vouch for its row, and copying the folder copies the proof.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.canonical import sha256_text
from registry.entities import Version
from registry.envelope import (
    check_signs,
    key_id,
    load_public_key,
    parse_public_key,
    sign_manifest,
    signed_manifest,
)
from registry.errors import RegistryPathError, SignatureRefused
from registry.layout import SIGNATURES
from registry.names import is_digest
from registry.standing import keys_asked_for
from registry.whole_file import flush_folder, write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from registry.store import Registry

__all__ = [
    "accept_signature",
    "base_of",
    "carried_signatures",
    "envelopes_of",
    "require_signature",
    "required_keys",
    "sign_version",
    "signing_keys",
    "verify_signature",
]

MAX_ENVELOPE_BYTES = 64 * 2**20


def sign_version(registry: Registry, version: Version, key: Ed25519PrivateKey) -> tuple[Path, bool]:
    """Sign a version's manifest and keep the envelope.

    Args:
        registry: An open registry.
        version: The version; its manifest has to be what its digest says.
        key: The private key.

    Returns:
        The envelope's file, and whether it is new.

    Raises:
        SignatureRefused: The manifest in the database is not that of the digest.
        RegistryPathError: The registry's folder can't be written.
    """
    check_signs(version.manifest_json, version.digest)
    return _keep(registry.folder, version, sign_manifest(version.manifest_json, key), key.public_key())


def accept_signature(registry: Registry, version: Version, envelope: Mapping[str, Any], pem: str) -> tuple[str, bool]:
    """Keep an envelope that was made elsewhere, if it proves this version as it is.

    Args:
        registry: An open registry.
        version: The version.
        envelope: A DSSE envelope; of its signatures the one of this key is kept.
        pem: The public key that it is to be checked with. Whether anybody trusts that key isn't asked here.

    Returns:
        The key's id, and whether the signature is new.

    Raises:
        KeyUnusable: No ed25519 public key in PEM.
        SignatureRefused: The envelope isn't one of this key over this version's manifest.
        RegistryPathError: The registry's folder can't be written.
    """
    key = parse_public_key(pem.encode(), "what was sent")
    listed = envelope.get("signatures")
    problem = None
    for one in listed if isinstance(listed, list) else ():
        alone = {"payload": envelope.get("payload"), "payloadType": envelope.get("payloadType"), "signatures": [one]}
        try:
            signed = signed_manifest(alone, key)
        except SignatureRefused as error:
            problem = error
            continue
        alone["signatures"] = [{"keyid": key_id(key), "sig": one["sig"]}]
        check_signs(signed, version.digest)
        check_signs(version.manifest_json, version.digest)
        return key_id(key), _keep(registry.folder, version, alone, key)[1]
    raise problem or SignatureRefused(
        "what was sent has no signatures",
        allowed="a DSSE envelope, as `tunewright registry sign` makes it",
        next_step="sign the version with the private half of this key",
    )


def _keep(folder: Path, version: Version, envelope: Mapping[str, Any], public: Ed25519PublicKey) -> tuple[Path, bool]:
    """Write an envelope that holds; one that is there and holds stays."""
    final = folder / SIGNATURES / version.digest / f"{key_id(public)}.json"
    content = (json.dumps(envelope, indent=2) + "\n").encode()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for above in (folder, final.parent.parent):
            flush_folder(above)
        new = write_whole(final, content, replace=False)
        if not new and not _proves(final, version, public):
            new = write_whole(final, content)
        return final, new
    except OSError as error:
        raise RegistryPathError(
            f"the signature can't be written to {final}: {error.strerror}",
            allowed="a registry's folder that this user may write",
            next_step="change its owner or mode",
        ) from error


def _proves(path: Path, version: Version, key: Ed25519PublicKey) -> bool:
    """Tell whether an envelope that is there holds, however it is laid out: such a one never gives way."""
    try:
        return signed_manifest(_read_envelope(path), key) == version.manifest_json
    except (ValueError, RecursionError, SignatureRefused):
        return False


def _read_envelope(path: Path) -> Any:
    with path.open("rb") as stream:
        return json.loads(stream.read(MAX_ENVELOPE_BYTES).decode())


def envelopes_of(folder: Path, digest: str) -> list[dict[str, Any]]:
    """Return the envelopes that are kept for a version, by key id; what can't be read is none."""
    found = []
    for path in sorted((folder / SIGNATURES / digest).glob("[0-9a-f]*.json")):
        try:
            found.append(_read_envelope(path))
        except (OSError, ValueError, RecursionError):
            continue  # no proof; whoever asks for one is refused
    return found


def signing_keys(registry: Registry, version: Version) -> list[str]:
    """Return the ids of the keys whose signatures of a version are kept.

    Whether one holds can only be told with the key itself: `verify_signature`.
    """
    signatures = registry.folder / SIGNATURES / version.digest
    return sorted(path.stem for path in signatures.glob("*.json") if is_digest(path.stem))


def verify_signature(registry: Registry, version: Version, key: Ed25519PublicKey) -> None:
    """Refuse a version that a key has not signed as it is.

    With the base of an adapter or a head: the signed manifest names its digest, which its own manifest must have.

    Raises:
        SignatureRefused: No signature, none of this key, one of another version, or another base.
    """
    envelopes = envelopes_of(registry.folder, version.digest)
    if not envelopes:
        raise SignatureRefused(
            f"{version.label} is not signed",
            allowed="a version that the given key has signed",
            next_step=f"tunewright registry sign {version.label} --key FILE",
        )
    problem = None
    for envelope in envelopes:
        try:
            signed = signed_manifest(envelope, key)
            check_signs(signed, version.digest)
        except SignatureRefused as error:
            problem = error
            continue
        if signed != version.manifest_json:
            raise SignatureRefused(
                f"the manifest of {version.label} in the database is not the one that was signed",
                next_step="tunewright registry verify says what else was changed",
            )
        _check_base(registry, version)
        return
    assert problem is not None
    raise SignatureRefused(
        f"{version.label} is not signed by the key {key_id(key)[:12]}: {problem.problem}",
        allowed=f"a signature of this key; there are {len(envelopes)} of others, or of other content",
        next_step=f"tunewright registry sign {version.label} --key FILE, with the private half of this key",
    )


def require_signature(registry: Registry, version: Version, public_key: Path) -> str:
    """Refuse a version that the key in a file has not signed; return the key's id.

    Raises:
        KeyUnusable: No ed25519 public key in the file.
        SignatureRefused: As `verify_signature`.
    """
    key = load_public_key(public_key)
    verify_signature(registry, version, key)
    return key_id(key)


def carried_signatures(registry: Registry, version: Version) -> dict[str, Any] | None:
    """Return what a bundle carries to prove a version by itself, or None where nobody signed it or asks for that.

    Returns:
        `envelopes`, and `base_manifest`: the text of its base's manifest, whose digest the signed one names; and
        `required_keys`, where a policy of it asks for a signature: the id of that key.
    """
    envelopes = envelopes_of(registry.folder, version.digest)
    asked = required_keys(registry, version)
    if not envelopes and not asked:
        return None
    base = base_of(registry, version) if envelopes else None
    carried = {"envelopes": envelopes, "base_manifest": None if base is None else base.manifest_json}
    return {**carried, "required_keys": list(asked)} if asked else carried


def required_keys(registry: Registry, version: Version) -> tuple[str, ...]:
    """Return the key whose signature is a condition of serving a version, as `keys_asked_for` finds it.

    Raises:
        PolicyInvalid: What stands in a key's place is none.
    """
    return keys_asked_for(registry._lookup.query, version)


def base_of(registry: Registry, version: Version) -> Version | None:
    """Return the base that an adapter or a head is signed with, or None where the version is whole by itself."""
    from registry.manifest import BOUND_KINDS

    if version.kind not in BOUND_KINDS:
        return None
    return registry.resolve(next(parent.digest for parent in version.manifest.parents if parent.role == "base"))


def _check_base(registry: Registry, version: Version) -> None:
    base = base_of(registry, version)
    if base is not None and sha256_text(base.manifest_json) != base.digest:
        raise SignatureRefused(
            f"the base {base.label} of {version.label} is not the one that was signed with it",
            next_step="tunewright registry verify says what was changed",
        )
