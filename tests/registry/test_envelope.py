"""An envelope proves who signed exactly which manifest, and nothing else is taken for one."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from registry import envelope as module
from registry.entities import Version
from registry.envelope import key_id, load_private_key, load_public_key, sign_manifest, signed_manifest
from registry.errors import KeyUnusable, SignatureRefused

Add = Callable[..., Version]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def pem(key: Any, password: bytes | None = None) -> bytes:
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def version(add_adapter: Add) -> Version:
    return add_adapter(metadata={"time": {"measured_seconds": 2.751, "large": 2**60, "small": 1e-9, "text": "é"}})


def statement_of(envelope: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def resigned(statement: dict[str, Any], kind: str = module.PAYLOAD_TYPE) -> dict[str, Any]:
    """An envelope of the same key over another statement."""
    payload = json.dumps(statement).encode()
    signature = KEY.sign(module._encoding(kind, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }


def test_what_was_signed_is_the_manifest_to_the_byte(version: Version) -> None:
    envelope = sign_manifest(version.manifest_json, KEY)
    assert signed_manifest(envelope, KEY.public_key()) == version.manifest_json
    assert sign_manifest(version.manifest_json, KEY) == envelope
    # it survives a file
    assert signed_manifest(json.loads(json.dumps(envelope)), KEY.public_key()) == version.manifest_json


def test_the_statement_is_in_totos_with_every_file_as_subject(version: Version) -> None:
    statement = statement_of(sign_manifest(version.manifest_json, KEY))
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == version.manifest.file_digests


def test_the_bytes_that_are_signed_are_those_of_the_dsse_protocol() -> None:
    # the example of secure-systems-lab/dsse, protocol.md
    encoded = module._encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


Change = Callable[[dict[str, Any]], object]
DAMAGED: dict[str, Change] = {
    "payload": lambda e: e.update(payload=flip(e["payload"])),
    "signature": lambda e: e["signatures"][0].update(sig=flip(e["signatures"][0]["sig"])),
    "type": lambda e: e.update(payloadType="application/json"),
    "no signature": lambda e: e.update(signatures=[]),
    "short signature": lambda e: e["signatures"][0].update(sig="AAAA"),
    "no base64": lambda e: e.update(payload="~"),
    "no payload": lambda e: e.pop("payload"),
    "signatures of another form": lambda e: e.update(signatures={"sig": 1}),
    "payload that is no text": lambda e: e.update(payload=3),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_an_envelope_that_was_changed_proves_nothing(version: Version, change: Change) -> None:
    envelope = copy.deepcopy(sign_manifest(version.manifest_json, KEY))
    change(envelope)
    with pytest.raises(SignatureRefused):
        signed_manifest(envelope, KEY.public_key())


@pytest.mark.parametrize("envelope", [None, [], "text", {}, 3])
def test_what_is_no_envelope_is_refused(envelope: object) -> None:
    with pytest.raises(SignatureRefused, match="no DSSE envelope"):
        signed_manifest(envelope, KEY.public_key())


def test_another_key_proves_nothing_whatever_its_name(version: Version) -> None:
    envelope = sign_manifest(version.manifest_json, OTHER)
    envelope["signatures"][0]["keyid"] = key_id(KEY.public_key())
    with pytest.raises(SignatureRefused, match="has not signed"):
        signed_manifest(envelope, KEY.public_key())
    # several signatures: one that holds is enough
    envelope["signatures"] += sign_manifest(version.manifest_json, KEY)["signatures"]
    assert signed_manifest(envelope, KEY.public_key()) == version.manifest_json


OTHERWISE: dict[str, Change] = {
    "predicate type": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "statement type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "file left out of the subjects": lambda s: s["subject"].pop(),
    "file that the manifest has not": lambda s: s["subject"].append({"name": "x", "digest": {"sha256": "0" * 64}}),
    "digest": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
    "no manifest": lambda s: s.update(predicate=None),
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_what_the_key_signed_for_something_else_is_no_signature_of_a_version(version: Version, change: Change) -> None:
    statement = statement_of(sign_manifest(version.manifest_json, KEY))
    assert signed_manifest(resigned(statement), KEY.public_key()) == version.manifest_json
    change(statement)
    with pytest.raises(SignatureRefused, match="what was signed"):
        signed_manifest(resigned(statement), KEY.public_key())


def test_another_kind_of_payload_is_not_read(version: Version) -> None:
    statement = statement_of(sign_manifest(version.manifest_json, KEY))
    with pytest.raises(SignatureRefused, match="no version"):
        signed_manifest(resigned(statement, "application/json"), KEY.public_key())


def test_keys_are_read_with_and_without_a_password(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEY))
    assert key_id(load_private_key(path, None).public_key()) == key_id(KEY.public_key())
    # a password that is not needed does no harm
    assert load_private_key(path, "needless").sign(b"x") == KEY.sign(b"x")
    path.write_bytes(pem(KEY, b"secret"))
    assert load_private_key(path, "secret").sign(b"x") == KEY.sign(b"x")
    with pytest.raises(KeyUnusable, match="encrypted") as caught:
        load_private_key(path, None)
    assert "TUNEWRIGHT_KEY_PASSWORD" in str(caught.value.allowed)
    with pytest.raises(KeyUnusable, match="password is another"):
        load_private_key(path, "wrong")
    (tmp_path / "pub.pem").write_bytes(public_pem(KEY))
    assert key_id(load_public_key(tmp_path / "pub.pem")) == key_id(KEY.public_key())


def test_what_is_no_such_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    curve = ec.generate_private_key(ec.SECP256R1())
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", pem(curve)):
        path.write_bytes(content)
        with pytest.raises(KeyUnusable) as caught:
            load_private_key(path, "word")
        assert "c2VjcmV0" not in str(caught.value)
        assert "word" not in str(caught.value).replace("password", "")
    for content in (pem(KEY), public_pem(curve), b"text"):
        path.write_bytes(content)
        with pytest.raises(KeyUnusable):
            load_public_key(path)
    with pytest.raises(KeyUnusable, match="can't be read"):
        load_public_key(tmp_path)
