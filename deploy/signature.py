"""What a staged folder or a bundle carries to prove that its version was signed, and the check at load.

    <folder>/tunewright-signatures.json   envelopes of the version's manifest, the manifest of an adapter's base, and
                                          the keys that the version's policies ask for

The file itself is not trusted: envelopes prove themselves against the public key that the server was told, and every
file of the folder is held against what was signed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, VerdictError
from components.files import digest_of, write_json

if TYPE_CHECKING:
    from deploy.model import ServedModel

__all__ = [
    "KEY_VARIABLE",
    "SIGNATURES_FILE",
    "asked_keys",
    "check_asked_keys",
    "check_signature",
    "keep_signatures",
    "longest_answer",
    "required_key",
    "signatures_digest",
]

SIGNATURES_FILE = "tunewright-signatures.json"
# the public key whose signature a server asks for, as a file
KEY_VARIABLE = "TUNEWRIGHT_REQUIRE_SIGNATURE"
# as registry.names.is_digest has it, which a bundle doesn't carry
_KEY_ID = re.compile("[0-9a-f]{64}")


def required_key() -> Path | None:
    """Return the public key that the environment asks for, or None."""
    found = os.environ.get(KEY_VARIABLE)
    return Path(found) if found else None


def keep_signatures(folder: Path, carried: Mapping[str, Any] | None) -> None:
    """Lay a version's signatures beside its staged files, or take away those that it no longer has.

    Args:
        folder: The staged folder.
        carried: As `registry.signatures.carried_signatures` gave it.
    """
    path = folder / SIGNATURES_FILE
    if carried is None:
        path.unlink(missing_ok=True)
    elif not path.is_file() or _read(path) != carried:
        write_json(path, carried)


def signatures_digest(folder: Path) -> str | None:
    """Return a digest of the signatures in a staged folder, or None where there are none."""
    path = folder / SIGNATURES_FILE
    return digest_of(_read(path)) if path.is_file() else None


def asked_keys(folder: Path) -> tuple[str, ...]:
    """Return the ids of the keys whose signatures the policies of a staged version ask for.

    Raises:
        ConflictError: The file that would say so is there and can't be read, or holds something else: what it asked for
            can't be told, which is not that it asked for nothing.
    """
    path = folder / SIGNATURES_FILE
    try:
        carried = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not path.is_symlink():
            return ()
        raise _damaged(path, "it leads nowhere") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    found = carried.get("required_keys", []) if isinstance(carried, Mapping) else None
    if not isinstance(found, list) or not isinstance(carried.get("envelopes"), list):
        raise _damaged(path, "it holds something else than signatures")
    if odd := [key for key in found if not (isinstance(key, str) and _KEY_ID.fullmatch(key))]:
        raise _damaged(path, f"{str(odd[0])[:40]!r} is the id of no key")
    return tuple(found)


def check_asked_keys(label: str, keys: Sequence[str], public_key: Path | None) -> None:
    """Refuse to serve a version without the key that its policies ask for; that it has signed is looked at with it.

    Args:
        label: The version, for the message.
        keys: Ids of the keys that are asked for.
        public_key: File of the public key that the server was told.

    Raises:
        VerdictError: There is none, or another key; or several are asked for.
        KeyUnusable: No ed25519 public key in the file.
    """
    if not keys:
        return
    if public_key is None:
        problem = "no key was named"
    else:
        from registry.envelope import key_id, load_public_key

        given = key_id(load_public_key(public_key))
        if set(keys) == {given}:
            return
        problem = f"the key in {public_key} is {given[:12]}"
    if len(keys) > 1:  # an earlier release put down every key that was ever asked for
        raise VerdictError(
            f"{label} asks for the signatures of {len(keys)} keys, and a server is told one: "
            + ", ".join(key[:12] for key in keys),
            allowed="what asks for one key",
            next_step="bundle the version again: the key that a promotion asked for last is asked for then",
        )
    raise VerdictError(
        f"{label} is served only with a signature of the key {keys[0][:12]}, for which its policy asks: {problem}",
        allowed="the public key with this id, which has signed the version",
        next_step=f"--require-signature FILE, or {KEY_VARIABLE}; `tunewright registry sign` signs and tells a key's id",
    )


def longest_answer(manifest: Mapping[str, Any]) -> int | None:
    """Return the longest answer that a version's evaluation allowed, or None where its manifest doesn't say."""
    found = manifest.get("metadata", {}).get("max_new_tokens")
    return found if type(found) is int and found > 0 else None


def check_signature(model: ServedModel, public_key: Path) -> None:
    """Refuse a staged model that the key has not signed, file by file.

    That the files have the digests in the model's description is `ServedModel.verify`'s to find.

    Args:
        model: The staged model.
        public_key: File of the public key that is trusted.

    Raises:
        VerdictError: No signature of this key, or a description, a base or a file other than what was signed.
        KeyUnusable: No ed25519 public key in the file.
    """
    from deploy.model import ADAPTER, BASE, DTYPE
    from registry.canonical import sha256_text
    from registry.envelope import check_signs, load_public_key, signed_manifest
    from registry.errors import SignatureRefused

    carried = _read(model.folder / SIGNATURES_FILE)
    envelopes = carried.get("envelopes") if isinstance(carried, Mapping) else None
    problem = "it carries no signature"
    if not isinstance(envelopes, list) or not envelopes:
        # before the key: a bundle that nobody signed doesn't bring what reads one
        raise _refused(model, public_key, problem)
    key = load_public_key(public_key)
    manifest: dict[str, Any] | None = None
    for envelope in envelopes:
        try:
            text = signed_manifest(envelope, key)
            check_signs(text, model.digest)
        except SignatureRefused as error:
            problem = error.problem
            continue
        manifest = json.loads(text)
        break
    if manifest is None:
        raise _refused(model, public_key, problem)
    own, other = (ADAPTER, BASE) if model.adapter is not None else (BASE, None)
    parts = {own, other}
    if outside := sorted(path for path in model.files if path.partition("/")[0] not in parts):
        raise _refused(model, public_key, f"file {outside[0]} is not what was signed")
    if difference := _difference(model, own, manifest):
        raise _refused(model, public_key, difference)
    signed = tuple(manifest[key] for key in ("base_fingerprint", "tokenizer_digest", "template_digest"))
    described = (model.fingerprint.base, model.fingerprint.tokenizer, model.fingerprint.template)
    recipe = manifest["quantization"] or {}
    if signed != described or recipe.get("method") != model.quantization:
        raise _refused(model, public_key, "its description names another base or quantization than was signed")
    if model.dtype != DTYPE:
        raise _refused(model, public_key, f"its description asks for {model.dtype}, versions are served in {DTYPE}")
    if (model.max_new_tokens, type(model.max_new_tokens)) != ((limit := longest_answer(manifest)), type(limit)):
        raise _refused(model, public_key, f"its description allows {model.max_new_tokens} tokens, {limit} were signed")
    if other is None:
        return
    base_text = carried.get("base_manifest")
    named = [parent["digest"] for parent in manifest["parents"] if parent["role"] == "base"]
    if not isinstance(base_text, str) or [sha256_text(base_text)] != named:
        raise _refused(model, public_key, "the manifest of its base is not the one that was signed with it")
    if difference := _difference(model, other, json.loads(base_text)):
        raise _refused(model, public_key, difference)


def _difference(model: ServedModel, within: str, manifest: Mapping[str, Any]) -> str | None:
    """Say which file of a part of the folder is not the one in a manifest."""
    signed = {f"{within}/{path}": entry["sha256"] for path, entry in manifest["files"].items()}
    held = {path: digest for path, digest in model.files.items() if path.startswith(f"{within}/")}
    odd = sorted(path for path in {*signed, *held} if signed.get(path) != held.get(path))
    return f"file {odd[0]} is not what was signed" if odd else None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _damaged(path: Path, problem: str) -> ConflictError:
    return ConflictError(
        f"{path} is damaged: {problem}",
        allowed="the file as it was staged",
        next_step="bundle or serve the version again",
    )


def _refused(model: ServedModel, public_key: Path, problem: str) -> VerdictError:
    return VerdictError(
        f"{model.label} is not served without a signature of the key in {public_key}: {problem}",
        allowed="a version that this key has signed, as it is",
        next_step=f"tunewright registry sign {model.label} --key FILE, then serve or bundle it again",
    )
