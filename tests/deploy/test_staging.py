from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import deploy.canary as canaries
import deploy.staging as staging
from components.data.rows import Message
from components.errors import ConflictError, InputError
from components.files import sha256_file
from components.models.fingerprint import Fingerprint, fingerprint, write_binding
from components.models.load import load_model
from components.models.rope import RopeScaling, read_scaling
from components.models.tiny import make_tiny
from deploy.engines.forward import Forward
from deploy.engines.torch_engine import TorchEngine
from deploy.from_registry import VersionFiles
from deploy.model import DESCRIPTION_FILE, ServedModel
from deploy.staging import stage_model

DIGEST = "d1" * 32


def manifest_of(prints: Fingerprint, **more: Any) -> dict[str, Any]:
    return {
        "base_fingerprint": prints.base,
        "tokenizer_digest": prints.tokenizer,
        "template_digest": prints.template,
        **more,
    }


def make_adapter(folder: Path, base: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from components.models.load import load_model

    torch.manual_seed(0)
    model = get_peft_model(
        load_model(base), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    write_binding(folder, fingerprint(base))
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter") / "adapter", tiny_folder)


def stage(home: Path, base: Path, adapter: Path | None, manifest: dict[str, Any]) -> ServedModel:
    return stage_model(VersionFiles("tiny", 2, DIGEST, base, adapter, manifest), out_home=home)


@pytest.fixture
def staged(tmp_path: Path, tiny_folder: Path, adapter: Path) -> ServedModel:
    return stage(tmp_path, tiny_folder, adapter, manifest_of(fingerprint(tiny_folder)))


def test_staged_folder_describes_itself_and_is_verified(staged: ServedModel, tmp_path: Path) -> None:
    assert staged.folder.parent == tmp_path / "models"
    assert staged.folder.name.startswith(f"{DIGEST}-")
    assert ServedModel.read(staged.folder) == staged
    assert (staged.label, staged.adapter) == ("tiny:v2", staged.folder / "adapter")
    assert staged.canary.tokens
    staged.verify()


def test_the_longest_measured_answer_is_kept_and_older_descriptions_do_without(
    tmp_path: Path, tiny_folder: Path
) -> None:
    prints = fingerprint(tiny_folder)
    made = stage(tmp_path, tiny_folder, None, manifest_of(prints, metadata={"max_new_tokens": 48}))
    assert ServedModel.read(made.folder).max_new_tokens == 48
    document = json.loads((made.folder / DESCRIPTION_FILE).read_text())
    del document["max_new_tokens"]
    (made.folder / DESCRIPTION_FILE).write_text(json.dumps(document))
    assert ServedModel.read(made.folder).max_new_tokens is None


def test_weights_are_linked_and_not_copied(staged: ServedModel, tiny_folder: Path) -> None:
    assert (staged.folder / "base" / "model.safetensors").samefile(tiny_folder / "model.safetensors")


def test_staging_again_returns_what_is_there(
    staged: ServedModel, tmp_path: Path, tiny_folder: Path, adapter: Path
) -> None:
    before = (staged.folder / DESCRIPTION_FILE).stat().st_mtime_ns
    assert stage(tmp_path, tiny_folder, adapter, manifest_of(fingerprint(tiny_folder))) == staged
    assert (staged.folder / DESCRIPTION_FILE).stat().st_mtime_ns == before


def test_other_way_of_staging_does_not_take_the_folder_that_is_there(
    staged: ServedModel, tmp_path: Path, tiny_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PROBES", ((Message("user", "age"),), *staging.PROBES))
    again = stage(tmp_path, tiny_folder, adapter, manifest_of(fingerprint(tiny_folder)))
    assert again.folder != staged.folder
    assert ServedModel.read(staged.folder) == staged


def test_quantization_is_that_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "QUANTIZED_TIE_MARGIN", 0.01)  # random weights hardly tell one token from another
    base = make_tiny(tmp_path / "base", seed=1)
    manifest = manifest_of(fingerprint(base), quantization={"method": "nf4"})
    staged = stage(tmp_path, base, make_adapter(tmp_path / "adapter", base), manifest)
    assert staged.quantization == "nf4"
    assert hasattr(staged.load()[0], "peft_config")


def test_adapter_is_merged_and_changes_the_answers(staged: ServedModel, loaded: Any) -> None:
    import torch

    model, tokenizer = staged.load()
    assert not hasattr(model, "peft_config")
    ids = torch.tensor([tokenizer("age", add_special_tokens=False)["input_ids"]])
    assert not torch.allclose(model(ids).logits, loaded[0](ids).logits)


def test_base_of_the_same_shapes_is_refused(
    tmp_path: Path, tiny_folder: Path, other_folder: Path, adapter: Path
) -> None:
    with pytest.raises(ConflictError, match="another base") as refusal:
        stage(tmp_path, other_folder, adapter, manifest_of(fingerprint(tiny_folder)))
    assert refusal.value.exit_status == 4
    # a manifest that was made to fit the other base doesn't help: the adapter has its own record
    with pytest.raises(ConflictError, match="the adapter was trained on"):
        stage(tmp_path, other_folder, adapter, manifest_of(fingerprint(other_folder)))
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_base_exchanged_after_staging_is_refused(staged: ServedModel, other_folder: Path) -> None:
    weights = staged.folder / "base" / "model.safetensors"
    weights.unlink()
    weights.write_bytes((other_folder / "model.safetensors").read_bytes())
    with pytest.raises(ConflictError, match=r"base/model\.safetensors is not what was bundled"):
        staged.verify()
    # not even with a description that lists the new file
    document = json.loads((staged.folder / DESCRIPTION_FILE).read_text())
    document["files"]["base/model.safetensors"] = sha256_file(weights)
    document["fingerprint"]["base"] = fingerprint(staged.folder / "base").base
    (staged.folder / DESCRIPTION_FILE).write_text(json.dumps(document))
    with pytest.raises(ConflictError, match="another base"):
        ServedModel.read(staged.folder).verify()


@pytest.mark.parametrize(
    "name", ["base/tokenizer.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
)
def test_changed_file_is_named(staged: ServedModel, name: str) -> None:
    path = staged.folder / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b" ")
    with pytest.raises(ConflictError, match=name):
        staged.verify()


def test_added_and_missing_files_are_named(staged: ServedModel) -> None:
    (staged.folder / "base" / "extra.json").write_text("{}")
    with pytest.raises(ConflictError, match=r"base/extra\.json was added"):
        staged.verify()
    (staged.folder / "base" / "extra.json").unlink()
    (staged.folder / "base" / "config.json").unlink()
    with pytest.raises(ConflictError, match=r"base/config\.json is missing"):
        staged.verify()


def test_file_that_the_registry_does_not_list_like_this_is_refused(
    tmp_path: Path, tiny_folder: Path, adapter: Path
) -> None:
    entry = {"adapter_config.json": {"size": 1, "sha256": "0" * 64}}
    with pytest.raises(ConflictError, match=r"adapter_config\.json is not what the registry lists"):
        stage(tmp_path, tiny_folder, adapter, manifest_of(fingerprint(tiny_folder), files=entry))


def test_manifest_without_fingerprints_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="which base"):
        stage(tmp_path, tiny_folder, None, {"base_fingerprint": None})


def test_folder_that_can_not_be_written_is_an_input_error(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        stage(tmp_path / "file", tiny_folder, None, manifest_of(fingerprint(tiny_folder)))


def test_folder_without_a_description_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bundle the version again"):
        ServedModel.read(tmp_path)


YARN = RopeScaling("yarn", 4)


def test_scaling_goes_with_the_adapter_into_what_is_served(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "short", positions=64)
    adapter = make_adapter(tmp_path / "adapter", base)
    write_binding(adapter, fingerprint(base), YARN)
    manifest = manifest_of(fingerprint(base), metadata={"rope_scaling": YARN.to_record()})
    staged = stage(tmp_path, base, adapter, manifest)
    assert (staged.rope_scaling, ServedModel.read(staged.folder).rope_scaling) == (YARN, YARN)
    engine = TorchEngine(staged.load)
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    engine.close()
    assert read_scaling(engine.model.config) == YARN
    assert Forward(engine.model).positions == 256
    # lost afterwards, it is a changed file
    write_binding(staged.folder / "adapter", fingerprint(base))
    with pytest.raises(ConflictError, match=r"tunewright\.json"):
        staged.verify()


def test_version_whose_files_lost_their_scaling_is_refused(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "short", positions=64)
    adapter = make_adapter(tmp_path / "adapter", base)
    manifest = manifest_of(fingerprint(base), metadata={"rope_scaling": YARN.to_record()})
    with pytest.raises(ConflictError, match="trained under RoPE scaling yarn:4"):
        stage(tmp_path, base, adapter, manifest)
    with pytest.raises(ConflictError, match="trained under RoPE scaling yarn:4"):
        stage(tmp_path, base, None, manifest)


def test_a_base_that_transformers_does_not_know_is_told_and_no_traceback(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "strange")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "nobodys"}))
    with pytest.raises(InputError, match="can't be loaded: The checkpoint"):
        stage(tmp_path, base, None, manifest_of(fingerprint(base)))


def test_whole_weights_are_served_under_the_scaling_of_their_config(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "short", positions=64)
    load_model(base, rope_scaling=YARN).save_pretrained(base)
    manifest = manifest_of(fingerprint(base), metadata={"rope_scaling": YARN.to_record()})
    staged = stage(tmp_path, base, None, manifest)
    assert staged.rope_scaling == YARN
    assert Forward(staged.load()[0]).positions == 256
