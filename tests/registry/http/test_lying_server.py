"""A server, or whoever stands on the way to it, that answers with another version, whole and consistent in itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.entities import Version
from registry.errors import RecordDamaged
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.tokens import Tokens
from registry.manifest import Manifest, describe_files
from registry.signatures import envelopes_of
from registry.store import Registry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
Add = Callable[..., Version]


class Liar(httpx.BaseTransport):
    """Asks for another path where a request's holds a text that is swapped."""

    def __init__(self, behind: httpx.BaseTransport) -> None:
        self._behind = behind
        self.swapped: dict[str, str] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        for asked, answered in self.swapped.items():
            url = url.replace(asked, answered)
        return self._behind.handle_request(
            httpx.Request(request.method, url, headers=request.headers, content=request.read())
        )


@pytest.fixture
def liar(registry: Registry, in_process: Callable[..., Any]) -> Liar:
    return Liar(in_process(make_app(registry, Tokens(registry.folder))))


@pytest.fixture
def client(registry: Registry, liar: Liar) -> RegistryClient:
    return RegistryClient("http://registry.test", Tokens(registry.folder).add("tester", "write"), transport=liar)


def test_another_version_than_the_ref_names_is_neither_told_nor_signed_nor_laid_out(
    client: RegistryClient, liar: Liar, registry: Registry, add_adapter: Add, tmp_path: Path
) -> None:
    named, other = add_adapter("one"), add_adapter("two")
    for ref in (named.digest, named.digest[:12], named.digest.upper()):
        assert client.resolve(ref) == named
        liar.swapped = {f"/v1/{what}/{ref}": f"/v1/{what}/{other.digest}" for what in ("versions", "status")}
        with pytest.raises(RecordDamaged, match=f"asked for {ref}, the server answered with text2sql:v2"):
            client.resolve(ref)
        with pytest.raises(RecordDamaged):
            client.sign(ref, KEY)
        with pytest.raises(RecordDamaged):
            client.verify_signature(ref, KEY.public_key())
        with pytest.raises(RecordDamaged):
            client.checkout(ref, tmp_path / "out")
        liar.swapped = {}
    for ref, answered in (("text2sql:v1", "text2sql:v2"), ("text2sql", "tiny-base"), ("text2sql@best", "tiny-base")):
        liar.swapped = {f"/v1/versions/{client_quoted(ref)}": f"/v1/versions/{client_quoted(answered)}"}
        with pytest.raises(RecordDamaged, match="the server answered with"):
            client.sign(ref, KEY)
    assert [envelopes_of(registry.folder, version.digest) for version in (named, other)] == [[], []]
    assert not (tmp_path / "out").exists()


def client_quoted(ref: str) -> str:
    return ref.replace(":", "%3A").replace("@", "%40")


def test_another_base_than_the_one_that_was_signed_verifies_nothing(
    client: RegistryClient,
    liar: Liar,
    registry: Registry,
    add_adapter: Add,
    write_files: Callable[..., dict[str, Path]],
    fingerprints: tuple[str, str],
) -> None:
    version = add_adapter()
    client.sign(version, KEY)
    assert client.verify_signature("text2sql", KEY.public_key()) == version
    files = write_files("other base")
    other = registry.register(
        "other", Manifest("base", describe_files(files), base_fingerprint=fingerprints[1]), files, actor="ada"
    )
    (parent,) = version.manifest.parents
    liar.swapped = {f"/v1/versions/{parent.digest}": f"/v1/versions/{other.digest}"}
    with pytest.raises(RecordDamaged, match="the server answered with other:v1"):
        client.verify_signature("text2sql", KEY.public_key())


def test_a_report_on_another_version_is_not_taken_for_one_on_this(
    client: RegistryClient, liar: Liar, registry: Registry, add_adapter: Add, make_report: Callable[..., Any]
) -> None:
    named, other = add_adapter("one"), add_adapter("two")
    registry.record_evaluation(other.digest, make_report())
    liar.swapped = {f"/v1/evaluations/{named.digest}": f"/v1/evaluations/{other.digest}"}
    with pytest.raises(RecordDamaged, match="a report on"):
        client.evaluations(named.digest)
    with pytest.raises(RecordDamaged, match="a report on"):
        client.record_evaluation(named.digest, make_report())


def test_what_is_said_to_be_registered_has_the_files_that_were_sent(
    client: RegistryClient, add_base: Add, write_files: Callable[..., dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = add_base()
    document = {**base.to_dict(), "id": base.id, "manifest": base.manifest.to_dict()}
    monkeypatch.setattr(client, "_post", lambda *_, **__: document)
    files = write_files("mine")
    for name, given in (("tiny-base", files), ("other", None)):
        manifest = (
            base.manifest if given is None else Manifest("base", describe_files(files), base_fingerprint="c" * 64)
        )
        paths = write_files("base") if given is None else given
        with pytest.raises(RecordDamaged, match=f"files of {name} were to be registered"):
            client.register(name, manifest, paths)
