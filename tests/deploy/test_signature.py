"""A server that was told a key serves what that key signed, byte for byte, out of the registry and out of a bundle."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.errors import ConflictError, VerdictError
from components.files import sha256_file
from components.models.fingerprint import base_files, fingerprint, write_binding
from deploy.application import make_engine
from deploy.bundle import REGISTRY_FILES, bento_environment, build_bundle
from deploy.from_registry import VersionFiles, version_files
from deploy.model import DESCRIPTION_FILE, ServedModel
from deploy.serving import bento_command, refusal, serve_bundle
from deploy.signature import KEY_VARIABLE, SIGNATURES_FILE, asked_keys, check_asked_keys, required_key
from deploy.staging import stage_model
from registry.entities import Version
from registry.envelope import key_id
from registry.errors import KeyUnusable, PolicyInvalid, SignatureRefused
from registry.gate import Policy
from registry.manifest import Manifest, Parent, describe_files
from registry.signatures import sign_version
from registry.store import Registry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
# a report that the policies here are satisfied with
REPORT = {"task": {"n": 100, "delta": 0.2, "low": 0.1, "high": 0.3}}


def write_public(path: Path, key: Ed25519PrivateKey) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_public(tmp_path / "key.pub.pem", KEY)


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    return write_public(tmp_path / "other.pub.pem", OTHER)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as opened:
        yield opened


def register(registry: Registry, name: str, kind: str, files: dict[str, Path], base: Path, *parents: Parent) -> Version:
    prints = fingerprint(base)
    manifest = Manifest(
        kind=kind,
        files=describe_files(files),
        base_fingerprint=prints.base,
        tokenizer_digest=prints.tokenizer,
        template_digest=prints.template,
        parents=parents,
        metadata={"max_new_tokens": 48},
    )
    return registry.register(name, manifest, files)


@pytest.fixture
def base(registry: Registry, tiny_folder: Path) -> Version:
    return register(registry, "tiny", "base", base_files(tiny_folder), tiny_folder)


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from components.models.adapters import save_adapter
    from components.models.load import load_model

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    save_adapter(get_peft_model(load_model(tiny_folder), config), folder)
    write_binding(folder, fingerprint(tiny_folder))
    return folder


@pytest.fixture
def adapter(registry: Registry, base: Version, adapter_folder: Path, tiny_folder: Path) -> Version:
    files = {path.name: path for path in adapter_folder.iterdir()}
    return register(registry, "sql", "adapter", files, tiny_folder, Parent(base.digest, "base"))


def stage(registry: Registry, version: Version, home: Path) -> ServedModel:
    return stage_model(version_files(registry, version.digest), out_home=home)


def test_the_registry_gives_out_what_the_key_signed_and_nothing_else(
    registry: Registry, adapter: Version, key: Path, other_key: Path
) -> None:
    with pytest.raises(SignatureRefused, match="sql:v1 is not signed"):
        version_files(registry, "sql", public_key=key)
    sign_version(registry, adapter, KEY)
    found = version_files(registry, "sql", public_key=key)
    assert isinstance(found, VersionFiles)
    assert found.signatures is not None
    with pytest.raises(SignatureRefused, match="not signed by the key"):
        version_files(registry, "sql", public_key=other_key)
    key.write_text("no key")
    with pytest.raises(KeyUnusable):
        version_files(registry, "sql", public_key=key)


@pytest.mark.parametrize("kind", ["adapter", "base"])
def test_a_staged_folder_proves_itself(
    registry: Registry, adapter: Version, base: Version, key: Path, other_key: Path, tmp_path: Path, kind: str
) -> None:
    version = adapter if kind == "adapter" else base
    unsigned = stage(registry, version, tmp_path)
    unsigned.verify()
    with pytest.raises(VerdictError, match="it carries no signature"):
        unsigned.verify(key)
    # signed after it was staged: the same folder has the proof the next time
    sign_version(registry, version, KEY)
    signed = stage(registry, version, tmp_path)
    assert signed.folder == unsigned.folder
    signed.verify(key)
    signed.verify()
    with pytest.raises(VerdictError, match="has not signed"):
        signed.verify(other_key)


def rewrite(model: ServedModel, **changes: Any) -> ServedModel:
    """Change a staged folder's description, as somebody would who can write there."""
    path = model.folder / DESCRIPTION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return ServedModel.read(model.folder)


def replace_file(model: ServedModel, name: str, content: bytes) -> ServedModel:
    path = model.folder / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return rewrite(model, files={**model.files, name: sha256_file(path)})


Change = Callable[[ServedModel], ServedModel]


def without_base_manifest(model: ServedModel) -> ServedModel:
    path = model.folder / SIGNATURES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_manifest": None}))
    return model


def with_another_base_manifest(model: ServedModel) -> ServedModel:
    path = model.folder / SIGNATURES_FILE
    carried = json.loads(path.read_text())
    path.write_text(json.dumps({**carried, "base_manifest": carried["base_manifest"].replace("tiny", "tinier")[:-1]}))
    return model


def with_code_of_its_own(model: ServedModel) -> ServedModel:
    return replace_file(model, "base/tokenizer_extra.json", b"{}")


FORGED: dict[str, tuple[Change, str]] = {
    "adapter's config": (
        lambda m: replace_file(m, "adapter/adapter_config.json", b'{"peft_type": "LORA"}'), "adapter_config.json is not"
    ),
    "file beside the adapter": (lambda m: replace_file(m, "adapter/more.json", b"{}"), "adapter/more.json is not"),
    "setting of the base that no fingerprint covers": (
        lambda m: replace_file(m, "base/generation_config.json", b'{"eos_token_id": 2}'), "generation_config"
    ),
    "file beside the base": (with_code_of_its_own, "tokenizer_extra.json is not"),
    "quantization": (lambda m: rewrite(m, quantization="nf4"), "another base or quantization"),
    "dtype": (lambda m: rewrite(m, dtype="bfloat16"), "asks for bfloat16"),
    "longest answer": (lambda m: rewrite(m, max_new_tokens=1), "allows 1 tokens, 48 were signed"),
    "no longest answer": (lambda m: rewrite(m, max_new_tokens=None), "allows None tokens"),
    "file outside base and adapter": (lambda m: replace_file(m, "more.json", b"{}"), "more.json is not"),
    "weights that no index names": (
        lambda m: replace_file(m, "base/more.safetensors", b"{}"), "more.safetensors is not what was signed"
    ),
    "weights in a folder below": (
        lambda m: replace_file(m, "base/more/model.safetensors", b"{}"), "more/model.safetensors is not"
    ),
    "fingerprint": (
        lambda m: rewrite(m, fingerprint=dict.fromkeys(("base", "tokenizer", "template"), "0" * 64)), "another base"
    ),
    "digest": (lambda m: rewrite(m, digest="0" * 64), "what was signed is version"),
    "base left out": (without_base_manifest, "the manifest of its base"),
    "another base": (with_another_base_manifest, "the manifest of its base"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), FORGED.values(), ids=FORGED)
def test_a_folder_whose_description_was_rewritten_is_refused(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path, change: Change, problem: str
) -> None:
    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    staged.verify(key)
    with pytest.raises(VerdictError, match=problem):
        change(staged).verify(key)


def test_a_file_that_was_changed_without_its_description_is_found_as_before(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path
) -> None:
    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    (staged.folder / "adapter" / "adapter_config.json").unlink()
    (staged.folder / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ConflictError, match="not what was bundled"):
        staged.verify(key)


def change_in_place(path: Path, at: int) -> None:
    """Overwrite four bytes and set the file's times back, in a file of its own: staged ones are links."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at : at + 4 or None] = bytes(b ^ 0x15 for b in content[at : at + 4 or None])
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("name", ["base/model.safetensors", "adapter/adapter_model.safetensors", "base/tokenizer.json"])
def test_bytes_that_were_changed_in_place_are_found_though_the_process_has_read_them(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path, name: str
) -> None:
    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    path = staged.folder / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    staged.verify()
    staged.verify(key)
    change_in_place(path, -4)
    with pytest.raises(ConflictError, match=f"{name} is not what was bundled"):
        staged.verify(key)


def test_weights_that_the_shard_index_does_not_name_are_read_too(
    registry: Registry, tiny_folder: Path, key: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors import safe_open

    source = tmp_path / "sharded"
    shutil.copytree(tiny_folder, source)
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    with safe_open(source / "model-00001-of-00001.safetensors", "pt") as opened:
        names = list(opened.keys())
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(tiny_folder / "model.safetensors", source / "more.safetensors")
    version = register(registry, "sharded", "base", base_files(source), source)
    sign_version(registry, version, KEY)
    staged = stage(registry, version, tmp_path)
    for asked in (key, None):
        path = staged.folder / "base" / "more.safetensors"
        staged.verify(asked)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ConflictError, match=r"more\.safetensors is not what was bundled"):
            staged.verify(asked)
        path.write_bytes(content)


def test_a_link_to_a_folder_is_something_that_was_added(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path
) -> None:
    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    (staged.folder / "base" / "original").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ConflictError, match="base/original was added"):
        staged.verify(key)


def test_a_folder_without_signatures_is_told_as_that_where_nothing_could_read_one(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = stage(registry, adapter, tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(VerdictError, match="it carries no signature") as caught:
        staged.verify(key)
    assert caught.value.exit_status == 3


def test_a_signature_that_is_gone_at_the_load_ends_both_servers_alike(
    registry: Registry, adapter: Version, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from deploy.application import make_app
    from deploy.plain import serve_plain

    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    made: list[Any] = []

    def take_away(model: ServedModel, public_key: Path | None) -> Any:
        (model.folder / SIGNATURES_FILE).unlink()
        made.append(make_engine(model, public_key))
        return made[0]

    monkeypatch.setattr("deploy.application.make_engine", take_away)
    with pytest.raises(VerdictError, match="it carries no signature"):
        serve_plain(staged, host="127.0.0.1", port=0, token=None, on_ready=lambda *_: None, public_key=key)
    # what the bundle's server tells whoever waits for it
    told = TestClient(make_app(staged, "token", made[0])).get("/readyz").json()
    assert told["status"] == "failed"
    error = refusal(told["reason"], told["exit_status"], bool(told.get("canary")))
    assert isinstance(error, VerdictError)
    assert (refusal("r", None).exit_status, refusal("r", None, canary=True).exit_status) == (4, 3)


def test_the_engine_loads_nothing_that_is_not_signed(
    registry: Registry, adapter: Version, key: Path, other_key: Path, tmp_path: Path
) -> None:
    sign_version(registry, adapter, KEY)
    staged = stage(registry, adapter, tmp_path)
    engine = make_engine(staged, other_key)
    engine.start()
    state = engine.wait_until_loaded()
    engine.close()
    assert state.state == "failed"
    assert "has not signed" in str(state.reason)


def test_the_key_of_the_environment_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert required_key() is None
    monkeypatch.setenv(KEY_VARIABLE, "key.pem")
    assert required_key() == Path("key.pem")
    # a run tries its own bundle before anybody can have signed it: only who asks for a key hands it on
    _, environment = bento_command(tmp_path / "bentos" / "tiny" / "v1", "127.0.0.1", 3000)
    assert KEY_VARIABLE not in environment


def test_no_password_goes_to_a_process_of_bentoml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = ("TUNEWRIGHT_REGISTRY_DATABASE", "TUNEWRIGHT_KEY_PASSWORD", "PGPASSWORD")
    for variable in secrets:
        monkeypatch.setenv(variable, "postgresql://ada:s3cr3t@db/models")
    environment = bento_environment(tmp_path)
    assert not {*secrets} & {*environment}
    assert "s3cr3t" not in "".join(environment.values())


def test_what_a_bundle_has_of_the_registry_is_enough_to_check_a_signature(tmp_path: Path) -> None:
    import subprocess

    root = Path(__file__).resolve().parents[2]
    (tmp_path / "registry").mkdir()
    for name in REGISTRY_FILES:
        (tmp_path / "registry" / name).write_bytes((root / "registry" / name).read_bytes())
    program = "import registry.envelope, registry, sys; print(registry.__file__, 'sqlalchemy' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(tmp_path / "registry" / "__init__.py"), "False"]


@pytest.mark.parametrize("said", ["a report's policy", "the policy of a promotion"])
def test_a_version_whose_policy_asks_for_a_key_is_not_served_without_it(
    registry: Registry, adapter: Version, key: Path, other_key: Path, tmp_path: Path, said: str
) -> None:
    asking = Policy(min_suites=0, required_signature=key_id(KEY.public_key()))
    plain = stage(registry, adapter, tmp_path)
    plain.verify()
    assert asked_keys(plain.folder) == registry.standing("sql").required_keys == ()
    if said == "the policy of a promotion":
        registry.record_evaluation(adapter.digest, REPORT)
        registry.promote("sql", "champion", policy=asking, actor="ada")
        registry.demote("sql", "champion", actor="ada", reason="what was asked once stays asked")
    else:
        registry.record_evaluation(adapter.digest, {"policy": asking.to_dict()})
    for named, why in ((None, "no key was named"), (other_key, "the key in .*other")):
        with pytest.raises(VerdictError, match=f"is served only with a signature .*{why}"):
            version_files(registry, "sql", public_key=named, served=True)
    with pytest.raises(SignatureRefused, match="is not signed"):
        version_files(registry, "sql", public_key=key, served=True)
    staged = stage(registry, adapter, tmp_path)  # a bundle of it asks, too: what it carries says so
    with pytest.raises(VerdictError, match="no key was named"):
        staged.verify()
    with pytest.raises(VerdictError, match="it carries no signature"):
        staged.verify(key)
    sign_version(registry, adapter, KEY)
    sign_version(registry, adapter, OTHER)
    assert version_files(registry, "sql", public_key=key, served=True).digest == adapter.digest
    staged = stage(registry, adapter, tmp_path)
    staged.verify(key)
    for named in (None, other_key):
        with pytest.raises(VerdictError, match="is served only with a signature"):
            staged.verify(named)


@pytest.mark.usefixtures("any_report")
def test_what_names_no_key_in_a_keys_place_is_not_served(registry: Registry, adapter: Version) -> None:
    registry.record_evaluation(adapter.digest, {"policy": {"required_signature": ["a key"]}})
    with pytest.raises(PolicyInvalid, match="asks for the signature of"):
        version_files(registry, "sql", served=True)
    registry.record_evaluation(adapter.digest, {"policy": Policy().to_dict()})
    assert version_files(registry, "sql", served=True).digest == adapter.digest


def test_a_report_closes_nothing_for_good_and_takes_nothing_from_a_promotion(
    registry: Registry, adapter: Version, key: Path, other_key: Path
) -> None:
    mine, other = (key_id(one.public_key()) for one in (KEY, OTHER))
    plain = Policy(min_suites=0)

    def report(policy: Policy) -> tuple[str, ...]:
        registry.record_evaluation(adapter.digest, {**REPORT, "policy": policy.to_dict()})
        return registry.standing("sql").required_keys

    registry.record_evaluation(adapter.digest, REPORT)
    registry.promote("sql", "champion", policy=plain, actor="ada")
    assert report(replace(plain, required_signature=other)) == (other,)
    assert report(plain) == ()
    registry.promote("sql", "staging", policy=replace(plain, required_signature=mine), actor="ada")
    assert report(plain) == report(replace(plain, required_signature=other)) == (mine,)
    registry.promote("sql", "tested", policy=plain, actor="ada")
    assert registry.standing("sql").required_keys == (mine,)
    # another key in its place: the last promotion that asks for one counts, and one key is enough
    registry.promote("sql", "released", policy=replace(plain, required_signature=other), actor="ada")
    assert registry.standing("sql").required_keys == (other,)
    sign_version(registry, adapter, OTHER)
    assert version_files(registry, "sql", public_key=other_key, served=True).digest == adapter.digest
    with pytest.raises(VerdictError, match=f"the key {other[:12]}, for which .* is {mine[:12]}"):
        version_files(registry, "sql", public_key=key, served=True)


def test_a_bundle_that_asks_for_two_keys_says_that_none_is_enough(key: Path) -> None:
    mine, other = (key_id(one.public_key()) for one in (KEY, OTHER))
    with pytest.raises(VerdictError, match="asks for the signatures of 2 keys, and a server is told one"):
        check_asked_keys("sql:v1", (mine, other), key)


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"envelopes": [], "required_keys": ["',
    "no text": b"\xff\xfe",
    "list": b"[]",
    "without envelopes": b"{}",
    "keys that are no list": b'{"envelopes": [], "required_keys": "ab"}',
    "key that is none": b'{"envelopes": [], "required_keys": [5]}',
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_a_damaged_file_of_signatures_asked_for_is_not_taken_for_nothing(
    registry: Registry, adapter: Version, tmp_path: Path, content: bytes
) -> None:
    asking = Policy(min_suites=0, required_signature=key_id(KEY.public_key()))
    registry.record_evaluation(adapter.digest, REPORT)
    registry.promote("sql", "champion", policy=asking, actor="ada")
    staged = stage(registry, adapter, tmp_path)
    (staged.folder / SIGNATURES_FILE).write_bytes(content)
    with pytest.raises(ConflictError, match=r"signatures\.json is damaged"):
        staged.verify()
    assert asked_keys(stage(registry, adapter, tmp_path).folder) == (asking.required_signature,)  # put right


def test_a_link_in_place_of_the_signatures_is_damage(tmp_path: Path) -> None:
    assert asked_keys(tmp_path) == ()
    (tmp_path / SIGNATURES_FILE).symlink_to(tmp_path / "gone")
    with pytest.raises(ConflictError, match="leads nowhere"):
        asked_keys(tmp_path)


@pytest.mark.usefixtures("any_report")
def test_a_policy_that_is_none_asks_for_nothing(registry: Registry, adapter: Version) -> None:
    """Whether the version is proven is another question, which --unproven leaves open."""
    for policy in ([], "x", {"min_row": 1}):
        registry.record_evaluation(adapter.digest, {"policy": policy})
        assert version_files(registry, "sql", served=True).digest == adapter.digest


@pytest.mark.integration
def test_a_bundle_is_served_where_the_key_signed_it(
    registry: Registry, adapter: Version, key: Path, other_key: Path, tmp_path: Path
) -> None:
    sign_version(registry, adapter, KEY)
    bundle = build_bundle(stage(registry, adapter, tmp_path), out_home=tmp_path)
    assert "cryptography==" in (bundle.path / "env/python/requirements.txt").read_text()
    with serve_bundle(bundle.path, public_key=key) as server:
        assert server.ready["digest"] == adapter.digest
    with pytest.raises(VerdictError, match="has not signed"), serve_bundle(bundle.path, public_key=other_key):
        pass
