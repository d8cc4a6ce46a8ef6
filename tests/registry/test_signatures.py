"""A version counts as signed where its manifest, its base's and the signature agree; nothing replaces a signature."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.entities import Version
from registry.envelope import key_id, sign_manifest
from registry.errors import RegistryPathError, SignatureRefused
from registry.signatures import carried_signatures, envelopes_of, sign_version, verify_signature
from registry.store import Registry

Add = Callable[..., Version]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def test_a_signature_is_kept_once_by_digest_and_key(registry: Registry, add_adapter: Add) -> None:
    version = add_adapter()
    with pytest.raises(SignatureRefused, match="text2sql:v1 is not signed"):
        verify_signature(registry, version, KEY.public_key())
    path, new = sign_version(registry, version, KEY)
    assert new
    assert path == registry.folder / "signatures" / version.digest / f"{key_id(KEY.public_key())}.json"
    before = path.stat()
    assert sign_version(registry, version, KEY) == (path, False)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    verify_signature(registry, version, KEY.public_key())
    with pytest.raises(SignatureRefused, match="not signed by the key"):
        verify_signature(registry, version, OTHER.public_key())
    sign_version(registry, version, OTHER)
    verify_signature(registry, version, OTHER.public_key())
    assert len(list(path.parent.iterdir())) == len(envelopes_of(registry.folder, version.digest)) == 2
    assert "PRIVATE" not in "".join(file.read_text() for file in path.parent.iterdir())


def test_a_damaged_signature_proves_nothing_and_signing_again_mends_it(registry: Registry, add_base: Add) -> None:
    version = add_base()
    path, _ = sign_version(registry, version, KEY)
    another = json.dumps(sign_manifest(version.manifest_json, OTHER)).encode()
    for content in (b"", b"{", b"[]", b'{"payload": ""}', b"\xff\xfe\x00", b"\0" * 64, b"[" * 100_000, another):
        path.write_bytes(content)
        with pytest.raises(SignatureRefused):
            verify_signature(registry, version, KEY.public_key())
        assert sign_version(registry, version, KEY) == (path, True)
        verify_signature(registry, version, KEY.public_key())
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_signature_that_holds_is_never_replaced_however_it_is_laid_out(registry: Registry, add_base: Add) -> None:
    version = add_base()
    path, _ = sign_version(registry, version, KEY)
    other_layout = json.dumps(json.loads(path.read_bytes()))
    assert other_layout != path.read_text()
    path.write_text(other_layout)
    assert sign_version(registry, version, KEY) == (path, False)
    assert path.read_text() == other_layout


def test_the_signature_of_another_version_is_refused(registry: Registry, add_adapter: Add) -> None:
    one, two = add_adapter("one"), add_adapter("two")
    path, _ = sign_version(registry, one, KEY)
    theirs = path.parent.with_name(two.digest)
    theirs.mkdir()
    (theirs / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SignatureRefused, match=f"what was signed is version {one.digest[:12]}"):
        verify_signature(registry, two, KEY.public_key())


def test_a_manifest_that_was_changed_in_the_database_is_neither_signed_nor_verified(
    registry: Registry, add_adapter: Add
) -> None:
    version = add_adapter()
    changed = replace(version, manifest_json=version.manifest_json.replace('"seed":7', '"seed":8'))
    with pytest.raises(SignatureRefused, match="what was signed is version"):
        sign_version(registry, changed, KEY)
    sign_version(registry, version, KEY)
    with pytest.raises(SignatureRefused, match="in the database is not the one that was signed"):
        verify_signature(registry, changed, KEY.public_key())


def test_a_base_whose_manifest_was_changed_is_found(
    registry: Registry, add_adapter: Add, add_base: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, base = add_adapter(), add_base()
    sign_version(registry, version, KEY)
    changed = replace(base, manifest_json=base.manifest_json.replace("Apache-2.0", "MIT"))
    assert changed.manifest_json != base.manifest_json
    monkeypatch.setattr(registry, "resolve", {base.digest: changed}.__getitem__)
    with pytest.raises(SignatureRefused, match="the base tiny-base:v1 of text2sql:v1 is not the one"):
        verify_signature(registry, version, KEY.public_key())


def test_what_a_bundle_carries_is_the_proof_and_the_base(registry: Registry, add_adapter: Add, add_base: Add) -> None:
    version, base = add_adapter(), add_base()
    assert carried_signatures(registry, version) is None
    sign_version(registry, version, KEY)
    carried = carried_signatures(registry, version)
    assert carried == {
        "envelopes": [sign_manifest(version.manifest_json, KEY)],
        "base_manifest": base.manifest_json,
    }
    assert json.loads(json.dumps(carried)) == carried
    sign_version(registry, base, KEY)
    assert (carried_signatures(registry, base) or {})["base_manifest"] is None


def test_a_folder_that_can_not_be_written_is_told(registry: Registry, add_base: Add) -> None:
    Path(registry.folder / "signatures").write_text("in the way")
    with pytest.raises(RegistryPathError, match="can't be written"):
        sign_version(registry, add_base(), KEY)
