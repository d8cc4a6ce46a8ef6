"""`tunewright registry sign|verify-signature`: who stands for a version, by an ed25519 key. Parses, calls, prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.output import emit, json_option
from flows.commands.registry_options import home_option, open_registry, open_to_read

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.store import Registry

__all__ = ["sign_command", "verify_signature_command"]

key_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("sign")
@click.argument("ref")
@click.option(
    "--key",
    required=True,
    type=key_file,
    help="An ed25519 private key in PEM; the password of an encrypted one is in $TUNEWRIGHT_KEY_PASSWORD.",
)
@home_option
@json_option
def sign_command(ref: str, key: Path, home: Path, as_json: bool) -> None:
    """Sign REF: its manifest, which names every file, what it was made from and what it was made by.

    Every byte is read first, of an adapter's base, too. The signature is kept in the registry's folder; the key is not
    kept anywhere.
    """
    from registry.envelope import PASSWORD_VARIABLE, key_id, load_private_key
    from registry.signatures import sign_version

    with open_registry(home) as registry:
        private = load_private_key(key, os.environ.get(PASSWORD_VARIABLE) or None)
        version = registry.resolve(ref)
        read = _read_all(registry, version)
        path, new = sign_version(registry, version, private)
    document = {
        "version": version.label,
        "digest": version.digest,
        "key_id": key_id(private.public_key()),
        "path": str(path),
        "new": new,
        **read,
    }
    emit(document, as_json, _render_signed)


@click.command("verify-signature")
@click.argument("ref")
@click.option("--public-key", required=True, type=key_file, help="The ed25519 public key that is trusted, in PEM.")
@home_option
@json_option
def verify_signature_command(ref: str, public_key: Path, home: Path, as_json: bool) -> None:
    """Verify that a key has signed REF as it is, every byte of it and of an adapter's base. Exit status 3 if not."""
    from registry.errors import BlobCorrupted, RecordDamaged, SignatureRefused
    from registry.signatures import require_signature

    with open_to_read(home) as registry:
        version = registry.resolve(ref)
        name = require_signature(registry, version, public_key)
        try:
            read = _read_all(registry, version)
        except (BlobCorrupted, RecordDamaged) as error:
            raise SignatureRefused(
                f"{version.label} is not what was signed any more: {error.problem}", next_step=error.next_step
            ) from error
    document = {"version": version.label, "digest": version.digest, "key_id": name, "verified": True, **read}
    emit(document, as_json, _render_verified)


def _read_all(registry: Registry, version: Version) -> dict[str, Any]:
    """Read every byte of a version, and of the base that is signed with it; a damaged one ends the command."""
    from registry.signatures import base_of

    base = base_of(registry, version)
    own = _read(registry, version)
    return {**own, "base": None if base is None else {"version": base.label, **_read(registry, base)}}


def _read(registry: Registry, version: Version) -> dict[str, int]:
    entries = version.manifest.files.values()
    return {"files": len(entries), "bytes": sum(registry.blobs.read(entry.sha256) for entry in entries)}


def _render_signed(document: dict[str, Any]) -> str:
    verb = "is signed" if document["new"] else "was signed already"
    return (
        f"{document['version']}  {document['digest'][:12]}  {verb} by key {document['key_id'][:12]}: "
        f"{_render_read(document)}\n  {document['path']}"
    )


def _render_verified(document: dict[str, Any]) -> str:
    return (
        f"{document['version']}  {document['digest'][:12]}  is what key {document['key_id'][:12]} signed: "
        f"{_render_read(document)}"
    )


def _render_read(document: dict[str, Any]) -> str:
    text = f"{document['files']} files, {document['bytes']} bytes"
    base = document["base"]
    return text if base is None else f"{text}, and {base['files']} of {base['version']}, {base['bytes']} bytes"
