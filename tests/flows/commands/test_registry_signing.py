"""`tunewright registry sign`, `verify-signature` and `serve --require-signature` as people call them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry
from tests.flows.conftest import call_command

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.delenv("TUNEWRIGHT_KEY_PASSWORD", raising=False)
    monkeypatch.delenv("TUNEWRIGHT_REQUIRE_SIGNATURE", raising=False)
    return lambda *arguments: call_command(monkeypatch, capsys, *arguments, "--home", str(tmp_path / "home"))


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """The blob of the one file of a registered base."""
    source = tmp_path / "config.json"
    source.write_text("{}")
    files = {"config.json": source}
    with Registry.open(tmp_path / "home" / "registry") as registry:
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint="a" * 64)
        version = registry.register("tiny", manifest, files)
        blob = registry.blobs.local_path(version.manifest.files["config.json"].sha256)
    assert blob is not None
    return blob


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A key pair as openssl makes it, as the guide says."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the keys of this test")
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    show = ["openssl", "pkey", "-in", str(private), "-passin", "pass:secret", "-pubout", "-out", str(public)]
    subprocess.run(show, check=True, capture_output=True)
    return private, public


def test_sign_and_verify_tell_one_story(
    call: Call, registered: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private, public = (str(path) for path in keys)
    status, out, err = call("registry", "verify-signature", "tiny", "--public-key", public, "--json")
    assert (status, json.loads(out)["error"]["type"]) == (3, "SignatureRefused")
    status, out, err = call("registry", "sign", "tiny", "--key", private)
    assert (status, "TUNEWRIGHT_KEY_PASSWORD" in err) == (2, True)
    monkeypatch.setenv("TUNEWRIGHT_KEY_PASSWORD", "secret")
    status, out, err = call("registry", "sign", "tiny", "--key", private, "--json")
    assert status == 0, err
    signed = json.loads(out)
    assert (signed["version"], signed["new"], signed["files"]) == ("tiny:v1", True, 1)
    assert Path(signed["path"]).is_file()
    status, out, err = call("registry", "sign", "tiny", "--key", private)
    assert "was signed already" in out
    monkeypatch.delenv("TUNEWRIGHT_KEY_PASSWORD")
    status, out, err = call("registry", "verify-signature", "tiny", "--public-key", public, "--json")
    assert status == 0, err
    assert json.loads(out) == {**json.loads(out), "verified": True, "key_id": signed["key_id"]}
    status, out, err = call("registry", "show", "tiny", "--json")
    assert (json.loads(out)["signatures"], json.loads(out)["required_keys"]) == ([signed["key_id"]], [])
    assert f"signature of the key {signed['key_id'][:12]} kept" in call("registry", "show", "tiny")[1]
    with Registry.open(tmp_path / "home" / "registry") as registry:
        policy = {"required_signature": signed["key_id"]}
        registry.record_evaluation(registry.resolve("tiny").digest, {"policy": policy})
    assert f"served only with a signature of the key {signed['key_id'][:12]}" in call("registry", "show", "tiny")[1]
    # neither key nor password is left anywhere
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"PRIVATE KEY" in path.read_bytes() or b"secret" in path.read_bytes()]


def test_damaged_bytes_are_neither_signed_nor_verified(
    call: Call, registered: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = (str(path) for path in keys)
    monkeypatch.setenv("TUNEWRIGHT_KEY_PASSWORD", "secret")
    assert call("registry", "sign", "tiny", "--key", private)[0] == 0
    registered.chmod(0o644)
    registered.write_text("[]")
    _assert_damage_is_found(call, "tiny", private, public)


def _assert_damage_is_found(call: Call, ref: str, private: str, public: str) -> None:
    status, out, _ = call("registry", "sign", ref, "--key", private, "--json")
    assert (status, json.loads(out)["error"]["type"]) == (1, "BlobCorrupted")
    status, out, err = call("registry", "verify-signature", ref, "--public-key", public, "--json")
    assert (status, json.loads(out)["error"]["type"]) == (3, "SignatureRefused")
    assert "is not what was signed any more" in err


def test_the_bytes_of_an_adapters_base_are_read_with_it(
    call: Call, registered: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private, public = (str(path) for path in keys)
    monkeypatch.setenv("TUNEWRIGHT_KEY_PASSWORD", "secret")
    source = tmp_path / "adapter_config.json"
    source.write_text("{ }")
    files = {"adapter_config.json": source}
    with Registry.open(tmp_path / "home" / "registry") as registry:
        parents = (Parent(registry.resolve("tiny").digest, "base"),)
        manifest = Manifest(kind="adapter", files=describe_files(files), base_fingerprint="a" * 64, parents=parents)
        registry.register("sql", manifest, files)
    base = {"version": "tiny:v1", "files": 1, "bytes": 2}
    for verb, option, key in (("sign", "--key", private), ("verify-signature", "--public-key", public)):
        status, out, err = call("registry", verb, "sql", option, key, "--json")
        assert status == 0, err
        assert json.loads(out) == {**json.loads(out), "files": 1, "bytes": 3, "base": base}
        assert "1 files, 3 bytes, and 1 of tiny:v1, 2 bytes" in call("registry", verb, "sql", option, key)[1]
    registered.chmod(0o644)
    registered.write_text("[]")
    _assert_damage_is_found(call, "sql", private, public)
    registered.unlink()
    _assert_damage_is_found(call, "sql", private, public)


def test_serve_refuses_what_is_not_signed_before_anything_is_loaded(
    call: Call, registered: Path, keys: tuple[Path, Path]
) -> None:
    private, public = (str(path) for path in keys)
    status, out, err = call("serve", "tiny", "--require-signature", public, "--port", "0", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (3, "SignatureRefused")
    assert "registry sign tiny:v1" in err
    # the private key is not taken for a public one
    status, out, _ = call("serve", "tiny", "--require-signature", private, "--port", "0", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (2, "KeyUnusable")


def test_a_policy_that_asks_for_a_key_is_a_condition_of_serving(
    call: Call, registered: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    public = keys[1]
    told = ["openssl", "pkey", "-pubin", "-in", str(public), "-outform", "DER"]  # as the guide says
    key = hashlib.sha256(subprocess.run(told, check=True, capture_output=True).stdout).hexdigest()
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"require_evaluation: false\nmin_suites: 0\nrequired_signature: {key}\n")
    promote = ("registry", "promote", "tiny", "--alias", "champion", "--policy", str(policy))
    assert call(*promote)[0] == 0
    for more in ((), ("--unproven",)):
        status, out, err = call("serve", "tiny@champion", *more, "--port", "0", "--json")
        assert (status, json.loads(out)["error"]["type"]) == (3, "VerdictError")
        assert f"only with a signature of the key {key[:12]}" in err
    status, _, err = call("serve", "tiny@champion", "--require-signature", str(public), "--port", "0")
    assert (status, "tiny:v1 is not signed" in err) == (3, True)
    policy.write_text("required_signature: ada\n")
    status, _, err = call(*promote)
    assert (status, "64 lower-case hex digits" in err) == (2, True)
