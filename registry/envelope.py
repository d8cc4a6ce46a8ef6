"""Signed manifests: a DSSE envelope over an in-toto statement, with an ed25519 key. No registry is needed to check one.

statement  https://in-toto.io/Statement/v1 (in-toto attestation framework): subjects are the version's files by sha256,
           the predicate is the version's manifest, whose canonical text has the version's digest
envelope   DSSE 1.0 (secure-systems-lab/dsse, protocol.md): what is signed is "DSSEv1" with lengths, type and payload

Bundles carry this module, so it imports nothing of the registry but errors and canonical JSON. Private keys are read,
used and dropped: no message, file or log holds one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.canonical import canonical_json, sha256_text
from registry.errors import KeyUnusable, SignatureRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PASSWORD_VARIABLE",
    "PREDICATE_TYPE",
    "check_signs",
    "key_id",
    "load_private_key",
    "load_public_key",
    "parse_public_key",
    "sign_manifest",
    "signed_manifest",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:tunewright:version-manifest:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSWORD_VARIABLE = "TUNEWRIGHT_KEY_PASSWORD"
# A key in PEM takes some hundred bytes; a file of another kind, given by mistake, isn't read to its end.
MAX_KEY_BYTES = 64 * 1024


def load_private_key(path: Path, password: str | None) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: A PEM file, PKCS #8.
        password: For an encrypted one.

    Raises:
        KeyUnusable: No ed25519 key in PEM, or the password is missing or wrong. The message holds nothing of the file.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(path)
    try:
        key = load_pem_private_key(content, None if password is None else password.encode())
    except TypeError as error:  # a password for a plain key, or none for an encrypted one
        if password is not None:
            return load_private_key(path, None)
        raise KeyUnusable(
            f"the key in {path} is encrypted",
            allowed=f"its password in the environment variable {PASSWORD_VARIABLE}",
            next_step=f"read -rs {PASSWORD_VARIABLE}; export {PASSWORD_VARIABLE}",
        ) from error
    except Exception:  # several kinds, some with what was read; none of it is told
        raise KeyUnusable(
            f"{path} can't be read as a private key" + (", or its password is another" if password else ""),
            allowed="an ed25519 key in PEM",
            next_step="openssl genpkey -algorithm ed25519 -aes256 -out key.pem makes one",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(
            f"the key in {path} is not an ed25519 key",
            allowed="an ed25519 key in PEM",
            next_step="openssl genpkey -algorithm ed25519 -aes256 -out key.pem makes one",
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Args:
        path: A PEM file, SubjectPublicKeyInfo.

    Raises:
        KeyUnusable: No ed25519 key in PEM. A private key is refused, too: it has no place where signatures are checked.
    """
    return parse_public_key(_read_key(path), str(path))


def parse_public_key(content: bytes, what: str) -> Ed25519PublicKey:
    """Read a public key from its PEM text, as `load_public_key`; `what` names it in errors."""
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    step = "openssl pkey -in key.pem -pubout -out key.pub.pem makes one of a private key"
    try:
        key = load_pem_public_key(content)
    except Exception:  # as above
        raise KeyUnusable(
            f"{what} can't be read as a public key", allowed="an ed25519 public key in PEM", next_step=step
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(
            f"the key in {what} is not an ed25519 key", allowed="an ed25519 public key in PEM", next_step=step
        )
    return key


def _read_key(path: Path) -> bytes:
    _require_library()
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except OSError as error:
        raise KeyUnusable(f"the key {path} can't be read: {error.strerror}", allowed="a PEM file") from error


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401  (an optional dependency; the sentence that says so comes before its use)
    except ModuleNotFoundError as error:
        raise KeyUnusable(
            "signatures need cryptography, which is not installed",
            next_step="install it with `pip install --constraint constraints.txt --editable '.[signing]'`",
        ) from error


def key_id(key: Ed25519PublicKey) -> str:
    """Return the hex sha256 of a public key's SubjectPublicKeyInfo: its name in envelopes and in file names."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign_manifest(manifest_json: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the envelope of a signed manifest; the same manifest and key give the same envelope.

    Args:
        manifest_json: A version's manifest, its canonical text.
        key: The private key.
    """
    manifest = json.loads(manifest_json)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(manifest),
        "predicateType": PREDICATE_TYPE,
        "predicate": manifest,
    }
    payload = canonical_json(statement).encode()
    signature = key.sign(_encoding(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


def signed_manifest(envelope: object, key: Ed25519PublicKey) -> str:
    """Return the manifest that an envelope says this key has signed.

    Args:
        envelope: What `sign_manifest` gave, read from anywhere.
        key: The public key that is trusted.

    Returns:
        The canonical text of the manifest; its sha256 is the digest of the version that was signed.

    Raises:
        SignatureRefused: No envelope, no signature of this key over exactly this payload, a statement of another kind,
            or one whose subjects are not the manifest's files.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        assert isinstance(envelope, Mapping)
        kind, payload = envelope["payloadType"], _decoded(envelope["payload"])
        signatures = [_decoded(signature["sig"]) for signature in envelope["signatures"]]
        message = _encoding(kind, payload)
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused("the signature is no DSSE envelope") from error
    for signature in signatures:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return _manifest_of(kind, payload)
    raise _refused(f"the key {key_id(key)[:12]} has not signed what the envelope holds")


def _manifest_of(kind: str, payload: bytes) -> str:
    """Read a payload that has been verified."""
    try:
        statement = json.loads(payload)
        told = (kind, statement["_type"], statement["predicateType"])
        manifest, subjects = statement["predicate"], statement["subject"]
        if told != (PAYLOAD_TYPE, STATEMENT_TYPE, PREDICATE_TYPE):
            raise _refused(f"what was signed is no version: {statement['predicateType']}")
        if subjects != _subjects(manifest):
            raise _refused("what was signed names other files than its manifest")
        return canonical_json(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused("what was signed is no statement of a version") from error


def check_signs(manifest_json: str, digest: str) -> None:
    """Refuse a signed manifest that is another version's.

    Args:
        manifest_json: What `signed_manifest` returned.
        digest: The version's digest.

    Raises:
        SignatureRefused: It is.
    """
    signed = sha256_text(manifest_json)
    if signed != digest:
        raise _refused(f"what was signed is version {signed[:12]}, not {digest[:12]}")


def _subjects(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = manifest["files"]
    return [{"name": path, "digest": {"sha256": files[path]["sha256"]}} for path in sorted(files)]


def _encoding(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("base64") from error


def _refused(problem: str) -> SignatureRefused:
    return SignatureRefused(
        problem,
        allowed="a version that the given key has signed, as it is",
        next_step="tunewright registry verify-signature REF --public-key FILE looks again; "
        "tunewright registry sign REF --key FILE signs",
    )
