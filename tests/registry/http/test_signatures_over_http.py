"""Signatures over HTTP: made and checked by the client, kept by the server if they prove what they are sent for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.entities import Version
from registry.envelope import key_id, sign_manifest
from registry.errors import SignatureRefused
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.tokens import Tokens
from registry.signatures import envelopes_of, sign_version, verify_signature
from registry.store import Registry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
Add = Callable[..., Version]


def pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def client(registry: Registry, in_process: Callable[..., Any]) -> RegistryClient:
    tokens = Tokens(registry.folder)
    transport = in_process(make_app(registry, tokens))
    return RegistryClient("http://registry.test", tokens.add("tester", "write"), transport=transport)


def test_what_the_client_signs_is_what_the_registry_and_others_verify(
    client: RegistryClient, registry: Registry, add_adapter: Add
) -> None:
    version = add_adapter()
    with pytest.raises(SignatureRefused, match="is not signed"):
        client.verify_signature("text2sql", KEY.public_key())
    assert client.sign(client.resolve("text2sql"), KEY) == (key_id(KEY.public_key()), True)
    assert client.sign(version, KEY) == client.sign("text2sql:v1", KEY) == (key_id(KEY.public_key()), False)
    assert sign_version(registry, version, KEY)[1] is False  # the very same
    verify_signature(registry, version, KEY.public_key())
    assert client.verify_signature("text2sql:v1", KEY.public_key()) == version
    with pytest.raises(SignatureRefused, match="has not signed"):
        client.verify_signature("text2sql:v1", OTHER.public_key())
    sign_version(registry, version, OTHER)
    assert client.signatures("text2sql") == envelopes_of(registry.folder, version.digest)
    assert len(client.signatures("text2sql")) == 2


def test_what_proves_nothing_of_this_version_is_not_kept(
    ask: Callable[..., Any], registry: Registry, add_adapter: Add
) -> None:
    version, other = add_adapter("one"), add_adapter("two")
    right = sign_manifest(version.manifest_json, KEY)
    wrong: list[tuple[dict[str, Any], str, int]] = [
        (right, pem(OTHER), 422),
        (right, "no key", 422),
        (sign_manifest(other.manifest_json, KEY), pem(KEY), 422),
        ({**right, "payload": base64.b64encode(b"{}").decode()}, pem(KEY), 422),
        ({**right, "signatures": []}, pem(KEY), 422),
        ({**right, "signatures": [{"sig": 1}, None, []]}, pem(KEY), 422),
        ({}, pem(KEY), 422),
    ]
    for envelope, key, status in wrong:
        answer = ask(
            "POST", f"/v1/signatures/{version.digest}", "write", json={"envelope": envelope, "public_key": key}
        )
        assert (answer.status_code, envelopes_of(registry.folder, version.digest)) == (status, []), answer.text
    assert answer.json()["type"] == "urn:tunewright:error:SignatureRefused"
    # what else lies in an envelope is left out
    noisy = {**right, "more": "x" * 1000, "signatures": [{"sig": "AAAA"}, *right["signatures"], {"sig": "BBBB"}]}
    kept = ask("POST", f"/v1/signatures/{version.digest}", "write", json={"envelope": noisy, "public_key": pem(KEY)})
    assert (kept.status_code, kept.json()["new"]) == (200, True)
    assert envelopes_of(registry.folder, version.digest) == [right]
    assert ask("GET", "/v1/signatures/text2sql:v1", "read").json()["envelopes"] == [right]
    assert (
        ask("POST", f"/v1/signatures/{'0' * 64}", json={"envelope": right, "public_key": pem(KEY)}).status_code == 404
    )
