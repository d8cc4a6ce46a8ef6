"""Versions leave as verified bytes that other tools read, whole or not at all, and come back as what they were."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError, TunewrightError
from components.models.fingerprint import fingerprint, write_binding
from components.models.load import load_model
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny
from flows.registry_export import CONVERTER, export_version
from flows.registry_import import import_folder
from registry.errors import BlobCorrupted, ExportRefused, RegistryPathError
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry
from tests.flows.conftest import call_command


def make_lora(base: Path, folder: Path, **options: Any) -> Path:
    """Save an adapter with peft, none of its factors zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False}
    get_peft_model(load_model(base), LoraConfig(**{**settings, **options})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lora(tiny_base, tmp_path_factory.mktemp("export") / "lora")


@pytest.fixture(scope="session")
def dora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lora(tiny_base, tmp_path_factory.mktemp("export") / "dora", use_dora=True)


@pytest.fixture
def registry(tmp_path: Path, tiny_base: Path, lora: Path) -> Iterator[Registry]:
    """A registry with the base tiny and its adapter sql."""
    with Registry.open(tmp_path / "home" / "registry") as opened:
        import_folder(opened, tiny_base, name="tiny", licence="mit")
        import_folder(opened, lora, name="sql", base="tiny")
        yield opened


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def expected(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel

    model = load_model(base)
    return logits(model if adapter is None else PeftModel.from_pretrained(model, str(adapter)))


def digests(registry: Registry, ref: str) -> dict[str, str]:
    return registry.resolve(ref).manifest.file_digests


def test_whole_weights_are_loaded_by_transformers_and_come_back_as_the_same_version(
    registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = export_version(registry, "tiny", tmp_path / "out", "hf")
    assert (found["version"], found["merged"]) == ("tiny:v1", False)
    assert logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).equal(expected(tiny_base, None))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a")["input_ids"]
    assert fingerprint(tmp_path / "out") == fingerprint(tiny_base)
    again = import_folder(registry, tmp_path / "out", name="tiny")
    assert (again["digest"], again["licence"]) == (registry.resolve("tiny").digest, "mit")
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    # copies, not links into the registry
    assert {path.stat().st_nlink for path in (tmp_path / "out").iterdir()} == {1}


def test_an_adapter_is_loaded_by_peft_and_comes_back_as_the_same_bytes(
    registry: Registry, tiny_base: Path, lora: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    found = export_version(registry, "sql", tmp_path / "out", "peft")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert "peft doesn't check" in found["notes"][0]
    model = PeftModel.from_pretrained(load_model(tiny_base), str(tmp_path / "out"))
    assert logits(model).equal(expected(tiny_base, lora))
    again = import_folder(registry, tmp_path / "out", name="sql-again")
    assert digests(registry, "sql-again") == digests(registry, "sql")
    assert again["base"] == fingerprint(tiny_base).base
    export_version(registry, "sql", tmp_path / "named", "peft", base_name="org/tiny")
    config = json.loads((tmp_path / "named" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny"


def test_an_adapter_for_transformers_is_merged_and_says_the_same(
    registry: Registry, tiny_base: Path, lora: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    found = export_version(registry, "sql", tmp_path / "out", "hf")
    assert found["merged"]
    whole = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    assert torch.allclose(whole, expected(tiny_base, lora), atol=1e-4)
    assert not torch.allclose(whole, expected(tiny_base, None), atol=1e-4)
    assert "## Merged" in (tmp_path / "out" / "README.md").read_text()


def test_merging_lays_nothing_out_where_the_registry_takes_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "is_writable", False)
    assert export_version(registry, "sql", tmp_path / "out", "hf")["merged"]
    assert not (registry.folder / "checkouts").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_vllm_gets_base_and_adapter_side_by_side_with_the_command_that_serves_them(
    registry: Registry, tiny_base: Path, lora: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    found = export_version(registry, "sql", tmp_path / "out", "vllm")
    assert found["command"] == (
        "vllm serve base --served-model-name tiny --enable-lora --max-lora-rank 8 --lora-modules sql=adapter"
    )
    assert found["command"] in (tmp_path / "out" / "README.md").read_text()
    model = PeftModel.from_pretrained(load_model(tmp_path / "out" / "base"), str(tmp_path / "out" / "adapter"))
    assert logits(model).equal(expected(tiny_base, lora))
    whole = export_version(registry, "tiny", tmp_path / "whole", "vllm")
    assert whole["command"] == "vllm serve . --served-model-name tiny"


def test_what_vllm_can_not_serve_beside_its_base_is_merged(
    registry: Registry, tiny_base: Path, dora: Path, tmp_path: Path
) -> None:
    import torch

    import_folder(registry, dora, name="dora", base="tiny")
    found = export_version(registry, "dora", tmp_path / "out", "vllm")
    assert (found["merged"], found["command"]) == (True, "vllm serve . --served-model-name dora")
    assert torch.allclose(logits(load_model(tmp_path / "out")), expected(tiny_base, dora), atol=1e-4)


def test_an_adapter_under_rope_scaling_is_merged_with_it(
    registry: Registry, tiny_base: Path, lora: Path, tmp_path: Path
) -> None:
    scaled = Path(shutil.copytree(lora, tmp_path / "scaled"))
    write_binding(scaled, fingerprint(tiny_base), RopeScaling("yarn", 2.0))
    import_folder(registry, scaled, name="long")
    found = export_version(registry, "long", tmp_path / "out", "vllm")
    assert found["merged"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["rope_parameters"]["rope_type"], config["rope_parameters"]["factor"]) == ("yarn", 2.0)
    notes = export_version(registry, "long", tmp_path / "peft", "peft")["notes"]
    assert any("yarn:2" in note for note in notes)


Facts = dict[str, Any]
REFUSED: dict[str, tuple[Facts, str, str]] = {
    "integers for transformers": (
        {"kind": "quantized", "quantization": {"method": "int8"}}, "hf", "registry lineage odd:v1"
    ),
    "integers for vLLM": ({"kind": "quantized", "quantization": {"method": "int4"}}, "vllm", "holds integers"),
    "integers for peft": ({"kind": "quantized"}, "peft", "--format oci"),
    "a head": ({"kind": "head"}, "hf", "no whole weights"),
    "a soft prompt merged": ({"kind": "adapter", "peft_config": {"peft_type": "P_TUNING"}}, "hf", "can't be merged"),
    "bottlenecks": ({"kind": "adapter", "peft_config": {"peft_type": "BOTTLENECK"}}, "peft", "peft doesn't load"),
    "a base in 4 bits, merged": (
        {"kind": "adapter", "peft_config": {"peft_type": "LORA"}, "quantization": {"method": "nf4"}}, "hf", "in nf4"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "form", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_form_that_a_version_has_not_is_refused_with_what_to_do(
    registry: Registry, tmp_path: Path, facts: Facts, form: str, problem: str
) -> None:
    base = registry.resolve("tiny")
    source = tmp_path / "config.json"
    source.write_text(json.dumps(facts.get("peft_config", {})))
    name = "adapter_config.json" if facts["kind"] == "adapter" else "config.json"
    manifest = Manifest(
        files=describe_files({name: source}),
        base_fingerprint=base.base_fingerprint,
        parents=(Parent(base.digest, "base"),),
        **facts,
    )
    registry.register("odd", manifest, {name: source})
    with pytest.raises(ExportRefused, match=problem):
        export_version(registry, "odd", tmp_path / "out", form)
    assert not (tmp_path / "out").exists()
    assert export_version(registry, "odd", tmp_path / "oci", "oci")["files"] > 0


@pytest.mark.parametrize(("ref", "form"), [("tiny", "hf"), ("sql", "peft"), ("sql", "vllm"), ("sql", "oci")])
def test_a_damaged_blob_exports_nothing(registry: Registry, tmp_path: Path, ref: str, form: str) -> None:
    entry = next(e for n, e in registry.resolve(ref).manifest.files.items() if n.endswith(".safetensors"))
    blob = registry.blobs.local_path(entry.sha256)
    assert blob is not None
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(BlobCorrupted, match="was damaged"):
        export_version(registry, ref, tmp_path / "out", form)
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_nothing_is_overwritten(registry: Registry, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "nowhere")
    for destination, problem in ((target, "is not empty"), (target / "mine.txt", "not a folder"), (linked, "not a f")):
        with pytest.raises(RegistryPathError, match=problem):
            export_version(registry, "tiny", destination, "hf")
    assert [path.name for path in target.iterdir()] == ["mine.txt"]


def test_a_folder_that_is_filled_meanwhile_is_not_overwritten(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = registry.blobs.read

    def fill_then_read(*arguments: Any) -> int:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "theirs.txt").write_text("theirs")
        return read(*arguments)

    monkeypatch.setattr(registry.blobs, "read", fill_then_read)
    with pytest.raises(RegistryPathError, match="can't be written"):
        export_version(registry, "tiny", tmp_path / "out", "hf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]


def test_gguf_without_a_converter_says_where_one_is_and_what_it_takes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"convert_hf_to_gguf.py of llama.cpp.*") as caught:
        export_version(registry, "tiny", tmp_path / "out", "gguf")
    assert "registry export tiny:v1 FOLDER --format hf" in str(caught.value.next_step)
    assert not (tmp_path / "out").exists()


# Not llama.cpp's: it has its command line, checks that it is given what it takes, and writes with the gguf package.
CONVERTER_TEXT = """
import os, sys, json, pathlib, gguf, numpy
folder, flag, target = sys.argv[1:]
assert not [name for name in os.environ if name.startswith(("TUNEWRIGHT_", "PGPASS"))], "a password"
assert pathlib.Path(folder).parent.parent == pathlib.Path.cwd(), "a folder elsewhere"
assert flag == "--outfile"
config = json.loads((pathlib.Path(folder) / "config.json").read_text())
assert (pathlib.Path(folder) / "model.safetensors").is_file()
writer = gguf.GGUFWriter(target, config["model_type"])
writer.add_tensor("x", numpy.ones(4, dtype="float32"))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
"""


def put_converter(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / CONVERTER).write_text(text)
    (folder / CONVERTER).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder))


def test_gguf_is_made_by_the_converter_on_the_path(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_converter(tmp_path / "llama.cpp", CONVERTER_TEXT, monkeypatch)
    monkeypatch.setenv("TUNEWRIGHT_REGISTRY_DATABASE", "postgresql://me:secret@host/x")
    monkeypatch.setenv("TUNEWRIGHT_KEY_PASSWORD", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.chdir(tmp_path)
    found = export_version(registry, "tiny", tmp_path / "out", "gguf")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "tiny-v1.gguf"]
    assert found["command"] == "llama-server --model tiny-v1.gguf"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
    import gguf

    assert gguf.GGUFReader(tmp_path / "out" / "tiny-v1.gguf").get_field("general.architecture").contents() == "llama"


@pytest.mark.parametrize("text", ["raise SystemExit('no such architecture')", "print('done')"])
def test_a_converter_that_fails_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    put_converter(tmp_path / "llama.cpp", text, monkeypatch)
    with pytest.raises(TunewrightError, match=r"made no GGUF file"):
        export_version(registry, "tiny", tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()


def test_the_commands_tell_where_it_lies_and_what_comes_next(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ("--home", str(tmp_path / "home"))

    def call(*arguments: str) -> tuple[int, str, str]:
        return call_command(monkeypatch, capsys, "registry", *arguments, *home)

    status, out, err = call("export", "sql", str(tmp_path / "out"), "--format", "vllm")
    assert status == 0, err
    assert "next, from inside it: vllm serve base" in out
    status, out, err = call("export", "sql", str(tmp_path / "out"), "--format", "peft", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (2, "RegistryPathError")
    status, out, err = call("card", "sql")
    assert status == 0, err
    assert out.startswith("---\nlicense: ")
    assert out == (tmp_path / "out" / "README.md").read_text().partition("\n## Serving")[0]
    assert call("export", "nobody", str(tmp_path / "other"), "--format", "hf")[0] == 4


def test_of_several_registered_as_the_same_base_it_is_said_which_one_was_taken(
    registry: Registry, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    export_version(registry, "sql", tmp_path / "out", "peft")
    export_version(registry, "sql", tmp_path / "named", "peft", base_name="org/tiny")
    assert import_folder(registry, tmp_path / "out", name="again")["same_bases"] == []
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    for name in ("another", "zeta"):
        (copy / "LICENSE").write_text(f"of {name}")  # which no fingerprint covers
        import_folder(registry, copy, name=name)
    found = import_folder(registry, tmp_path / "out", name="again")
    assert (found["base_version"], found["same_bases"]) == ("tiny:v1", ["another:v1", "zeta:v1"])
    found = import_folder(registry, tmp_path / "named", name="named")  # no model has the name that it calls its base
    assert (found["base_version"], found["same_bases"]) == ("zeta:v1", ["another:v1", "tiny:v1"])
    found = import_folder(registry, tmp_path / "out", name="chosen", base="another")
    assert (found["base_version"], found["same_bases"]) == ("another:v1", [])
    home = str(registry.folder.parent)
    status, out, err = call_command(
        monkeypatch, capsys, "registry", "import", str(tmp_path / "out"), "--name", "again", "--home", home
    )
    assert status == 0, err
    assert "its base is tiny:v1; registered with the same fingerprints: another:v1, zeta:v1; --base REF takes" in out


def test_another_base_of_the_same_shapes_does_not_take_an_exported_adapter(registry: Registry, tmp_path: Path) -> None:
    import_folder(registry, make_tiny(tmp_path / "other", seed=9), name="other")
    export_version(registry, "sql", tmp_path / "out", "peft")
    with pytest.raises(InputError, match="trained on another base than other:v1"):
        import_folder(registry, tmp_path / "out", name="sql", base="other")
